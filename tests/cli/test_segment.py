"""``fsseg segment``: files, exit codes, reports."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import Segmenter, Task

from .conftest import Place, Run

RUNTIME = {"bundle", "method", "backend", "device", "precision"}
REPORT = {
    *("format", "format_version", "created_with", "classes", "warnings", "summary", "queries"),
    *("no_pictures", *RUNTIME),
}
SEGMENTED = {
    *("query", "status", "files", "size", "classes", "threshold", "calibrated", "timings_ms"),
    *("warnings", "dropped", "places", *RUNTIME),
}


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_a_folder(place: Place, run: Run) -> None:
    (place.queries / "notes.txt").write_text("not a picture")
    done = run(
        "segment", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found"
    )
    assert done.code == 0
    expected = {f"q{n}{end}" for n in range(4) for end in ("_mask.png", "_overlay.jpg", ".json")}
    assert names("found") == expected | {"report.json"}
    report = json.loads(Path("found/report.json").read_text())
    assert set(report) == REPORT
    assert [set(entry) for entry in report["queries"]] == [SEGMENTED] * 4
    assert [entry["query"] for entry in report["queries"]] == [
        f"queries/q{n}.png" for n in range(4)
    ]
    assert report["no_pictures"] == ["queries/notes.txt"]
    summary = report["summary"]
    assert (summary["queries"], summary["segmented"], summary["failed"]) == (4, 4, 0)
    assert summary["complete"] is True
    assert len([line for line in done.out.splitlines() if line.startswith("queries/q")]) == 4


def test_files_hold_what_the_library_answers(place: Place, run: Run) -> None:
    query = place.queries / "q1.png"
    done = run(
        *("segment", query, "--task", place.task, "--bundle", place.bundle),
        *("--out", "found", "--json"),
    )
    result = Segmenter.load(place.bundle).load_task(place.task).segment(query)
    assert np.array_equal(np.array(Image.open("found/q1_mask.png")), result.labels)
    (entry,) = done.json["queries"]
    assert entry["classes"] == result.to_dict()["classes"]
    assert json.loads(Path("found/report.json").read_text()) == done.json
    assert result.labels.any(), "an empty mask would agree with anything"


def test_one_bad_picture_is_reported_and_the_rest_go_on(place: Place, run: Run) -> None:
    (place.queries / "bad.jpg").write_bytes(b"no picture at all")
    whole = (place.queries / "q0.png").read_bytes()
    (place.queries / "q1_short.png").write_bytes(whole[: len(whole) // 2])
    done = run(
        "segment", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found"
    )
    assert done.code == 1
    complaints = [line for line in done.err.splitlines() if "warning" not in line]
    assert [line.split(": ")[1] for line in complaints] == [
        "queries/bad.jpg",
        "queries/q1_short.png",
    ]
    report = json.loads(Path("found/report.json").read_text())
    status = [entry["status"] for entry in report["queries"]]
    assert status == ["failed", "segmented", "segmented", "failed", "segmented", "segmented"]
    assert "PNG" in report["queries"][0]["error"]
    assert report["summary"] | {"seconds": 0, "per_second": 0} == {
        **{"queries": 6, "segmented": 4, "failed": 2, "complete": True},
        **{"seconds": 0, "per_second": 0},
    }
    assert "bad_mask.png" not in names("found")


@pytest.mark.parametrize(
    "shown",
    [("--mask", "mask.png"), ("--box", "16,12,40,36"), ("--scribble", "20,20 30,30")],
    ids=["mask", "box", "scribble"],
)
def test_one_call_without_a_task(place: Place, run: Run, shown: tuple[str, str]) -> None:
    done = run(
        *("segment", "queries/q0.png", "--support", place.support, *shown, "--name", "square"),
        *("--bundle", place.bundle, "--out", "found", "--json"),
    )
    assert done.code == 0
    found = done.json["queries"][0]["classes"]["square"]
    left, top, right, bottom = found["box"]
    assert left < 40 < right and top < 45 < bottom, found


def test_several_classes_without_a_task(place: Place, run: Run) -> None:
    done = run(
        *("segment", "--class", "a", place.support, place.mask),
        *("--class", "b", place.support, place.mask),
        *("--bundle", place.bundle, "--out", "found", "--json", "queries/q0.png"),
    )
    assert done.code == 0
    assert done.json["classes"] == ["a", "b"]


def test_globs_and_equal_names(place: Place, run: Run) -> None:
    for folder, name in (("one", "q0.png"), ("two", "q0.png"), ("two", "report.png")):
        (place.folder / folder).mkdir(exist_ok=True)
        (place.folder / folder / name).write_bytes((place.queries / "q0.png").read_bytes())
    done = run(
        *("segment", "one", "two/*.png", "one/q0.png", "--task", place.task),
        *("--bundle", place.bundle, "--out", "found", "--no-overlay", "--json"),
    )
    masks = [entry["files"]["mask"] for entry in done.json["queries"]]
    assert masks == ["q0_mask.png", "q0-2_mask.png", "report-2_mask.png"]
    stems = [mask.removesuffix("_mask.png") for mask in masks]
    assert names("found") == {*masks, *(f"{stem}.json" for stem in stems), "report.json"}
    assert json.loads(Path("found/report.json").read_text())["format"] == "fsseg-report"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nothing/*.png",), "nothing/*.png"),
        (("empty",), "'empty'"),
        (("queries", "--out", "queries"), "the next run"),
        (("queries", "--out", "mask.png"), "mask.png"),
        (("queries", "--task", "missing.task"), "missing.task"),
        (("queries", "--support", "support.png"), "a task or labelled pictures"),
        (("queries", "--tile", "7"), "tile"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    place: Place, run: Run, arguments: tuple[str, ...], part: str
) -> None:
    (place.folder / "empty").mkdir()
    given = ("--task", place.task) if "--task" not in arguments else ()
    out = ("--out", "found") if "--out" not in arguments else ()
    done = run("segment", *arguments, *given, "--bundle", place.bundle, *out)
    assert done.code == 2
    assert part in done.err
    assert [line for line in done.err.splitlines() if not line.startswith("fsseg: ")] == []


def test_neither_task_nor_support(place: Place, run: Run) -> None:
    done = run("segment", "queries", "--bundle", place.bundle, "--out", "found")
    assert done.code == 2
    assert "Show one example" in done.err
    assert not Path("found").exists()


def fail_at(call: int, error: BaseException) -> Any:
    """`Task.segment` that raises at the given call, counted from 1."""
    right, calls = Task.segment, iter(range(1, 1000))

    def segment(self: Task, query: object, **settings: Any) -> Any:
        if next(calls) == call:
            raise error
        return right(self, query, **settings)

    return segment


def test_an_interrupted_run_keeps_what_is_done(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "segment", fail_at(3, KeyboardInterrupt()))
    done = run(
        "segment", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found"
    )
    assert done.code == 130
    assert "interrupted" in done.err and "Traceback" not in done.err
    report = json.loads(Path("found/report.json").read_text())
    assert len(report["queries"]) == 2
    assert report["summary"]["complete"] is False
    assert not [name for name in names("found") if name.endswith(".part")]


def test_the_unexpected_keeps_its_traceback_and_the_report(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "segment", fail_at(2, ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run("segment", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found")
    report = json.loads(Path("found/report.json").read_text())
    assert report["summary"]["complete"] is False


def test_a_full_disk_ends_the_run(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Path.write_bytes

    def write_bytes(self: Path, data: bytes) -> int:
        right(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    done = run(
        "segment", "queries", "--task", place.task, "--bundle", place.bundle, "--out", "found"
    )
    assert done.code == 2
    assert "No space left" in done.err
    assert names("found") == {"report.json"}


def test_another_method_with_settings(place: Place, run: Run) -> None:
    shown = ["--support", place.support, "--mask", place.mask, "--bundle", place.bundle]
    asked = ["segment", "queries", *shown, "--method", "srofb", "--json"]
    done = run(*asked, "--setting", "iterations=3", "--setting", "panet.scale=10", "--out", "one")
    assert done.code == 0
    assert done.json["method"] == "srofb"
    changed = {"iterations": 3, "panet": {"scale": 10}}
    segmenter = Segmenter.load(place.bundle, method="srofb", settings=changed)
    result = segmenter.segment(place.support, place.mask, place.queries / "q2.png")
    assert np.array_equal(np.asarray(Image.open("one/q2_mask.png")), result.labels)
    for wrong, named in (
        ("iterations", "NAME=VALUE"),
        ("itterations=3", "settings.itterations"),
        ("iterations=many", "settings.iterations"),
        ("temperature=0", "temperature"),
    ):
        done = run(*asked, "--setting", wrong, "--out", "two")
        assert (done.code, named in done.err) == (2, True)
