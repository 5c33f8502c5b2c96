"""One Segmenter, sixteen threads, mixed tasks: bitwise what one thread gives."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fsseg_sdk import InputError, Result, Segmenter, Task
from tests import opened, tiny

THREADS, ROUNDS = 16, 200
IMAGE, MASK = tiny.tiny_scene()


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Threads change places at nearly every instruction."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run work(0..count-1) at once; the first error of any thread is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            start.wait(30)
            work(number)
        except BaseException as error:  # noqa: BLE001  raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


def answer(result: Result) -> tuple[bytes, bytes, tuple[float, ...]]:
    return result.logits.tobytes(), result.labels.tobytes(), tuple(result.present.values())


def jobs(segmenter: Segmenter, task: Task) -> list[Callable[[], object]]:
    """Everything that users do, in small."""
    queries = [opened.query(seed, (40 + 16 * seed, 70)).pixels for seed in range(4)]
    other = segmenter.prepare({"x": (IMAGE, MASK)})

    def refused() -> str:
        with pytest.raises(InputError) as caught:
            segmenter.segment(IMAGE, MASK * 0, queries[0])
        return str(caught.value)

    return [
        *((lambda q=q: answer(task.segment(q))) for q in queries),
        lambda: answer(other.segment(queries[1])),
        lambda: answer(segmenter.segment(IMAGE, MASK, queries[2])),
        lambda: [answer(r) for r in task.segment_batch(queries[:2])],
        lambda: [answer(r) for r in task.stream(queries[:2])],
        lambda: answer(other.add("y", (IMAGE, 1 - MASK)).segment(queries[3])),
        lambda: answer(task.segment(queries[3], tile=64)),
        refused,
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_bitwise_equal_to_serial(threads: int) -> None:
    segmenter = opened.tiny_segmenter(threads=threads)
    task = segmenter.prepare(opened.support())
    todo = jobs(segmenter, task)
    expected = [job() for job in todo]
    done = [0] * THREADS

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            job = (turn * 7 + number) % len(todo)
            assert todo[job]() == expected[job], f"thread {number}, turn {turn}, job {job}"
            done[number] += 1

    in_threads(work)
    assert done == [ROUNDS] * THREADS


def test_an_error_in_a_thread_is_an_error_here() -> None:
    def work(number: int) -> None:
        assert number != 3

    with pytest.raises(AssertionError):
        in_threads(work)


def test_other_threads_run_meanwhile() -> None:
    """The interpreter's lock is free while the kernels and the encoder work."""
    task = opened.tiny_segmenter().prepare(opened.support(1))
    large = np.zeros((2500, 2500, 3), np.uint8)
    ticks = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not stop.wait(0.0005):
            ticks += 1

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = ticks
        for _ in range(10):
            task.segment(large)
        assert ticks - before >= 10
    finally:
        stop.set()
        counter.join()
