"""int8: calibration, the two flavours, layer errors, and the search for what stays in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from export.accuracy import Cost, episodes_of
from export.calibrate import _asymmetric, _symmetric, inputs_of, measure, read_pictures
from export.int8 import search
from export.layers import errors_alone, layer_table, summed_errors
from export.plain import plain, session_of
from export.quantize import FLAVOURS, Flavour, Range, layers_of, quantised, tensors_to_measure
from fsseg_sdk.errors import InputError
from tests.export.test_half import attention


def network() -> ModelProto:
    """Three convolutions, a residual, a pool: a small ResNet."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    def conv(number: int, source: str) -> onnx.NodeProto:
        names = [source, f"w{number}", f"b{number}"]
        return helper.make_node(
            "Conv", names, [f"c{number}"], name=f"conv{number}", pads=[1, 1, 1, 1]
        )

    nodes = [
        conv(0, "image"),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node(
            "MaxPool", ["r0"], ["p0"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        conv(1, "p0"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        conv(2, "r1"),
        helper.make_node("Add", ["c2", "p0"], ["features"], name="join"),
    ]
    weights = [weight("w0", 8, 3, 3, 3), weight("b0", 8)]
    weights += [weight(f"w{n}", 8, 8, 3, 3) for n in (1, 2)] + [weight("b1", 8), weight("b2", 8)]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8, 8, 8])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return plain(model.SerializeToString())


def feeds(count: int = 8) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(2)
    return [{"image": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def run(model: ModelProto | bytes) -> NDArray[np.float32]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = session_of(data, optimise=False)
    return np.concatenate([session.run(["features"], feed)[0] for feed in feeds(2)])


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(found - expected).sum() / np.square(expected).sum()))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", ["convolutions", "attention"])
def test_both_flavours_compute_nearly_the_same(flavour: Flavour, kind: str) -> None:
    model = network() if kind == "convolutions" else plain(attention())
    ranges = measure(model, tensors_to_measure(model), feeds())
    data = quantised(model, ranges[flavour], flavour)
    error = relative(run(data), run(model))
    assert 1e-4 < error < 0.05
    assert np.isfinite(session_of(data).run(None, feeds(1)[0])[0]).all()
    typed = onnx.load_from_string(data)
    assert not typed.metadata_props and {n.domain for n in typed.graph.node} <= {"", "ai.onnx"}
    kinds = Counter(initialiser.data_type for initialiser in typed.graph.initializer)
    assert (TensorProto.UINT8 in kinds) == (flavour == "u8s8")
    zeros = [
        numpy_helper.to_array(i) for i in typed.graph.initializer if i.name.endswith("zero_point")
    ]
    if flavour == "s8s8":  # what TensorRT asks for
        assert not any(zero.any() for zero in zeros) and TensorProto.INT32 not in kinds
    scales = {i.name: i.dims for i in typed.graph.initializer if i.name.endswith("scale")}
    assert any(list(dims) in ([8], [12]) for dims in scales.values())  # per channel


def test_s8s8_rounds_only_what_a_quantised_layer_takes() -> None:
    model = network()
    ranges = measure(model, tensors_to_measure(model), feeds())["s8s8"]
    typed = onnx.load_from_string(quantised(model, ranges, "s8s8"))
    rounded = {n.input[0] for n in typed.graph.node if n.op_type == "QuantizeLinear"}
    assert rounded == {"image", "r0", "p0", "r1"}
    assert typed.graph.output[0].name == "features"


def test_u8s8_leaves_unrounded_what_only_float32_takes() -> None:
    """A convolution's result that a Reshape takes, as a ViT's patches, and features; a result
    between convolutions is rounded, or ONNX Runtime would compute them in float32."""
    model = network()
    joined = next(node for node in model.graph.node if node.name == "join")
    joined.op_type = "Sub"  # not quantised
    ranges = measure(model, tensors_to_measure(model), feeds())["u8s8"]
    typed = onnx.load_from_string(quantised(model, ranges, "u8s8"))
    rounded = {n.input[0] for n in typed.graph.node if n.op_type == "QuantizeLinear"}
    assert {"image", "p0", "r1"} <= rounded and "c2" not in rounded
    assert len(rounded) == 4  # and the first convolution's result
    model = network()
    ranges = measure(model, tensors_to_measure(model), feeds())["u8s8"]
    whole = onnx.load_from_string(quantised(model, ranges, "u8s8"))
    assert sum(n.op_type == "QuantizeLinear" for n in whole.graph.node) == 6


def test_layers_that_are_kept() -> None:
    model = network()
    assert layers_of(model) == ["conv0", "conv1", "conv2"]
    ranges = measure(model, tensors_to_measure(model), feeds())
    for flavour in FLAVOURS:
        all_kept = quantised(model, ranges[flavour], flavour, layers_of(model))
        assert np.array_equal(run(all_kept), run(model))
        some = onnx.load_from_string(quantised(model, ranges[flavour], flavour, ["conv1"]))
        floats = {i.name for i in some.graph.initializer if i.data_type == TensorProto.FLOAT}
        assert "w1" in floats and not {"w0", "w2"} & floats
    with pytest.raises(ValueError, match="layers of the graph, got relu0"):
        quantised(model, ranges["u8s8"], "u8s8", ["relu0"])


def test_an_opset_that_the_quantiser_does_not_know() -> None:
    model = network()
    model.opset_import[0].version = 21
    with pytest.raises(ValueError, match="opset 20 or below, got opset 21"):
        quantised(model, {}, "s8s8")


def test_a_value_far_out_is_cut_off() -> None:
    values = np.random.default_rng(3).normal(size=300_000).astype(np.float32)
    values[0] = 9.0
    cut, even = _asymmetric(values), _symmetric(values)
    assert 4 < cut.highest < 8 and -6 < cut.lowest < -3
    assert even.highest == -even.lowest < 8
    model, given = network(), feeds()
    given[0]["image"][:] = np.nan
    with pytest.raises(ValueError, match="finite values"):
        measure(model, ["image"], given)


def test_where_the_error_grows() -> None:
    """A layer whose input is badly calibrated is found, by itself and in sum."""
    model = network()
    ranges = dict(measure(model, tensors_to_measure(model), feeds())["s8s8"])
    good = errors_alone(model, ranges, "s8s8", feeds(2))
    assert set(good) == set(layers_of(model)) and max(good.values()) < 0.03
    ranges["r1"] = Range(-200.0, 200.0)
    alone = errors_alone(model, ranges, "s8s8", feeds(2))
    assert max(alone, key=lambda name: alone[name]) == "conv2" and alone["conv2"] > 0.05
    lower = onnx.load_from_string(quantised(model, ranges, "s8s8"))
    summed = {e.name: e.summed for e in summed_errors(model, lower, feeds(2))}
    assert summed["conv0"] < summed["conv1"] < summed["conv2"]
    assert "conv2" in layer_table(summed_errors(model, lower, feeds(2)))


def cost(loss: float, error: float = 0.2) -> Cost:
    return Cost(50 - loss, loss, loss - 1.9 * error, loss + 2.1 * error)


def test_the_search_keeps_as_few_layers_as_it_takes() -> None:
    ranked = [f"layer{index}" for index in range(32)]
    asked: list[int] = []

    def measured(kept: Sequence[str]) -> Cost:
        asked.append(len(kept))
        assert list(kept) == ranked[: len(kept)]
        return cost(3.0 - 0.5 * len(kept))

    said: list[str] = []
    found = search(ranked, measured, 0.5, said.append)
    assert asked == [0, 2, 4, 8, 6] and len(found.kept) == 6 and found.enough
    assert found.cost.loss == 0 and len(said) == 5
    assert not search(ranked, lambda kept: cost(0.3), 0.5).enough  # less than, not as much as
    assert not search(ranked, lambda kept: cost(float("nan")), 0.5).enough
    assert search(ranked, lambda kept: cost(0.29), 0.5).kept == ()


def test_a_loss_that_may_be_small_by_chance_is_not_taken() -> None:
    """Below the limit by less than a standard error is not enough."""
    said: list[str] = []

    def measured(kept: Sequence[str]) -> Cost:
        return cost(0.1, 0.5 if len(kept) < 8 else 0.15)

    found = search([f"layer{index}" for index in range(32)], measured, 0.5, said.append)
    assert found.enough and len(found.kept) == 8
    told = [line.endswith("an interval that includes 0.5") for line in said]
    assert told == [True, True, True, False, True]


def pictures(folder: Path, count: int, plain_colour: bool = False) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
        if plain_colour:
            pixels[:] = 7
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_calibration_pictures(tmp_path: Path) -> None:
    entry = {"size": [16, 24], "geometry": "squash", "mean": [0.5] * 3, "std": [0.5] * 3}
    found = read_pictures(pictures(tmp_path / "ten", 10), most=9)
    assert len(found) == 9 and inputs_of(found, entry)[0]["image"].shape == (1, 3, 16, 24)
    assert len(read_pictures(None)) >= 8  # of the examples
    few = pictures(tmp_path / "few", 7)
    for copy in range(5):  # the same picture again is no other picture
        (few / f"again{copy}.png").write_bytes((few / "0.png").read_bytes())
    for folder, words in (
        (few, "8 different pictures or more, got 7"),
        (pictures(tmp_path / "grey", 9, plain_colour=True), "of one colour"),
        (tmp_path / "absent", "no folder 'absent'"),
    ):
        with pytest.raises(InputError, match=words):
            read_pictures(folder)
    (tmp_path / "ten" / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"3\.png"):
        read_pictures(tmp_path / "ten")


def test_episodes_for_measuring(tmp_path: Path) -> None:
    episodes, words = episodes_of(None)
    pixels, labels = episodes[0].query.read()
    assert pixels.dtype == np.uint8 and (labels == 1).any() and "drawn" in words
    with pytest.raises(FileNotFoundError, match=r"index\.jsonl"):
        episodes_of(tmp_path)
