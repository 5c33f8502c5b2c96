"""Recording what is enqueued on a context as a CUDA graph, and replaying it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import _kernels, ops
from fsseg_sdk.errors import DeviceMemoryError, InputError, KernelError
from tests.cuda.foreign import Tensor
from tests.ops.device import has_device

if not has_device():
    pytest.skip("no device: run by `make test-cuda`", allow_module_level=True)

EMULATED = "emulated" in _kernels.cuda_reason
emulated = pytest.mark.skipif(not EMULATED, reason="pretends what a real device does not do")
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((3, 2, 16, 5, 6)).astype(np.float32)
WEIGHTS = RNG.standard_normal((3, 16)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)


@pytest.fixture
def context() -> Any:
    return ops.DeviceContext(own_stream=True)


class Recorded:
    """linear_match and its labels, recorded; expected: the same bits, unrecorded."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.weights, self.bias = context.array(WEIGHTS), context.array(BIAS)
        self.features = context.array(FEATURES[0])
        self.work(self.features), self.work(self.features)
        context.synchronize()
        with context.record() as self.graph:
            self.scores, self.labels = self.work(self.features)

    def work(self, features: Any) -> Any:
        scores = ops.linear_match(features, self.weights, self.bias)
        return scores, ops.upsample_argmax(scores, (20, 24))

    def expected(self, number: int) -> Any:
        return [a.to_host() for a in self.work(self.context.array(FEATURES[number]))]

    def right(self, number: int) -> bool:
        expected = self.expected(number)
        self.features.write(FEATURES[number])
        self.graph.replay()
        found = self.scores.to_host(), self.labels.to_host()
        return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# ---- write ----
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "int64"])
def test_write(context: Any, dtype: str) -> None:
    own = "float32" if dtype == "bfloat16" else dtype
    values = (RNG.standard_normal((4, 6)) * 9).astype(own)[::-1, ::2]
    array, pointer = context.empty(values.shape, dtype), None
    pointer = array.pointer
    array.write(values)
    expected = context.array(values, dtype).to_host()
    assert np.array_equal(array.to_host(), expected) and array.pointer == pointer
    for source in (context, ops.DeviceContext(own_stream=True)):
        other = context.empty(values.shape, dtype)
        other.write(source.array(values, dtype))
        assert np.array_equal(other.to_host(), expected)


def test_write_of_a_strided_array(context: Any) -> None:
    array = context.empty((5, 16))
    array.write(context.array(FEATURES[0])._view((5, 16), (1, 30), 7))
    assert np.array_equal(array.to_host(), FEATURES[0].reshape(2, 16, 30)[0, :, 7:12].T)


def test_what_cannot_be_written(context: Any) -> None:
    array = context.empty((3,))
    for wrong in (BIAS[:2], BIAS.astype(np.float64), context.array(BIAS, "float16")):
        with pytest.raises(InputError, match=r"values: expected float32 \[3\], got"):
            array.write(wrong)
    with pytest.raises(InputError, match="numpy array or a DeviceArray, got list"):
        array.write([1.0, 2.0, 3.0])
    foreign = context._from_dlpack(Tensor(array.pointer, (3,)), "array")
    with pytest.raises(InputError, match="only read"):
        foreign.write(BIAS)
    with pytest.raises(InputError, match="with gaps"):
        context.empty((3, 2))._view((3,), (2,)).write(BIAS)
    with pytest.raises(InputError, match="bfloat16"):
        context.empty((3,), "bfloat16").write(context.array(BIAS))


# ---- record and replay ----
def test_replays_have_the_same_bits(context: Any) -> None:
    recorded = Recorded(context)
    assert all(recorded.right(number) for number in (0, 1, 2, 0))


def test_a_recording_does_nothing(context: Any) -> None:
    target, source = context.array(np.zeros(3, np.float32)), context.array(BIAS)
    with context.record() as graph:
        target.write(source)
    assert not target.to_host().any()
    graph.replay()
    assert np.array_equal(target.to_host(), BIAS)


