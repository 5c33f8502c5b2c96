"""int8: the graph with its convolutions and products between QuantizeLinear and DequantizeLinear.

Two flavours, because runtimes differ. "s8s8": activations int8 around zero, biases in float32,
which TensorRT accepts and OpenVINO computes rightly. "u8s8": activations uint8 with a zero
point, biases int32, which is what ONNX Runtime's kernels for x86 take; they run the other one on a
slow path.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, helper

from export.onnx_graph import OPSET

Flavour = Literal["s8s8", "u8s8"]
FLAVOURS: tuple[Flavour, ...] = ("s8s8", "u8s8")
WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
CARRIED = ("Relu", "Clip", "MaxPool", "Add")
"""Between quantised convolutions these stay in int8; in a graph without them, a transformer's Add
and the like keep what they have."""


@dataclass(frozen=True)
class Range:
    """What a tensor's values lay between on the calibration pictures."""

    lowest: float
    highest: float


def layers_of(model: ModelProto) -> list[str]:
    """Names of the nodes that int8 is for, in order: those that multiply with weights."""
    weights = {initialiser.name for initialiser in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in WITH_WEIGHTS and node.input[1] in weights
    ]


def carried(model: ModelProto, layers: Collection[str]) -> list[str]:
    """Names of the nodes that only hand on int8: each of their inputs that is no weight comes from
    a quantised layer or from another such node."""
    weights = {initialiser.name for initialiser in model.graph.initializer}
    wanted, inside, names = set(layers), set(), []
    for node in model.graph.node:
        taken = [name for name in node.input if name and name not in weights]
        convolution = node.op_type == "Conv" and node.name in wanted
        handed = node.op_type in CARRIED and taken and all(name in inside for name in taken)
        if handed and not (node.op_type == "Add" and len(taken) < 2):
            names.append(node.name)
        if convolution or node.name in names[-1:]:
            inside.update(node.output)
    return names


def tensors_to_measure(model: ModelProto) -> list[str]:
    """Names of the float tensors whose ranges `quantised` may need."""
    layers = layers_of(model)
    chosen = {*layers, *carried(model, layers)}
    weights = {initialiser.name for initialiser in model.graph.initializer}
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in chosen:
            names.update(dict.fromkeys(n for n in (*node.input, *node.output) if n not in weights))
    return [name for name in names if name]


def quantised(
    model: ModelProto,
    ranges: Mapping[str, Range],
    flavour: Flavour,
    keep: Collection[str] = (),
) -> bytes:
    """An int8 graph, per channel.

    Args:
        model: see `export.plain.plain`.
        ranges: of each of `tensors_to_measure`.
        keep: layers that stay in float32.

    Raises:
        ValueError: the graph's opset is above 20, which the quantiser does not support, or `keep`
            names no layer of it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    opset = max(entry.version for entry in model.opset_import)
    if opset > OPSET:
        raise ValueError(f"expected a graph of opset {OPSET} or below, got opset {opset}")
    layers = layers_of(model)
    if unknown := sorted(set(keep) - set(layers)):
        raise ValueError(f"keep: expected layers of the graph, got {', '.join(unknown[:5])}")
    layers = [name for name in layers if name not in keep]
    if not layers:  # the quantiser would take no names for all of them
        return model.SerializeToString()
    symmetric = flavour == "s8s8"
    data = {
        name: TensorData(
            lowest=np.array(each.lowest, np.float32), highest=np.array(each.highest, np.float32)
        )
        for name, each in ranges.items()
    }
    copy = ModelProto()
    copy.CopyFrom(model)
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "QuantizeBias": not symmetric,
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],
        "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    }
    with _quiet():
        quantiser = QDQQuantizer(
            copy,
            True,
            False,
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            [*layers, *carried(model, layers)],
            [],
            [*WITH_WEIGHTS, *CARRIED],
            options,
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
    result: ModelProto = quantiser.model.model
    takers = {*layers, *(n.name for n in result.graph.node if n.op_type == "MaxPool")}
    if symmetric:
        _drop_needless(result, takers)
    else:
        _drop_needless(result, {*takers, *carried(model, layers)}, set(layers))
    return _tidy(result, opset).SerializeToString()


def _drop_needless(
    model: ModelProto, wanting: Collection[str], behind: Collection[str] | None = None
) -> None:
    """Leave a tensor unrounded that none of the nodes `wanting` takes, and, unless `behind` is
    None, that one of the nodes `behind` gives.

    s8s8: TensorRT and OpenVINO join what lies between two roundings to one kernel: convolution,
    addition and Relu. One more rounding between them costs accuracy and keeps them apart; and
    OpenVINO 2026.4 computes a convolution wrongly whose rounded result is reshaped (a ViT's
    patches). u8s8: ONNX Runtime convolves in int8 only where the result is rounded, so most have to
    be; but eight bits for a ViT's patches, or for its features, cost much, and one convolution in
    float32 costs little time.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        first = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if first is None or first.op_type != "QuantizeLinear":
            continue  # of a weight
        there = takers.get(node.output[0], [])
        exact, rounded = first.input[0], node.output[0]
        if any(taker.name in wanting for taker in there):
            continue
        if behind is not None and producers[exact].name not in behind:
            continue
        if rounded in outputs:  # the quantiser has renamed what computes it
            source = producers[exact]
            source.output[list(source.output).index(exact)] = rounded
            for taker in takers[exact]:
                _rename(taker, exact, rounded)
        for taker in takers.get(rounded, []):
            _rename(taker, rounded, exact)
        gone += [first, node]
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [initialiser for initialiser in graph.initializer if initialiser.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _tidy(model: ModelProto, opset: int) -> ModelProto:
    """Only ONNX's own operators, and nothing that the quantiser says of itself."""
    used = {node.domain for node in model.graph.node}
    if used - {"", "ai.onnx"}:
        raise ValueError(f"expected standard ONNX operators only, got domains {sorted(used)}")
    del model.opset_import[:], model.metadata_props[:], model.graph.value_info[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.producer_name, model.producer_version = "fsseg_sdk", ""
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's remarks on every tensor."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
