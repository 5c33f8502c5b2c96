"""``fsseg video``: files, folders, cameras, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fsseg_sdk import Task
from fsseg_sdk.cli import frames
from tests.tiny import tiny_scene

from .conftest import Place, Run, command, environment, obey_interrupts

cv2 = pytest.importorskip("cv2")


def read(path: Path) -> list[NDArray[np.uint8]]:
    """All frames of a video, RGB."""
    capture = cv2.VideoCapture(str(path))
    found: list[NDArray[np.uint8]] = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return found
        found.append(np.ascontiguousarray(frame[..., ::-1]))


@pytest.fixture
def film(place: Place) -> Path:
    """film.avi: ten frames of a square that moves to the right."""
    path = place.folder / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (160, 120))
    for number in range(10):
        left = 10 + 10 * number
        picture, _ = tiny_scene((120, 160), (left, 20, left + 40, 70))
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


def lines(text: str) -> tuple[list[Any], Any]:
    """(one object per frame, the summary)."""
    parsed = [json.loads(line) for line in text.splitlines()]
    return parsed[:-1], parsed[-1]["summary"]


@pytest.mark.parametrize("options", [(), ("--masks",)], ids=["overlays", "masks"])
def test_every_frame_of_a_file(
    place: Place, run: Run, film: Path, options: tuple[str, ...]
) -> None:
    done = run(
        *("video", film, "--task", place.task, "--bundle", place.bundle),
        *("--out", "out.mp4", "--json", *options),
    )
    assert done.code == 0
    each, summary = lines(done.out)
    assert [line["frame"] for line in each] == list(range(10))
    lefts = [line["classes"]["square"]["box"][0] for line in each]
    assert lefts == sorted(lefts) and lefts[-1] - lefts[0] > 50, "red stays red, the square moves"
    assert (summary["frames"], summary["dropped"], summary["interrupted"]) == (10, 0, False)
    written = read(Path("out.mp4"))
    assert [frame.shape for frame in written] == [(120, 160, 3)] * 10
    dark = (written[0].max(axis=2) < 40).mean()  # of a mask, what is not the square is black
    assert (dark > 0.5) == bool(options)
    assert not list(place.folder.glob(".*.mp4"))


def test_a_folder_of_frames_into_a_folder(place: Place, run: Run) -> None:
    (place.queries / "q1.jpg").write_bytes(b"no picture")
    (place.queries / "zz_last.png").write_bytes(b"")
    done = run("video", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found")
    assert done.code == 1
    assert "q1.jpg" in done.err and "zz_last.png" in done.err
    assert "2 could not be read" in done.out
    made = {path.name for path in Path("found").glob("*_overlay.jpg")}
    stems = {name.removesuffix("_overlay.jpg") for name in made}
    assert stems == {"q0", "q1-2", "q2", "q3"}  # q1.jpg comes before q1.png
    moved = json.loads(Path("found/q3.json").read_text())["classes"]["square"]["box"][0]
    assert moved > json.loads(Path("found/q0.json").read_text())["classes"]["square"]["box"][0]


def test_frames_stop_after_n(place: Place, run: Run, film: Path) -> None:
    done = run(
        *("video", film, "--task", place.task, "--bundle", place.bundle),
        *("--out", "found", "--masks", "--frames", "3"),
    )
    assert done.code == 0
    made = {path.name for path in Path("found").iterdir()}
    assert made == {f"frame_{n:06d}{end}" for n in range(3) for end in ("_mask.png", ".json")}


class Camera:
    """What OpenCV would give of a camera: 60 frames, faster than they can be segmented."""

    count = 60

    def __init__(self, source: object) -> None:
        assert source == 0
        self._frames: Iterator[int] = iter(range(self.count))

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        if next(self._frames, None) is None:
            return False, None
        time.sleep(0.002)
        return True, np.ascontiguousarray(tiny_scene((60, 80), (5, 5, 30, 30))[0][..., ::-1])

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Camera 0, and a segmenter that needs 20 ms."""
    fake = SimpleNamespace(**{name: getattr(cv2, name) for name in dir(cv2) if name[0] != "_"})
    fake.VideoCapture = Camera
    monkeypatch.setattr(frames, "_opencv", lambda: fake)
    right = Task._segment

    def slow(self: Task, *arguments: Any) -> Any:
        time.sleep(0.02)
        return right(self, *arguments)

    monkeypatch.setattr(Task, "_segment", slow)


@pytest.mark.usefixtures("camera")
def test_of_a_camera_the_latest_frame_counts(place: Place, run: Run) -> None:
    done = run(
        *("video", "0", "--task", place.task, "--bundle", place.bundle),
        *("--out", "out.mp4", "--json"),
    )
    assert done.code == 0
    each, summary = lines(done.out)
    assert summary["dropped"] > 0
    assert summary["frames"] + summary["dropped"] == Camera.count
    assert each[-1]["frame"] == Camera.count - 1
    assert len(read(Path("out.mp4"))) == Camera.count, "dropped frames are filled: real time"


@pytest.mark.usefixtures("camera")
def test_stopping_a_camera_is_no_failure(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = frames.VideoSink.write

    def write(self: Any, number: int, result: Any) -> None:
        right(self, number, result)
        if number >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(frames.VideoSink, "write", write)
    done = run("video", "0", "--task", place.task, "--bundle", place.bundle, "--out", "out.mp4")
    assert done.code == 0
    assert "interrupted" in done.out
    assert len(read(Path("out.mp4"))) >= 6


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("missing.mp4",), "missing.mp4"),
        (("film.avi", "--out", "mask.png/x.mp4"), "mask.png"),
        (("film.avi", "--out", "mask.png"), "a folder or a video"),
        (("queries", "--out", "queries"), "the next run"),
        (("notes.avi",), "notes.avi"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    place: Place, run: Run, film: Path, arguments: tuple[str, ...], part: str
) -> None:
    Path("notes.avi").write_text("not a video")
    done = run("video", *arguments, "--task", place.task, "--bundle", place.bundle)
    assert done.code == 2
    assert part in done.err
    assert not list(place.folder.glob(".*.mp4"))


def test_without_opencv_it_says_what_to_install(
    place: Place, run: Run, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    done = run("video", film, "--task", place.task, "--bundle", place.bundle)
    assert done.code == 2
    assert "fsseg_sdk[video]" in done.err
    done = run("video", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found")
    assert done.code == 0, "folders need no OpenCV"


def test_sigint_finishes_the_file(place: Place) -> None:
    """A real signal to a real process, in the middle of a film that would take minutes."""
    many = place.folder / "many"
    many.mkdir()
    picture = Image.fromarray(tiny_scene((720, 960), (300, 200, 500, 500))[0])
    picture.save(many / "0000.png")
    for number in range(1, 3000):
        (many / f"{number:04d}.png").hardlink_to(many / "0000.png")
    process = subprocess.Popen(
        command(
            *("video", "many", "--task", place.task, "--bundle", place.bundle),
            *("--out", "out.mp4", "--json"),
        ),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_interrupts,
    )
    assert process.stdout is not None
    head = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    each, summary = lines("".join(head) + rest)
    assert summary["interrupted"] is True
    assert 3 <= len(each) < 3000
    assert len(read(place.folder / "out.mp4")) in (len(each), len(each) + 1)
    assert not list(place.folder.glob(".*.mp4"))