def test_the_legacy_stream_cannot_be_recorded() -> None:
    with pytest.raises(InputError, match=r"record: expected a context with a stream of its own"):
        ops.DeviceContext().record()


def test_a_graph_is_recorded_once(context: Any) -> None:
    graph = context.record()
    with pytest.raises(InputError, match="replay: expected"):
        graph.replay()
    with graph:
        with pytest.raises(InputError, match="before or in its recording"):
            graph.replay()
        with pytest.raises(InputError, match="not captured"), context.record():
            pass
    with pytest.raises(InputError, match="has been used"), graph:
        pass
    graph.replay()
    assert graph.context is context
    context.synchronize()


def test_several_graphs_and_contexts() -> None:
    all_of_them = [Recorded(ops.DeviceContext(own_stream=True)) for _ in range(2)]
    all_of_them.append(Recorded(all_of_them[0].context))
    assert all(recorded.right(number) for number in (1, 2, 0) for recorded in all_of_them)


# ---- what may not be recorded ----
def fails(context: Any, call: Any, error: type[Exception], words: str) -> None:
    """In a recording; everything else works on."""
    with pytest.raises(error, match=words), context.record() as graph:
        call()
    with pytest.raises(InputError, match="whose recording failed"):
        graph.replay()
    assert not context.lost and Recorded(context).right(1)


def test_waiting_ends_a_recording(context: Any) -> None:
    array = context.array(BIAS)
    for call in (array.to_host, context.synchronize, context._wait):
        fails(context, call, KernelError, "StreamCaptureUnsupported.*In a recording only enqueue")


def test_arrays_of_the_host_end_a_recording(context: Any) -> None:
    array = context.array(BIAS)
    for call in (lambda: context.array(BIAS), lambda: array.write(BIAS)):
        fails(context, call, InputError, "values: expected arrays of the device while")
    features = context.array(FEATURES[0])
    fails(context, lambda: ops.linear_match(features, WEIGHTS, BIAS), InputError, "of the device")


def test_a_replay_cannot_be_recorded(context: Any) -> None:
    recorded = Recorded(context)
    fails(context, recorded.graph.replay, InputError, "not captured")
    assert recorded.right(2)


def test_a_failure_that_nobody_raised(context: Any) -> None:
    def quiet() -> None:
        with pytest.raises(KernelError):
            context._wait()

    fails(context, quiet, KernelError, "cudaStreamEndCapture: cudaErrorStreamCaptureInvalidated")


def test_work_of_others_ends_a_recording(context: Any) -> None:
    other = ops.DeviceContext(own_stream=True).array(BIAS)
    fails(context, lambda: context._from_context(other, "x"), KernelError, "CaptureIsolation")
    own, held = context.array(BIAS), []
    stream = other.context.stream
    fails(context, lambda: held.append(own.__dlpack__(stream=stream)), KernelError, "Unjoined")


