"""Threads, forks and environment variables: what surrounds a kernel."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import ops

FEATURES = np.random.default_rng(0).standard_normal((2, 512, 56, 57)).astype(np.float32)
PROTOTYPES = FEATURES[0, :, 0, :5].T.copy()


def compute(threads: int = 4) -> bytes:
    return ops.cosine_match(FEATURES, PROTOTYPES, threads=threads).tobytes()


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(ops.__file__)))
    path = os.pathsep.join([os.path.dirname(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("level", ops.simd_levels())
def test_simd_setting(level: str) -> None:
    done = python("from fsseg_sdk import ops; print(ops.simd_level())", FSSEG_SIMD=level)
    assert done.stdout.strip() == level, done.stderr


@pytest.mark.parametrize(
    "level", ["sse9", "AVX2", "neon" if os.uname().machine == "x86_64" else "avx2"]
)
def test_simd_setting_that_cannot_be_is_refused(level: str) -> None:
    done = python("from fsseg_sdk import ops", FSSEG_SIMD=level)
    assert done.returncode != 0
    assert "KernelError: FSSEG_SIMD: expected one of generic" in done.stderr
    assert f"got '{level}'" in done.stderr


def test_thread_setting() -> None:
    code = "from fsseg_sdk import ops; print(ops.build_info()['threads'])"
    assert python(code, FSSEG_NUM_THREADS="3").stdout.strip() == "3"
    assert python(code, FSSEG_NUM_THREADS="").stdout.strip() == str(len(os.sched_getaffinity(0)))
    for setting in ("0", "-2", "two", "1.5", "\N{SUPERSCRIPT TWO}"):
        done = python(code, FSSEG_NUM_THREADS=setting)
        assert "KernelError: FSSEG_NUM_THREADS: expected a positive number" in done.stderr


def test_build_info() -> None:
    info = ops.build_info()
    assert info["simd"] == ops.simd_level() in info["levels"]
    assert info["levels"][0] == "generic"
    assert info["cuda"]["built"] in (True, False) and info["cuda"]["reason"]
    assert info["cuda"]["built"] or info["cuda"]["devices"] == []


def test_many_python_threads_at_once() -> None:
    """The pool serves one caller; the others work by themselves. The bits are the same."""
    expected = compute(1)
    with ThreadPoolExecutor(16) as pool:
        for result in pool.map(lambda _: compute(), range(200)):
            assert result == expected


def test_the_gil_is_released() -> None:
    features = np.broadcast_to(np.ones((1, 512, 60, 60), np.float32), (200, 512, 60, 60))
    prototypes = np.ones((12, 512), np.float32)  # a tenth of a second, at least
    ticks: list[float] = []
    running = threading.Event()

    def tick() -> None:
        while not running.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    ops.cosine_match(features, prototypes, threads=1)
    ended = time.perf_counter()
    running.set()
    thread.join()
    assert sum(started < t < ended for t in ticks) >= 2


def _child(queue: multiprocessing.SimpleQueue[bytes]) -> None:
    queue.put(compute())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork_and_spawn(method: str) -> None:
    """The parent's pool has threads; a child has none of them, and must not wait for them."""
    expected = compute()
    context: Any = multiprocessing.get_context(method)
    queue: multiprocessing.SimpleQueue[bytes] = context.SimpleQueue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    deadline = time.monotonic() + 30
    while queue.empty() and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    if queue.empty():
        child.kill()
        child.join()
        pytest.fail(f"the child of {method} hung or died: exit code {child.exitcode}")
    assert queue.get() == expected
    child.join(10)
    assert child.exitcode == 0
    assert compute() == expected  # and the parent goes on


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_others_compute() -> None:
    """A fork in the middle of another thread's kernel leaves the child able to compute."""
    expected, stop = compute(), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            compute()

    workers = [threading.Thread(target=busy) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if compute() == expected else 1)
            deadline = time.monotonic() + 30
            done, status = os.waitpid(pid, os.WNOHANG)
            while done == 0 and time.monotonic() < deadline:
                time.sleep(0.002)
                done, status = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            assert done == pid and os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for worker in workers:
            worker.join()
