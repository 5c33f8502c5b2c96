"""Device arrays: where ops run, what others see of them, their memory, and what goes wrong.

On the emulated device (`make test-cuda`) or a real one; without either there is nothing to test.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import _kernels, ops
from fsseg_sdk.errors import DeviceMemoryError, FssegError, InputError, KernelError
from tests.cuda.foreign import Interface, Taken, Tensor
from tests.ops.device import has_device

if not has_device():
    pytest.skip("no device: run by `make test-cuda`", allow_module_level=True)

EMULATED = "emulated" in _kernels.cuda_reason
emulated = pytest.mark.skipif(not EMULATED, reason="pretends what a real device does not do")
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((2, 16, 5, 6)).astype(np.float32)
WEIGHTS = RNG.standard_normal((3, 16)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)


@pytest.fixture
def context() -> Any:
    return ops.DeviceContext()


def scores(features: Any, weights: Any = WEIGHTS, bias: Any = BIAS) -> Any:
    return ops.linear_match(features, weights, bias)


EXPECTED = scores(FEATURES)


def right(result: Any) -> bool:
    return bool(np.abs(result.to_host() - EXPECTED).max() <= 1e-5 * np.abs(EXPECTED).max())


# ---- arrays ----
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (0, 2), (), (2, 1, 3, 2, 2)])
def test_there_and_back(context: Any, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.asarray(RNG.standard_normal(shape) * 10).astype(dtype)
    array = context.array(values)
    assert (array.shape, array.ndim, array.size) == (shape, len(shape), values.size)
    assert array.dtype == ("uint8" if dtype == "bool" else dtype)
    assert np.array_equal(array.to_host(), values) and array.to_host().shape == shape


def test_bfloat16_comes_back_as_float32(context: Any) -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3e38, np.inf, np.nan, 1e-41], np.float32)
    back = context.array(values, "bfloat16").to_host()
    assert back.dtype == np.float32
    # Ties to even: 1.00390625 lies between 1 and 1.0078125, 1.01171875 between that and 1.015625.
    assert back[:3].tolist() == [1.0, 1.0, 1.015625] and np.isnan(back[5])
    assert abs(back[3] + 3e38) < 2e36 and back[4] == np.inf and abs(back[6] - 1e-41) < 1e-40


def test_strided_upload_and_copy(context: Any) -> None:
    values = FEATURES[::-1, ::3, 1:, ::2]
    assert np.array_equal(context.array(values).to_host(), values)
    seen = context.array(FEATURES)._view((5, 16), (1, 30), 7)
    assert np.array_equal(seen.contiguous().to_host(), FEATURES.reshape(2, 16, 30)[0, :, 7:12].T)
    assert seen.contiguous().is_contiguous and not seen.is_contiguous
    assert seen.to_host().tobytes() == seen.contiguous().to_host().tobytes()


@pytest.mark.parametrize(
    ("shape", "steps", "offset"), [((2,), (960,), 0), ((1,), (1,), -1), ((2,), (-1,), 0)]
)
def test_views_stay_inside(context: Any, shape: Any, steps: Any, offset: int) -> None:
    with pytest.raises(ValueError, match="view"):
        context.array(FEATURES.reshape(-1)[:960])._view(shape, steps, offset)


def test_unknown_dtypes_are_refused(context: Any) -> None:
    for name in ("float64", "int32", "complex64"):
        with pytest.raises(InputError, match=f"dtype: expected float32.*got {name}"):
            context.empty((2,), name)


# ---- where ops run ----
def test_first_array_decides(context: Any) -> None:
    on_device = scores(context.array(FEATURES))
    assert isinstance(on_device, ops.DeviceArray) and on_device.context is context
    assert right(on_device)
    assert isinstance(scores(FEATURES), np.ndarray)


def test_parameters_may_be_anywhere(context: Any) -> None:
    features = context.array(FEATURES)
    assert right(scores(features, context.array(WEIGHTS), BIAS))
    assert right(scores(features, WEIGHTS, context.array(BIAS)))
    assert right(scores(features, WEIGHTS.T.copy().T, BIAS))  # a copy, as of numpy arrays


def test_mixed_places_are_refused(context: Any) -> None:
    with pytest.raises(InputError, match="weights: expected memory of the CPU") as caught:
        scores(FEATURES, context.array(WEIGHTS))
    assert "CUDA device 0" in caught.value.got and ".to_host()" in caught.value.remedy


def test_arrays_of_another_context_are_seen(context: Any) -> None:
    other = ops.DeviceContext(stream=2)
    assert other.stream == 2
    assert right(scores(context.array(FEATURES), other.array(WEIGHTS), other.array(BIAS)))
    first = scores(other.array(FEATURES), context.array(WEIGHTS))
    assert first.context is other and right(first)


def test_whole_numbers_come_from_the_host(context: Any) -> None:
    group = context.array(np.zeros(3, np.int64))
    with pytest.raises(InputError, match="group: expected memory of the CPU"):
        ops.nearest(context.array(FEATURES), WEIGHTS, group, 1)


def test_shapes_and_types_are_checked_there_too(context: Any) -> None:
    features = context.array(FEATURES)
    with pytest.raises(InputError, match="weights: expected channels of features"):
        scores(features, WEIGHTS[:, :5])
    with pytest.raises(InputError, match="features: expected float32"):
        scores(context.array(np.zeros((1, 2, 3, 4), np.uint8)))
    with pytest.raises(InputError, match="weights: expected float32"):
        scores(features, context.array(WEIGHTS, "float16"))
    with pytest.raises(InputError, match="features: expected float32"):
        scores(FEATURES.astype(np.float16))


def test_the_binding_checks_memory(context: Any) -> None:
    cuda, other = _kernels.cuda, ops.DeviceContext()
    given = [context.array(a) for a in (FEATURES, WEIGHTS, BIAS)]
    for out in (context.empty((2, 3, 5, 5)), other.empty((2, 3, 5, 6)), given[0]):
        with pytest.raises(ValueError, match=r"out|arrays"):
            cuda.linear_match(*given, out, 1)
    numbers = context._numbers(np.array([0, 4, 2]), 0, 5)
    rows, out = context.array(WEIGHTS), context.empty((2, 3, 5, 6))
    for group in (numbers, context.array(np.zeros(3, np.int64))):
        with pytest.raises(ValueError, match="group"):
            cuda.nearest(given[0], rows, group, 3, False, None, out, 1)
    with pytest.raises(ValueError, match="numbers"):
        context._numbers(np.array([0, 5]), 0, 5)


# ---- arrays of others ----
def test_dlpack_in(context: Any) -> None:
    memory = context.array(FEATURES)
    foreign = Tensor(memory.pointer, (2, 16, 5, 6))
    features = context._from_dlpack(foreign, "features")
    assert foreign.streams == [context.stream] and features.pointer == memory.pointer
    assert right(scores(features)) and foreign.ended == 0
    del features
    gc.collect()
    context.synchronize()
    context.synchronize()
    assert foreign.ended == 1


def test_dlpack_given_to_an_op() -> None:
    memory = ops.default_context().array(FEATURES)
    foreign = Tensor(memory.pointer, (1, 8, 5, 6), (480, 60, 6, 1))
    result = ops.linear_match(foreign, WEIGHTS[:, :8].copy(), BIAS)
    assert result.context is ops.default_context() and foreign.streams == [1]
    expected = ops.linear_match(FEATURES[:1, ::2].copy(), WEIGHTS[:, :8].copy(), BIAS)
    assert np.abs(result.to_host() - expected).max() < 1e-5


@pytest.mark.parametrize(("kind", "dtype"), [((2, 16), "float16"), ((4, 16), "bfloat16")])
def test_halves_by_dlpack(context: Any, kind: tuple[int, int], dtype: str) -> None:
    memory = context.array(FEATURES, dtype)
    result = scores(context._from_dlpack(Tensor(memory.pointer, FEATURES.shape, None, kind), ""))
    expected = scores(np.ascontiguousarray(memory.to_host(), np.float32))
    assert np.abs(result.to_host() - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "device", "words"),
    [
        ((2, 64), (2, 0), "DLPack type"),
        ((0, 32), (2, 0), "DLPack type"),
        ((2, 32), (2, 5), r"DLPack device \(2, 5\)"),
        ((2, 32), (10, 0), "DLPack device"),
    ],
)
def test_dlpack_that_cannot_be_taken(context: Any, kind: Any, device: Any, words: str) -> None:
    foreign = Tensor(context.array(BIAS).pointer, (3,), None, kind, device)
    with pytest.raises(InputError, match=words):
        scores(context.array(FEATURES), WEIGHTS, foreign)
    assert foreign.ended == 0 and not foreign.streams[1:]


def test_interface_in(context: Any) -> None:
    memory = context.array(FEATURES)
    fields = {"shape": FEATURES.shape, "typestr": "<f4", "data": (memory.pointer, False)}
    for more in (
        {},
        {"strides": None},
        {"stream": 1},
        {"stream": 2},
        {"strides": FEATURES.strides},
    ):
        assert right(scores(Interface(**fields, **more)))
    for more in ({"stream": 0}, {"typestr": "<f8"}, {"strides": (1, 2)}, {"shape": None}):
        with pytest.raises(InputError, match=r"features|stream"):
            scores(Interface(**(fields | more)))


def test_dlpack_out(context: Any) -> None:
    array = context.array(FEATURES)._view((2, 5), (480, 1), 3)
    assert array.__dlpack_device__() == (2, 0)
    taken = Taken(array.__dlpack__(stream=2, max_version=(1, 0), dl_device=(2, 0), copy=False))
    assert (taken.shape, taken.steps, taken.device) == ((2, 5), (480, 1), (2, 0))
    assert (taken.data, taken.kind) == (array.pointer, (2, 32))
    held = context.held
    del array
    gc.collect()
    assert context.array(FEATURES).pointer != taken.data - 12, "the consumer still has it"
    taken.end()
    assert context.held >= held
    for wrong in ({"stream": 0}, {"dl_device": (1, 0)}, {"dl_device": (2, 7)}):
        with pytest.raises(InputError):
            context.array(BIAS).__dlpack__(**wrong)
    with pytest.raises(BufferError):
        context.array(BIAS).__dlpack__(copy=True)


def test_a_capsule_that_nobody_takes_keeps_nothing(context: Any) -> None:
    pointer = context.array(FEATURES).pointer
    capsule = context.array(FEATURES).__dlpack__()
    del capsule
    gc.collect()
    assert context.array(FEATURES).pointer == pointer


def test_interface_out(context: Any) -> None:
    array = context.array(FEATURES)
    fields = array.__cuda_array_interface__
    assert (fields["shape"], fields["typestr"], fields["version"]) == (FEATURES.shape, "<f4", 3)
    assert fields["data"] == (array.pointer, False) and fields["strides"] is None
    assert fields["stream"] == context.stream == 1
    assert array._view((2, 5), (480, 1)).__cuda_array_interface__["strides"] == (1920, 4)
    assert not hasattr(context.array(FEATURES, "bfloat16"), "__cuda_array_interface__")
    assert right(scores(Interface(**fields)))


# ---- memory ----
def test_a_warm_op_allocates_nothing(context: Any) -> None:
    features, weights, bias = (context.array(a) for a in (FEATURES, WEIGHTS, BIAS))
    for _ in range(2):
        scores(features, weights, bias).to_host()
    before = context._allocations
    for _ in range(10):
        scores(features, weights, bias).to_host()
    assert context._allocations == before


def test_memory_is_given_back(context: Any) -> None:
    array = context.empty((1 << 20,))
    held = context.held
    assert held >= 4 << 20 and context.trim() == 0
    del array
    assert context.held == held and context.trim() >= 4 << 20
    assert context.held <= held - (4 << 20)


@emulated
def test_memory_of_a_captured_graph_is_for_nobody_else(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = context.empty((64,))
    pointer = first.pointer
    del first  # idle: the capture takes it
    foreign = Tensor(context.array(FEATURES).pointer, FEATURES.shape)
    with monkeypatch.context() as patch:
        patch.setenv("FSSEG_EMULATED_CAPTURE", "1")
        captured = context.empty((64,))
        assert captured.pointer == pointer
        del captured
        again = context.empty((64,))
        loan = context._from_dlpack(foreign, "features")
        del loan
        context.empty((1,))
        assert foreign.ended == 0, "nothing is asked while a graph is captured"
    later = again.pointer
    del again
    assert context.empty((64,)).pointer not in (pointer, later)
    context.synchronize()
    context.synchronize()
    assert foreign.ended == 1


def test_arrays_outlive_their_context(context: Any) -> None:
    result = scores(ops.DeviceContext().array(FEATURES))
    gc.collect()
    assert right(result)


@emulated
def test_out_of_memory_is_an_error_and_the_next_call_is_right(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = context.array(FEATURES)
    for number in (1, 2, 3):
        context.trim()
        with monkeypatch.context() as patch:
            patch.setenv("FSSEG_EMULATED_FAIL", f"malloc:{number}")
            with pytest.raises(DeviceMemoryError, match="expected enough memory") as caught:
                scores(features)
        assert isinstance(caught.value, (KernelError, MemoryError))
        del caught
        gc.collect()
        assert right(scores(features)) and not context.lost


@emulated
def test_unused_memory_goes_before_a_call_fails(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = context.array(FEATURES)
    context.empty((1 << 20,))
    held = context.held
    monkeypatch.setenv("FSSEG_EMULATED_FAIL", "malloc:1")
    assert right(scores(features))
    assert context.held < held


@emulated
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("own", [False, True])
def test_no_memory_for_a_context(
    context: Any, own: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSSEG_EMULATED_FAIL", f"malloc:{number}")
    with pytest.raises(DeviceMemoryError, match="none left on device 0"):
        ops.DeviceContext(own_stream=own)
    assert ops.DeviceContext(own_stream=own).held == 0


def test_sizes_that_no_memory_holds(context: Any) -> None:
    with pytest.raises(DeviceMemoryError):
        context.empty((1 << 40, 1 << 40))
    with pytest.raises(InputError, match="shape"):
        context.empty((2, -1))


# ---- what kernels report ----
def test_what_is_not_finite_is_said_at_the_copy(context: Any) -> None:
    broken = FEATURES.copy()
    broken[1, 3, 2, 2] = np.nan
    result = scores(context.array(broken))  # nothing has waited
    with pytest.raises(InputError, match="expected finite values"):
        result.to_host()
    assert right(scores(context.array(FEATURES)))
    scores(context.array(broken))
    with pytest.raises(InputError, match="expected finite values"):
        context.synchronize()


@emulated
def test_a_lost_device_says_so_for_good() -> None:
    code = """
