"""Queries that are recorded as CUDA graphs: the same bits as without, and what ends with what.

The encoder enqueues an op on a context of the calling thread; the emulated device or a real one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import _kernels, ops, recording
from fsseg_sdk.backends.graph import NotedGraph
from fsseg_sdk.errors import InputError
from tests.ops.device import has_device

if not has_device():
    pytest.skip("no device: run by `make test-cuda`", allow_module_level=True)

from tests.cuda import test_pipeline as plain
from tests.cuda.test_pipeline import CHANNELS, GRID, MASK, SIDE, SUPPORT, picture, segmenter

EMULATED = "emulated" in _kernels.cuda_reason
emulated = pytest.mark.skipif(not EMULATED, reason="pretends what a real device does not do")
RNG = np.random.default_rng(3)
FRAMES = [picture(seed)[0] for seed in range(1, 6)]
STAGES = ("preprocess", "encoder", "match", "label")
WHOLE = ", ".join(STAGES)


class OnStream(plain.Encoder):
    """A matrix times the colours of every eighth pixel, enqueued; the same on the host."""

    device = "cuda"

    def __init__(self, batch: int = -1, *, capturable: bool = True) -> None:
        super().__init__(batch)
        self.capturable, self.calls, self._own = capturable, 0, threading.local()
        self.weights = RNG.standard_normal((CHANNELS, 3)).astype(np.float32)
        self.bias = RNG.standard_normal(CHANNELS).astype(np.float32)

    @property
    def context(self) -> Any:
        if not hasattr(self._own, "context"):
            self._own.context = ops.DeviceContext(own_stream=True)
            self._own.beside = [self._own.context.array(a) for a in (self.weights, self.bias)]
        return self._own.context

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = np.ascontiguousarray(feeds["image"][:, :, ::8, ::8])
        return {"features": ops.linear_match(image, self.weights, self.bias)}

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.calls += 1
        image = feeds["image"]
        assert image.context is self.context
        steps = (3 * SIDE * SIDE, SIDE * SIDE, 8 * SIDE, 8)
        some = image._view((len(image), 3, *GRID), steps)
        return {"features": ops.linear_match(some, *self._own.beside)}


def tasks(method: str = "panet", batch: int = -1, **settings: Any) -> tuple[Any, Any, OnStream]:
    """The task unrecorded, the same recorded, and the encoder of the latter."""
    free = OnStream(batch, capturable=False)
    graph = OnStream(batch)
    graph.weights, graph.bias = free.weights, free.bias
    made = [
        segmenter(g, method, **settings).prepare({"disc": [(SUPPORT, MASK)]}) for g in (free, graph)
    ]
    return made[0], made[1], graph


def equal(one: Any, other: Any) -> bool:
    """The same bits."""
    labels = [
        r.raw_labels.to_host() if isinstance(r.raw_labels, ops.DeviceArray) else r.raw_labels
        for r in (one, other)
    ]
    pairs = [labels, (one.logits, other.logits), (one.evidence, other.evidence)]
    return all(np.array_equal(a, b) for a, b in pairs) and dict(one.present) == dict(other.present)


def varied(task: Any) -> bool:
    """Frames differ in what is found: an answer that is left from another query is seen."""
    return len({task.segment(frame).raw_labels.tobytes() for frame in FRAMES}) == len(FRAMES)


CASES = {"panet": {}, "panet, parts": {"background_parts": 3}, "srofb": {"hidden": 16}}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str) -> None:
    method = case.partition(",")[0]
    expected, task, graph = tasks(method, **CASES[case])
    assert varied(expected)
    replayed = WHOLE if method == "panet" else "preprocess, encoder"
    for number, frame in enumerate(FRAMES * 2):
        one, other = expected.segment(frame), task.segment(frame)
        assert equal(one, other) and one.warnings == other.warnings
        places = dict(other.places)
        assert places.pop("replayed", None) == (replayed if number >= 2 else None)
        assert places == dict(one.places) == dict.fromkeys(STAGES, "cuda")
        assert other.timings.keys() == one.timings.keys() and min(other.timings.values()) >= 0
    assert graph.calls == 1 + 3, "one of the support, two plain queries, one recorded"


def test_a_method_that_matches_on_the_cpu_is_not_recorded() -> None:
    _, task, _ = tasks("paia")
    for frame in FRAMES:
        assert "replayed" not in task.segment(frame).places


@pytest.mark.parametrize("batch", [-1, 3])
@pytest.mark.parametrize("output", ["host", "device"])
def test_frames_of_the_device(output: Any, batch: int) -> None:
    expected, task, graph = tasks(batch=batch)
    own, other = graph.context, ops.DeviceContext(own_stream=True)
    for number in range(6):
        pair = FRAMES[number % 5], FRAMES[(number + 1) % 5]
        wide = np.concatenate([pair[1], pair[1]], axis=1)  # read with a stride
        strided = own.array(wide)._view(pair[1].shape, (wide.shape[1] * 3, 3, 1), 0)
        given = [other.array(pair[0]), strided]
        found = task.segment_batch(given, batch=2, output=output)
        for one, result in zip(expected.segment_batch(pair, batch=2), found, strict=True):
            assert equal(one, result)
            assert ("replayed" in result.places) == (number >= 2)
            assert isinstance(result.raw_labels, ops.DeviceArray) == (output == "device")


def test_batches_and_changing_sizes() -> None:
    expected, task, _ = tasks()
    sizes = [[picture(seed, size)[0] for seed in (1, 2)] for size in ((90, 120), (64, 64))]
    mixed = [sizes[0][0], sizes[1][1]]
    for number in range(5):
        for given in (*sizes, mixed, sizes[0][:1], [sizes[0][0][::-1]]):
            found = task.segment_batch(given, batch=2)
            for one, other in zip(expected.segment_batch(given, batch=2), found, strict=True):
                assert equal(one, other)
                if len(given) == 2:
                    assert ("replayed" in other.places) == (number >= 2)


def test_labels_that_stay_are_not_overwritten() -> None:
    expected, task, _ = tasks()
    rows = [task.segment_batch([frame], output="device")[0] for frame in FRAMES * 2]
    for one, frame in zip(rows, FRAMES * 2, strict=True):
        assert equal(expected.segment(frame), one)


def test_two_tasks_of_one_encoder() -> None:
    free, graph = OnStream(capturable=False), OnStream()
    graph.weights, graph.bias = free.weights, free.bias
    given = [(SUPPORT, MASK)], [(FRAMES[0], ~picture(1)[1])]
    one, other = (
        [segmenter(g, "panet").prepare({"disc": shots}) for shots in given] for g in (free, graph)
    )
    assert not equal(one[0].segment(FRAMES[1]), one[1].segment(FRAMES[1]))
    for frame in FRAMES * 2:
        for expected, task in zip(one, other, strict=True):
            result = task.segment(frame)
            assert equal(expected.segment(frame), result)
    assert "replayed" in result.places


def test_threads_have_recordings_of_their_own() -> None:
    expected, task, graph = tasks()
    right = [expected.segment(frame) for frame in FRAMES]
    found: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        order = range(len(FRAMES))[:: 1 if number % 2 else -1]
        found[number] = [(i, task.segment(FRAMES[i])) for _ in range(2) for i in order]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(4))
    for results in found.values():
        assert all(equal(right[i], result) for i, result in results)
        assert ["replayed" in result.places for _, result in results] == [False] * 2 + [True] * 8
    assert graph.calls == 1 + 4 * 3


def test_a_stream_of_frames() -> None:
    expected, task, _ = tasks()
    for one, other in zip(expected.stream(FRAMES * 2), task.stream(FRAMES * 2), strict=True):
        assert equal(one, other)
    assert "replayed" in other.places


# ---- memory ----
def test_replays_take_no_memory_and_leave_none() -> None:
    _, task, graph = tasks()
    context = graph.context
    for _ in range(2):
        result = task.segment(FRAMES[0])
    context.trim()
    before = context.held
    for _ in range(2):
        result = task.segment(FRAMES[0])
    held, allocations = context.held, context._allocations
    for number in range(50):
        result = task.segment(FRAMES[number % 5])
    assert (context.held, context._allocations) == (held, allocations)
    assert "replayed" in result.places
    context.trim()
    assert context.held > before
    del task
    gc.collect()
    context.trim()
    assert context.held <= before


def test_few_recordings_are_kept() -> None:
    _, task, graph = tasks()
    frames = [picture(1, (40 + 4 * n, 50))[0] for n in range(recording.MOST + 3)]
    assert [("replayed" in task.segment(f).places) for f in frames for _ in range(3)] == [
        False,
        False,
        True,
    ] * len(frames)
    assert "replayed" in task.segment(frames[-1]).places
    assert "replayed" not in task.segment(frames[0]).places, "the oldest is gone"
    held = graph.context.held
    for _ in range(2):
        for frame in frames:
            for _ in range(3):
                task.segment(frame)
    graph.context.trim()
    assert graph.context.held <= held


def test_many_threads_do_not_take_each_others_prototypes() -> None:
    """Copies of parameters are kept for some contexts; a graph keeps its own."""
    expected, task, _ = tasks()
    for frame in FRAMES:
        task.segment(frame)
    for _ in range(ops.maps.MOST_CONTEXTS + 1):
        thread = threading.Thread(target=lambda: task.segment(FRAMES[0]))
        thread.start()
        thread.join()
    taken = [task.core.encoder.context.empty((2, CHANNELS)) for _ in range(8)]
    for array in taken:
        array.write(np.zeros((2, CHANNELS), np.float32))
    result = task.segment(FRAMES[1])
    assert "replayed" in result.places and equal(expected.segment(FRAMES[1]), result)


# ---- what goes wrong ----
class Waits(OnStream):
    """Says that it may be recorded, and waits for its stream."""

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        made = super().run_on_device(feeds)
        self.context._wait()
        return made


def test_a_recording_that_fails_is_said_and_the_labels_are_right() -> None:
    expected, _, _ = tasks()
    free = expected.core.encoder.graph
    graph = Waits()
    graph.weights, graph.bias = free.weights, free.bias
    task = segmenter(NotedGraph(graph, ("slow",)), "panet").prepare({"disc": [(SUPPORT, MASK)]})
    for number, frame in enumerate(FRAMES):
        result = task.segment(frame)
        assert equal(expected.segment(frame), result) and "replayed" not in result.places
        said = [w for w in result.warnings if "no CUDA graph" in w and "StreamCapture" in w]
        assert len(said) == (number >= 2) and "slow" in result.warnings
    assert graph.calls == 1 + len(FRAMES) + 1, "one attempt"
    assert not graph.context.lost


@emulated
@pytest.mark.parametrize("fail", ["instantiate:1", "malloc:1", "malloc:4"])
def test_a_device_that_fails_in_the_recording(fail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, task, graph = tasks()
    for frame in FRAMES[:2]:
        task.segment(frame)
    graph.context.trim()
    monkeypatch.setenv("FSSEG_EMULATED_FAIL", fail)
    results = [task.segment(frame) for frame in FRAMES]
    monkeypatch.delenv("FSSEG_EMULATED_FAIL")
    for one, frame in zip(results, FRAMES, strict=True):
        assert equal(expected.segment(frame), one)
        assert any("no CUDA graph" in warning for warning in one.warnings)
    context = graph.context
    context.trim()
    held = context.held
    task.segment(FRAMES[0])
    context.trim()
    assert context.held == held, "nothing of the failed recording is left"


class Overflows(OnStream):
    """Multiplies by whatever its weights are: written by the test."""

    def spoil(self, value: float) -> None:
        bias = self.bias.copy()
        bias[2] = value
        self._own.beside[1].write(bias)


def test_features_that_are_not_finite_are_said_after_a_replay() -> None:
    expected, _, _ = tasks()
    free = expected.core.encoder.graph
    graph = Overflows()
    graph.weights, graph.bias = free.weights, free.bias
    task = segmenter(graph, "panet").prepare({"disc": [(SUPPORT, MASK)]})
    for frame in FRAMES:
        task.segment(frame)
    graph.spoil(np.inf)
    with pytest.raises(InputError, match="finite"):
        task.segment(FRAMES[0])
    graph.spoil(free.bias[2])
    result = task.segment(FRAMES[0])
    assert "replayed" in result.places and equal(expected.segment(FRAMES[0]), result)


def test_a_captured_legacy_stream_is_no_end() -> None:
    """A graph on CUDA's default stream, which nobody can record."""
    expected, _, _ = tasks()
    free = expected.core.encoder.graph
    graph = OnStream()
    graph.weights, graph.bias = free.weights, free.bias
    graph._own.context = ops.DeviceContext()
    graph._own.beside = [graph._own.context.array(a) for a in (graph.weights, graph.bias)]
    task = segmenter(graph, "panet").prepare({"disc": [(SUPPORT, MASK)]})
    for number, frame in enumerate(FRAMES):
        result = task.segment(frame)
        assert equal(expected.segment(frame), result)
        assert any("stream of its own" in w for w in result.warnings) == (number >= 2)