def test_any_error_ends_a_recording(context: Any) -> None:
    fails(context, lambda: 1 // 0, ZeroDivisionError, "zero")


@emulated
@pytest.mark.parametrize(
    ("fail", "error"), [("instantiate:1", KernelError), ("malloc:1", DeviceMemoryError)]
)
def test_failures_of_the_device(
    context: Any, fail: str, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call() -> None:
        monkeypatch.setenv("FSSEG_EMULATED_FAIL", fail)
        context.empty((1 << 20,))

    with pytest.raises(error), context.record():
        call()
    monkeypatch.delenv("FSSEG_EMULATED_FAIL")
    assert not context.lost and Recorded(context).right(2)


@emulated
def test_a_lost_device_ends_graphs_too() -> None:
    code = """
import os
from fsseg_sdk import ops
from fsseg_sdk.errors import KernelError
from tests.cuda.test_recording import FEATURES, Recorded
recorded = Recorded(ops.DeviceContext(own_stream=True))
os.environ["FSSEG_EMULATED_FAIL"] = "launch:1"
for _ in range(2):
    try:
        recorded.graph.replay()
        recorded.scores.to_host()
    except KernelError as error:
        print(recorded.context.lost, error)
try:
    with recorded.context.record():
        pass
except KernelError as error:
    print(recorded.context.lost, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3, done.stdout + done.stderr
    assert all(line.startswith("True the device: expected a device that") for line in lines)


def test_what_is_not_finite_is_said_after_a_replay(context: Any) -> None:
    recorded, broken = Recorded(context), FEATURES[0].copy()
    broken[1, 3, 2, 2] = np.nan
    recorded.features.write(broken)
    recorded.graph.replay()
    with pytest.raises(InputError, match="expected finite values"):
        recorded.scores.to_host()
    assert recorded.right(1)


# ---- memory ----
def test_memory_of_a_graph_comes_back(context: Any) -> None:
    recorded = Recorded(context)
    scores, labels = recorded.scores.pointer, recorded.labels.pointer
    shape, size = recorded.scores.shape, recorded.labels.shape
    held, allocations = context.held, context._allocations
    del recorded.scores, recorded.labels
    assert context.empty(shape).pointer != scores, "a replay would write there"
    for _ in range(50):
        recorded.graph.replay()
    assert (context.held, context._allocations) == (held, allocations)
    context.trim()
    before = context.held
    del recorded
    gc.collect()
    found = [context.empty(shape), context.empty(size, "uint8")]
    assert {scores, labels} == {array.pointer for array in found}
    del found
    assert context.trim() > 0 and context.held < before


def test_memory_that_no_op_saw_is_the_graphs_too(context: Any) -> None:
    first = context.empty((64,))
    pointer = first.pointer
    del first  # idle: the recording takes it
    with context.record() as graph:
        taken = context.empty((64,))
        assert taken.pointer == pointer
        del taken
    assert context.empty((64,)).pointer != pointer
    graph.replay()
    del graph
    gc.collect()
    assert pointer in [array.pointer for array in [context.empty((64,)) for _ in range(2)]]


def test_a_graph_keeps_what_it_was_given(context: Any) -> None:
    recorded = Recorded(context)
    expected, weights = recorded.expected(0), recorded.weights.pointer
    del recorded.weights
    gc.collect()
    taken = [context.array(np.zeros((3, 16), np.float32)) for _ in range(3)]
    assert weights not in [array.pointer for array in taken]
    recorded.graph.replay()
    assert np.array_equal(recorded.scores.to_host(), expected[0])


def test_arrays_outlive_their_graph(context: Any) -> None:
    recorded = Recorded(context)
    recorded.graph.replay()
    expected, scores = recorded.expected(0), recorded.scores
    pointer = scores.pointer
    del recorded
    gc.collect()
    assert context.empty(scores.shape).pointer != pointer
    assert np.array_equal(scores.to_host(), expected[0])
    del scores
    gc.collect()
    assert context.empty(expected[0].shape).pointer == pointer


def test_a_graph_outlives_its_context(context: Any) -> None:
    recorded = Recorded(ops.DeviceContext(own_stream=True))
    del recorded.context
    gc.collect()
    recorded.graph.replay()
    assert np.isfinite(recorded.scores.to_host()).all()


def test_loans_last_as_long_as_the_graph(context: Any) -> None:
    memory = context.array(FEATURES[0])
    foreign = Tensor(memory.pointer, FEATURES[0].shape)
    weights, bias = context.array(WEIGHTS), context.array(BIAS)
    lent = context._from_dlpack(foreign, "features")
    with context.record() as graph:
        scores = ops.linear_match(lent, weights, bias)
    del lent
    graph.replay()
    context.synchronize()
    assert foreign.ended == 0 and np.isfinite(scores.to_host()).all()
    del graph
    gc.collect()
    context.synchronize()
    context.synchronize()
    assert foreign.ended == 1
