"""Streams: in order and in bounded memory, or the newest frame; errors; threads that end."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import InputError, Task
from tests import opened

FRAMES = [opened.query(seed, (60 + 5 * seed, 80)).pixels for seed in range(7)]


@pytest.fixture(scope="module")
def task() -> Task:
    return opened.numpy_segmenter().prepare(opened.support(1))


def slow_task(seconds: float) -> Task:
    graph = opened.NumpyGraph()
    task = opened.numpy_segmenter(graph).prepare(opened.support(1))
    graph.delay = seconds
    return task


def reader_threads() -> int:
    return sum(thread.name == "fsseg-stream" for thread in threading.enumerate())


def ends(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


class TestInOrder:
    @pytest.mark.parametrize("batch", [1, 2, 3, 50])
    def test_every_frame_once(self, task: Task, batch: int) -> None:
        results = list(task.stream(iter(FRAMES), batch=batch))
        assert len(results) == len(FRAMES)
        for frame, result in zip(FRAMES, results, strict=True):
            alone = task.segment(frame)
            assert result.labels.shape == frame.shape[:2]
            assert np.abs(result.logits - alone.logits).max() <= 1e-3
            assert result.dropped == 0

    @pytest.mark.parametrize("batch", [1, 3])
    def test_reads_no_further_than_one_batch(self, task: Task, batch: int) -> None:
        taken = 0

        def camera() -> Iterator[np.ndarray]:
            nonlocal taken
            for frame in itertools.cycle(FRAMES):
                taken += 1
                yield frame

        stream = task.stream(camera(), batch=batch)
        assert taken == 0
        for count in range(1, 20):
            next(stream)
            assert taken == -(-count // batch) * batch
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)

    def test_nothing_in_nothing_out(self, task: Task) -> None:
        assert list(task.stream([])) == []
        assert list(task.stream([], latest=True)) == []


class TestLatest:
    def test_drops_and_counts(self) -> None:
        task = slow_task(0.02)
        produced = 60

        def camera() -> Iterator[np.ndarray]:
            for number in range(produced):
                time.sleep(0.002)
                yield np.full((32, 32, 3), number, np.uint8)

        seen, dropped = [], 0
        for result in task.stream(camera(), latest=True):
            assert result.picture is not None
            seen.append(int(result.picture.pixels[0, 0, 0]))
            dropped += result.dropped
            assert seen[-1] + 1 == len(seen) + dropped  # what was left out just before is known
        assert seen == sorted(seen)
        assert seen[-1] == produced - 1
        assert dropped > produced / 3
        assert ends(lambda: reader_threads() == 0)

    def test_keeps_up_with_a_slow_camera(self, task: Task) -> None:
        def camera() -> Iterator[np.ndarray]:
            for frame in FRAMES:
                yield frame
                time.sleep(0.08)

        results = list(task.stream(camera(), latest=True))
        assert [result.dropped for result in results] == [0] * len(FRAMES)

    def test_holds_one_batch_at_most(self) -> None:
        task = slow_task(0.01)
        alive: list[int] = []
        held = 0

        class Frame:
            def __init__(self) -> None:
                nonlocal held
                held += 1
                alive.append(held)
                self.pixels = np.zeros((16, 16, 3), np.uint8)

            def __del__(self) -> None:
                nonlocal held
                held -= 1

            @property
            def __array_interface__(self) -> dict[str, Any]:
                return self.pixels.__array_interface__

        def camera() -> Iterator[Frame]:
            for _ in range(200):
                time.sleep(0.0005)
                yield Frame()

        for result in task.stream(camera(), latest=True, batch=2):
            del result
        # two that wait, two in work, the one just read, and a name or two on the way
        assert max(alive) <= 8

    def test_closing_ends_the_thread(self, task: Task) -> None:
        for finish in ("close", "forget", "error"):
            stream = task.stream(itertools.cycle(FRAMES), latest=True)
            next(stream)
            assert reader_threads() == 1
            if finish == "close":
                stream.close()  # type: ignore[attr-defined]
            elif finish == "forget":
                del stream
                gc.collect()
            else:
                with pytest.raises(KeyboardInterrupt):
                    stream.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
            assert ends(lambda: reader_threads() == 0), finish

    def test_a_stream_that_never_began_has_no_thread(self, task: Task) -> None:
        stream = task.stream(itertools.cycle(FRAMES), latest=True)
        assert reader_threads() == 0
        del stream

    def test_a_camera_that_hangs_does_not_hang_the_caller(self, task: Task) -> None:
        release = threading.Event()

        def camera() -> Iterator[np.ndarray]:
            yield FRAMES[0]
            release.wait(30)

        stream = task.stream(camera(), latest=True)
        next(stream)
        begin = time.monotonic()
        stream.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begin < 4
        release.set()
        assert ends(lambda: reader_threads() == 0)


class TestErrors:
    @pytest.mark.parametrize("latest", [False, True])
    def test_of_the_camera(self, task: Task, latest: bool) -> None:
        def camera() -> Iterator[np.ndarray]:
            yield FRAMES[0]
            time.sleep(0.2)
            raise OSError("unplugged")

        stream = task.stream(camera(), latest=latest)
        next(stream)
        with pytest.raises(OSError, match="unplugged"):
            next(stream)
        assert ends(lambda: reader_threads() == 0)

    @pytest.mark.parametrize("batch", [1, 2, 10])
    def test_a_bad_frame_ends_the_stream(self, task: Task, batch: int) -> None:
        stream = task.stream([FRAMES[0], FRAMES[1], b"", FRAMES[2]], batch=batch)
        with pytest.raises(InputError, match="frame 2"):
            list(stream)
        assert task.segment(FRAMES[0]).labels.any()

    @pytest.mark.parametrize("batch", [1, 2, 3, 10])
    def test_or_is_skipped_and_counted(self, task: Task, batch: int) -> None:
        frames = [FRAMES[0], b"", None, FRAMES[1], FRAMES[2]]
        results = list(task.stream(frames, batch=batch, on_error="skip"))
        assert len(results) == 3
        assert sum(result.dropped for result in results) == 2
        told = [w for result in results for w in result.warnings if w.startswith("skipped: frame")]
        assert told
        assert results[-1].dropped == 0

    def test_only_bad_frames(self, task: Task) -> None:
        assert list(task.stream([b"", b""], on_error="skip")) == []

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"batch": 0}, "batch"),
            ({"batch": "2"}, "batch"),
            ({"on_error": "ignore"}, "on_error"),
        ],
    )
    def test_arguments_are_checked_at_once(
        self, task: Task, options: dict[str, Any], word: str
    ) -> None:
        with pytest.raises(InputError, match=word):
            task.stream(FRAMES, **options)
        with pytest.raises(InputError, match="frames"):
            task.stream(3)  # type: ignore[arg-type]