import os, numpy as np
from fsseg_sdk import ops
from fsseg_sdk.errors import KernelError
context = ops.DeviceContext()
features = context.array(np.ones((1, 4, 3, 3), np.float32))
weights, bias = np.ones((2, 4), np.float32), np.zeros(2, np.float32)
os.environ["FSSEG_EMULATED_FAIL"] = "launch:1"
for _ in range(3):
    try:
        ops.linear_match(features, weights, bias).to_host()
    except KernelError as error:
        print(context.lost, error)
    del os.environ["FSSEG_EMULATED_FAIL"]
    os.environ["FSSEG_EMULATED_FAIL"] = "never:1"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3, done.stdout + done.stderr
    for line in lines:
        assert line.startswith("True the device: expected a device that answers, got ")
        assert "illegal" in line.lower() and "start a new" in line


def test_contexts_that_cannot_be() -> None:
    for device in (-1, 99):
        with pytest.raises(InputError, match="device: expected"):
            ops.DeviceContext(device)


def test_build_info_names_the_device() -> None:
    cuda = ops.build_info()["cuda"]
    assert cuda["built"] and cuda["devices"][0]["name"]


def test_errors_are_of_the_package() -> None:
    assert issubclass(DeviceMemoryError, FssegError) and issubclass(DeviceMemoryError, MemoryError)
