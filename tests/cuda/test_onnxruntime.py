"""What ONNX Runtime is asked for with arrays of a device.

The session is pretended: it reads and writes the addresses that it was bound to.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import BackendError, InputError, _kernels, ops
from fsseg_sdk.backends import GraphSpec, TensorInfo
from fsseg_sdk.backends.onnxruntime import OnnxRuntimeGraph
from fsseg_sdk.backends.own_context import fits_device
from tests.ops.device import has_device

if not has_device() or "emulated" not in _kernels.cuda_reason:
    pytest.skip("for the emulated device: run by `make test-cuda`", allow_module_level=True)

SPEC = GraphSpec(
    "encoder.onnx",
    (TensorInfo("image", "float32", (-1, 3, 4, 6)),),
    (TensorInfo("features", "float32", (-1, 2, 2, 3)),),
)


def at(address: int, shape: list[int]) -> Any:
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    return np.frombuffer(memory, np.float32).reshape(shape)


class Binding:
    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}
        self.asked: list[tuple[Any, ...]] = []

    def bind_input(
        self, name: str, device: str, number: int, kind: Any, shape: Any, at_: int
    ) -> None:
        self.asked.append((name, device, number, kind))
        self.tensors[name] = at(at_, shape)

    bind_output = bind_input


class Session:
    def __init__(self, fails: str = "") -> None:
        self.fails, self.bindings = fails, []

    def io_binding(self) -> Binding:
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        image = binding.tensors["image"]
        pooled = image.reshape(len(image), 3, 2, 2, 3, 2).sum(axis=(3, 5))
        binding.tensors["features"][...] = pooled[:, :2]


def graph(session: Session) -> OnnxRuntimeGraph:
    return OnnxRuntimeGraph(session, SPEC, device="cuda", on_device=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_arrays_are_read_and_written_where_they_are(batch: int) -> None:
    session = Session()
    own = graph(session)
    assert own.context is own.context and own.context is not None and own.context.stream > 2
    image = np.random.default_rng(0).standard_normal((batch, 3, 4, 6)).astype(np.float32)
    features = own.run_on_device({"image": own.context.array(image)})["features"]
    assert features.shape == (batch, 2, 2, 3) and features.context is own.context
    expected = image.reshape(batch, 3, 2, 2, 3, 2).sum(axis=(3, 5))[:, :2]
    assert np.array_equal(features.to_host(), expected)
    ((first, second),) = [binding.asked for binding in session.bindings]
    assert first == ("image", "cuda", 0, np.float32) and second[0] == "features"


def test_each_thread_has_a_context() -> None:
    own = graph(Session())
    found: list[Any] = []
    other = threading.Thread(target=lambda: found.append(own.context))
    other.start()
    other.join()
    assert found[0] is not own.context and found[0].stream != own.context.stream


def test_what_it_does_not_take() -> None:
    own = graph(Session())
    context: Any = own.context
    good = np.zeros((1, 3, 4, 6), np.float32)
    for feeds in (
        {},
        {"picture": context.array(good)},
        {"image": context.array(good[:, :2])},
        {"image": context.array(good, "float16")},
        {"image": context.array(good)._view((1, 3, 4, 6), (72, 1, 18, 3))},
    ):
        with pytest.raises(InputError, match="feeds"):
            own.run_on_device(feeds)
    with pytest.raises(BackendError, match="out of memory"):
        graph(Session("out of memory")).run_on_device({"image": context.array(good)})
    plain = OnnxRuntimeGraph(Session(), SPEC, device="cuda")
    assert plain.context is None
    with pytest.raises(BackendError, match="arrays on a device"):
        plain.run_on_device({"image": context.array(good)})


def test_which_graphs_fit() -> None:
    assert fits_device(SPEC, 0) and not fits_device(SPEC, 1)
    for shape, dtype in (((-1, 3, -1, -1), "float32"), ((1, 3, 4, 6), "float16")):
        spec = GraphSpec("x", (TensorInfo("image", dtype, shape),), SPEC.outputs)
        assert not fits_device(spec, 0)
    assert isinstance(ops.default_context(), ops.DeviceContext)


def test_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = graph(Session())
    assert not own.capturable
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with pytest.raises(BackendError, match="loaded before fork"):
        _ = own.context
