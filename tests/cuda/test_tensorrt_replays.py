"""Queries with TensorRT's encoder, recorded as CUDA graphs: the same bits as without.

The engine is that of tests/tensorrt; what it enqueues on a stream of the emulated device that is
captured is done by the replays.
"""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import _kernels, ops
from fsseg_sdk.backends.tensorrt import TensorRtGraph
from tests.ops.device import has_device
from tests.tiny import tiny_bundle, tiny_scene

if not has_device() or "emulated" not in _kernels.cuda_reason:
    pytest.skip("for the emulated device: run by `make test-cuda`", allow_module_level=True)

from tests.cuda.test_tensorrt import METHODS, STAGES, Install, images, prepared, right, same

pytest_plugins = ("tests.tensorrt.conftest",)

SQUARES = [(4 + 5 * i, 6 + 3 * i, 30 + 7 * i, 28 + 3 * i) for i in range(6)]
FRAMES = [tiny_scene((50, 80), square)[0] for square in SQUARES]
OTHERS = [tiny_scene((64, 48), (5, 7 + 4 * i, 38, 30 + 4 * i))[0] for i in range(6)]
REPLAYED = {"panet": ", ".join(STAGES), "srofb": ", ".join(STAGES[:2])}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.fsseg")


def plain(bundle: Path, method: str, given: list[Any], batch: int = 1) -> list[Any]:
    """Not recorded."""
    task = prepared(bundle, method=method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorRtGraph, "capturable", False)
        results = [r for some in given for r in task.segment_batch(some, batch=batch)]
    assert not any("replayed" in result.places for result in results)
    return results


def equal(one: Any, other: Any) -> bool:
    """The same bits, and the same warnings."""
    pairs = [(one.raw_labels, other.raw_labels), (one.logits, other.logits)]
    pairs += [(one.evidence, other.evidence)]
    alike = all(np.array_equal(a, b) for a, b in pairs)
    return alike and dict(one.present) == dict(other.present) and one.warnings == other.warnings


def replayed(results: list[Any], method: str = "panet") -> list[bool]:
    said = [result.places.get("replayed") for result in results]
    assert set(said) <= {None, REPLAYED[method]}
    return [one is not None for one in said]


@pytest.mark.parametrize("method", METHODS)
def test_the_bits_of_the_unrecorded(
    install: Install, driver: Any, bundle: Path, method: str
) -> None:
    fake = install()
    expected = plain(bundle, method, [[frame] for frame in FRAMES])
    of_cpu = prepared(bundle, "onnxruntime", method).segment_batch(FRAMES)
    task = prepared(bundle, method=method)
    begun = fake.said.count(("context",))
    found = [task.segment(frame) for frame in FRAMES]
    assert replayed(found, method) == [False] * 2 + [True] * 4
    for one, other, host in zip(expected, found, of_cpu, strict=True):
        assert equal(one, other) and same(host, other)
        assert np.array_equal(host.raw_labels, other.raw_labels) and other.labels.any()
        places = {stage: other.places[stage] for stage in STAGES}
        assert places == dict.fromkeys(STAGES, "cuda")
    assert len({result.raw_labels.tobytes() for result in found}) == len(FRAMES)
    assert driver.fake_copies() == 0 and driver.fake_launches() == 0, "through the host"
    assert fake.said.count(("context",)) == begun, "that of the support"


@pytest.mark.parametrize("method", METHODS)
def test_frames_of_another_size_in_between(install: Install, bundle: Path, method: str) -> None:
    install()
    mixed = [frame for pair in zip(FRAMES, OTHERS, strict=True) for frame in pair]
    expected = plain(bundle, method, [[frame] for frame in mixed])
    task = prepared(bundle, method=method)
    found = [task.segment(frame) for frame in mixed]
    assert replayed(found, method) == [False] * 4 + [True] * 8
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_two_threads(install: Install, bundle: Path, method: str) -> None:
    install()
    expected = plain(bundle, method, [[frame] for frame in FRAMES])
    task = prepared(bundle, method=method)
    results: list[Any] = [None, None]
    start = threading.Barrier(2)

    def work(index: int) -> None:
        start.wait(60)
        order = range(len(FRAMES))[:: -1 if index else 1]
        results[index] = [(i, task.segment(FRAMES[i])) for i in order]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for made in results:
        assert replayed([result for _, result in made], method) == [False] * 2 + [True] * 4
        assert all(equal(expected[i], result) for i, result in made)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [1, 2])
def test_batches(
    install: Install,
    driver: Any,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    rows: int,
) -> None:
    """rows: of the engine; with one, each query is two pieces on one execution."""
    monkeypatch.setenv("FSSEG_TENSORRT", f"batch={rows}")
    install()
    pairs = [[FRAMES[i], FRAMES[(i + 1) % 6]] for i in range(6)]
    expected = plain(bundle, method, pairs, 2)
    task = prepared(bundle, method=method)
    before = driver.fake_copies()
    found = [result for pair in pairs for result in task.segment_batch(pair, batch=2)]
    assert replayed(found, method) == [False] * 4 + [True] * 8
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))
    assert driver.fake_copies() - before == (12 if rows == 1 else 0)  # of the features


def test_a_session_that_is_gone_is_recorded_later(install: Install, bundle: Path) -> None:
    """A thread keeps four; the work of others between takes the place of ours."""
    fake = install()
    pairs = [[FRAMES[i], FRAMES[(i + 1) % 6]] for i in range(6)]
    expected = plain(bundle, "panet", pairs, 2)
    task = prepared(bundle)
    graph = task.core.encoder.graph
    found = []
    for number, pair in enumerate(pairs):
        if number == 2:
            for count in (3, 4, 5, 6, 7):
                assert right(graph, images(count))
        found += task.segment_batch(pair, batch=2)
        context: Any = graph.context
        assert not context.lost
    assert replayed(found) == [False] * 8 + [True] * 4, "counted anew"
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))
    for count in (3, 4, 5, 6, 7):
        assert right(graph, images(count))
    gc.collect()  # what a graph holds stays
    begun = fake.said.count(("context",))
    last = task.segment_batch(pairs[0], batch=2)
    assert replayed(last) == [True] * 2
    assert all(equal(one, other) for one, other in zip(expected, last, strict=False))
    assert fake.said.count(("context",)) == begun


def test_what_cannot_be_recorded_is_said(install: Install, bundle: Path) -> None:
    fake = install()
    expected = plain(bundle, "panet", [[frame] for frame in FRAMES])
    task = prepared(bundle)
    fake.fail.add("execute-captured")
    found = [task.segment(frame) for frame in FRAMES]
    assert replayed(found) == [False] * 6
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        said = [w for w in other.warnings if "no CUDA graph" in w and "execution refused" in w]
        assert len(said) == (number >= 2)
        assert np.array_equal(one.logits, other.logits)


def test_replays_take_no_memory(install: Install, driver: Any, bundle: Path) -> None:
    install()
    task = prepared(bundle)
    for frame in FRAMES[:4]:
        task.segment(frame)
    context: Any = task.core.encoder.context
    before = context._allocations, context.held, driver.fake_live()
    for frame in FRAMES * 3:
        result = task.segment(frame)
    assert (context._allocations, context.held, driver.fake_live()) == before
    assert replayed([result]) == [True] and not isinstance(result.raw_labels, ops.DeviceArray)
