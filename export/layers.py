"""Where the error of a lower precision grows: layer by layer, each by itself and as it adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.plain import session_of, with_outputs
from export.quantize import Flavour, Range, layers_of

Feeds = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class LayerError:
    """Squared error over squared value of a layer's output, by root: 0.01 is one per cent.

    alone: with exact inputs; NaN where that was not measured. summed: in the whole graph, with what
    the layers before it have added. kept: it stays in higher precision.
    """

    name: str
    operator: str
    alone: float
    summed: float
    kept: bool = False


def summed_errors(model: ModelProto, lower: ModelProto, feeds: Feeds) -> list[LayerError]:
    """The layers of `lower`, which computes what `model` does and names its tensors alike, or with
    ".half" behind, as `export.half` does."""
    there = {name for node in lower.graph.node for name in node.output}
    nodes = {node.name: node for node in model.graph.node}
    found: dict[str, str] = {}
    for layer in layers_of(model):
        output = nodes[layer].output[0]
        known = [name for name in (f"{output}.half", output) if name in there]
        if known:
            found[layer] = known[0]
    layers = [nodes[name] for name in found]
    names = [[node.output[0] for node in layers], list(found.values())]
    sessions = [
        session_of(with_outputs(each, own, TensorProto.FLOAT), optimise=False)
        for each, own in zip((model, lower), names, strict=True)
    ]
    errors, whole = np.zeros(len(layers)), np.zeros(len(layers))
    for feed in feeds:
        exact, lowered = (s.run(own, dict(feed)) for s, own in zip(sessions, names, strict=True))
        errors += [_energy(b - a) for a, b in zip(exact, lowered, strict=True)]
        whole += [_energy(a) for a in exact]
    shares = np.sqrt(errors / np.maximum(whole, 1e-30))
    return [
        LayerError(node.name, node.op_type, float("nan"), float(share))
        for node, share in zip(layers, shares, strict=True)
    ]


def errors_alone(
    model: ModelProto, ranges: Mapping[str, Range], flavour: Flavour, feeds: Feeds
) -> dict[str, float]:
    """For each layer, its error when it alone is quantised: weights and input, not its output."""
    twin = ModelProto()
    twin.CopyFrom(model)
    weights = {i.name: i for i in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    layers = [nodes[name] for name in layers_of(model)]
    rounded: dict[str, str] = {}
    for index, node in enumerate(layers):
        source = node.input[0]
        if source not in rounded:
            rounded[source] = _add_rounding(twin, source, ranges[source], flavour)
        weight = f"alone.weight.{index}"
        axis = 0 if node.op_type == "Conv" else -1
        values = _rounded_weight(numpy_helper.to_array(weights[node.input[1]]), axis)
        twin.graph.initializer.append(numpy_helper.from_array(values, weight))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.input[1] = rounded[source], weight
        copy.name, copy.output[0] = f"alone.{index}", f"alone.{index}"
        twin.graph.node.append(copy)
    names = [f"alone.{index}" for index in range(len(layers))] + [n.output[0] for n in layers]
    session = session_of(with_outputs(twin, names, TensorProto.FLOAT), optimise=False)
    errors, whole = np.zeros(len(layers)), np.zeros(len(layers))
    for feed in feeds:
        results = session.run(names, dict(feed))
        for index in range(len(layers)):
            exact = results[len(layers) + index]
            errors[index] += _energy(results[index] - exact)
            whole[index] += _energy(exact)
    shares = np.sqrt(errors / np.maximum(whole, 1e-30))
    return {node.name: float(share) for node, share in zip(layers, shares, strict=True)}


def _energy(values: NDArray[np.float32]) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _rounded_weight(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """To the nearest of 255 int8 steps of each output channel."""
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    scale = np.maximum(np.abs(values).max(others, keepdims=True) / 127, 1e-12)
    return (np.rint(values / scale) * scale).astype(np.float32)


def _add_rounding(model: ModelProto, name: str, bounds: Range, flavour: Flavour) -> str:
    """QuantizeLinear and DequantizeLinear behind a tensor; the name of what comes out."""
    if flavour == "s8s8":
        scale = max(abs(bounds.lowest), abs(bounds.highest)) / 127
        zero = np.array(0, np.int8)
    else:
        low, high = min(bounds.lowest, 0.0), max(bounds.highest, 0.0)
        scale = (high - low) / 255
        zero = np.array(round(-low / max(scale, 1e-12)), np.uint8)
    graph, parts = model.graph, [f"{name}.scale", f"{name}.zero"]
    value = np.array(max(scale, 1e-12), np.float32)
    graph.initializer.append(numpy_helper.from_array(value, parts[0]))
    graph.initializer.append(numpy_helper.from_array(zero, parts[1]))
    graph.node.append(helper.make_node("QuantizeLinear", [name, *parts], [f"{name}.steps"]))
    graph.node.append(
        helper.make_node("DequantizeLinear", [f"{name}.steps", *parts], [f"{name}.rounded"])
    )
    return f"{name}.rounded"


def layer_table(errors: Sequence[LayerError]) -> str:
    """One line a layer."""
    lines = [f"  {'layer':44} {'operator':8} {'alone':>8} {'summed':>8}"]
    for each in errors:
        alone = "" if np.isnan(each.alone) else f"{each.alone:.2%}"
        kept = "  kept in higher precision" if each.kept else ""
        lines.append(f"  {each.name:44} {each.operator:8} {alone:>8} {each.summed:>8.2%}{kept}")
    return "\n".join(lines)
