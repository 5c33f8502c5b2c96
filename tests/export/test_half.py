"""Half precision: strongly typed graphs that compute what float32 does, and how that is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.half import KINDS, Half, rounded, simulated, to_half
from export.onnx_graph import store_half
from export.parity import LIMITS, Agreement
from export.plain import fixed_to_one, plain, session_of, types_of

CHANNELS = 12


def attention(epsilon: float = 1e-12) -> bytes:
    """A small graph with what ours have: positions that are resized, weights that are sliced, a
    convolution, LayerNormalization, Softmax, ReduceL2, Clip, Expand, Div, Resize and Shape."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.4, shape).astype(np.float32), name)

    def whole(name: str, *values: int) -> TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def node(kind: str, inputs: str, output: str, **more: Any) -> onnx.NodeProto:
        names = ["" if name == "-" else name for name in inputs.split()]
        return helper.make_node(kind, names, [output], name=f"node_{output}", **more)

    c = CHANNELS
    nodes = [
        node("Resize", "places - - size", "positions", mode="linear"),
        node("Slice", "both zero half zero", "taken"),
        node("Transpose", "taken", "product", perm=[1, 0]),
        node("Conv", "image kernel bias", "patches", kernel_shape=[4, 4], strides=[4, 4]),
        node("Add", "patches positions", "placed"),
        node("Reshape", "placed cells", "flat"),
        node("Transpose", "flat", "tokens", perm=[0, 2, 1]),
        node("LayerNormalization", "tokens gain shift", "normal", axis=-1),
        node("MatMul", "normal product", "keys"),
        node("Transpose", "keys", "turned", perm=[0, 2, 1]),
        node("MatMul", "keys turned", "alike"),
        node("Softmax", "alike", "looked", axis=-1),
        node("MatMul", "looked normal", "mixed"),
        node("ReduceL2", "mixed last", "length", keepdims=1),
        node("Clip", "length least", "clamped"),
        node("Shape", "mixed", "shape"),
        node("Expand", "clamped shape", "wide"),
        node("Div", "mixed wide", "unit"),
        node("Transpose", "unit", "back", perm=[0, 2, 1]),
        node("Reshape", "back square", "features"),
    ]
    weights = [
        weight("places", 1, c, 3, 3),
        weight("both", 2 * c, c),
        weight("kernel", c, 3, 4, 4),
        weight("bias", c),
        weight("gain", c),
        weight("shift", c),
        whole("size", 1, c, 4, 4),
        whole("zero", 0),
        whole("half", c),
        whole("cells", 0, c, 16),
        whole("last", -1),
        whole("square", 0, c, 4, 4),
        numpy_helper.from_array(np.array(epsilon, np.float32), "least"),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", c, 4, 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def images(count: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(count, 3, 16, 16)).astype(np.float32)


def run(model: ModelProto | bytes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return session_of(data, optimise=False).run(["features"], {"image": image})[0]


def test_constants_are_folded_and_nothing_changes() -> None:
    model = plain(attention())
    kinds = [node.op_type for node in model.graph.node]
    assert "Resize" not in kinds and "Slice" not in kinds
    weights = {initialiser.name for initialiser in model.graph.initializer}
    assert {"positions", "product"} <= weights and not {"places", "both"} & weights
    assert np.array_equal(run(model, images()), run(attention(), images()))


@pytest.mark.parametrize("kind", list(KINDS))
def test_half_precision_computes_nearly_the_same(kind: Half) -> None:
    model = plain(attention())
    data = to_half(model, kind)
    typed = onnx.load_from_string(data)
    assert {v.type.tensor_type.elem_type for v in typed.graph.input} == {TensorProto.FLOAT}
    assert {v.type.tensor_type.elem_type for v in typed.graph.output} == {TensorProto.FLOAT}
    stored = {i.name: i.data_type for i in typed.graph.initializer}
    assert stored["kernel.half"] == KINDS[kind] and "kernel" not in stored
    expected, found = run(model, images()), run(simulated(data), images())
    error = np.abs(found - expected).max()
    bits = {"float16": 11, "bfloat16": 8}[kind]
    assert 2.0 ** (-bits - 4) < error < 2.0 ** (4 - bits)  # it rounds, and only that
    if kind == "float16":
        assert np.abs(run(data, images()) - expected).max() < 2.0**-7


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_divides_by_zero(kind: Half) -> None:
    """Features that are 0 stay 0, where float16 lacks the 1e-12 that divides them."""
    model = plain(attention())
    for weight in model.graph.initializer:
        if weight.name in ("gain", "shift"):
            weight.CopyFrom(numpy_helper.from_array(np.zeros(CHANNELS, np.float32), weight.name))
    found = run(simulated(to_half(model, kind)), images())
    assert np.array_equal(found, np.zeros_like(found))


def test_weights_beyond_float16() -> None:
    model = plain(attention())
    for weight in model.graph.initializer:
        if weight.name == "kernel":
            values = numpy_helper.to_array(weight) * 1e6
            weight.CopyFrom(numpy_helper.from_array(values, "kernel"))
    with pytest.raises(ValueError, match="kernel: expected weights in float16's range"):
        to_half(model, "float16")
    to_half(model, "bfloat16")


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20], np.float32)
    tensor = rounded(values, "bfloat16", "x", "x")
    found = numpy_helper.to_array(tensor).astype(np.float32)
    assert found.tolist() == [1.0, 1.0, 1 + 2**-6, -1 - 2**-7]


def test_only_exact_weights_are_stored_in_half() -> None:
    rng = np.random.default_rng(0)
    model = plain(attention())
    for weight in model.graph.initializer:
        if weight.name == "kernel":
            exact = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(exact, "kernel"))
    stored = store_half(model.SerializeToString(), least=100)
    kinds = {i.name: i.data_type for i in onnx.load_from_string(stored).graph.initializer}
    assert kinds["kernel.float16"] == TensorProto.FLOAT16 and kinds["product"] == TensorProto.FLOAT
    image = rng.normal(size=(1, 3, 16, 16)).astype(np.float32)
    assert np.array_equal(run(stored, image), run(model, image))


def test_one_picture_a_call() -> None:
    model = fixed_to_one(plain(attention()))
    assert types_of(model)["features"] == TensorProto.FLOAT
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert np.array_equal(run(model, images(1)), run(attention(), images(1)))


def test_what_agrees() -> None:
    limits = LIMITS["fp16"]
    assert Agreement(0.001, 0.01, limits).ok
    nan = float("nan")
    for bad in ((0.02, 0.01), (0.001, 0.3), (nan, 0.01), (0.001, nan)):
        assert not Agreement(*bad, limits).ok
    assert Agreement(0.3, 5.0, LIMITS["int8"]).ok and not Agreement(0.4, 0.0, LIMITS["int8"]).ok
