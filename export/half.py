"""fp16 and bf16: the graph computed in half precision, float32 at its borders.

Strongly typed, as TensorRT wants it: every tensor has a type of its own, and a Cast stands wherever
two meet. Weights are rounded once, to the nearest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.plain import types_of

Half = Literal["float16", "bfloat16"]
KINDS: dict[Half, int] = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}

FULL = frozenset(
    (
        "ReduceL1",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Cast",
        "ConstantOfShape",
    )
)
"""Stay in float32. Sums of squares of a ViT's keys leave float16's range; the others are here
because they sum too, or because their type is in an attribute."""
SMALLEST = 2.0**-14  # float16's below it lose bits, or are 0 where a machine does not know them
SHAPES = frozenset(("Shape", "Size"))  # of any type, and the answer does not depend on it
ALWAYS_FLOAT = {"Resize": (1, 2)}  # inputs that ONNX defines as float32


def to_half(model: ModelProto, kind: Half) -> bytes:
    """The same inputs and outputs, computed in `kind` between.

    Args:
        model: see `export.plain.plain`.

    Raises:
        ValueError: a weight is beyond float16's range.
    """
    return _Conversion(model, kind).result()


class _Conversion:
    """One run of `to_half`: which tensors there are in which type."""

    def __init__(self, model: ModelProto, kind: Half) -> None:
        self.model, self.kind = model, kind
        self.types = types_of(model)
        self.weights = {i.name: i for i in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.there = {(value.name, False) for value in model.graph.input}  # (name, in half?)
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self.guarded: set[str] = set()  # kept from 0 by a number too small for `kind`

    def result(self) -> bytes:
        for node in self.model.graph.node:
            self._node(node)
        for name in sorted(self.outputs):
            self._cast(name, half=False)
        result = ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        result.graph.initializer.extend(self.initialisers.values())
        onnx.checker.check_model(_typed(result), full_check=True)
        return result.SerializeToString()

    def _node(self, node: NodeProto) -> None:
        floats = any(self._is_float(name) for name in (*node.input, *node.output))
        full = node.op_type in FULL or self._guards(node)
        half = floats and not full
        new = NodeProto()
        new.CopyFrom(node)
        always = ALWAYS_FLOAT.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if node.op_type in SHAPES and (name, True) in self.there:
                new.input[index] = _named(name, True)
            else:
                wanted = half and node.op_type not in SHAPES and index not in always
                new.input[index] = self._cast(name, wanted)
        for index, name in enumerate(node.output):
            if self._is_float(name):
                new.output[index] = _named(name, half)
                self.there.add((name, half))
        self.nodes.append(new)

    def _guards(self, node: NodeProto) -> bool:
        """Whether the node keeps a divisor from 0, as x / max(|x|, 1e-12) does, or divides by it:
        with 1e-12 as 0, which it is in float16, 0 / 0 would follow."""
        if node.op_type in ("Clip", "Max", "Add") and self.kind == "float16":
            constants = [self.weights[name] for name in node.input if name in self.weights]
            small = (numpy_helper.to_array(c) for c in constants if self._is_float(c.name))
            if any(bool(((v > 0) & (v < SMALLEST)).any()) for v in small if v.size == 1):
                self.guarded.update(node.output)
                return True
        if node.op_type in ("Expand", "Sqrt", "Reshape") and node.input[0] in self.guarded:
            self.guarded.update(node.output)
            return True
        return node.op_type == "Div" and node.input[1] in self.guarded

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT

    def _cast(self, name: str, half: bool) -> str:
        """The tensor's name in that type; a Cast is added if there is none of it yet."""
        if name in self.weights:
            return self._weight(self.weights[name], half and self._is_float(name))
        if not self._is_float(name):
            return name
        if (name, half) not in self.there:
            source, target = _named(name, not half), _named(name, half)
            to = KINDS[self.kind] if half else TensorProto.FLOAT
            self.nodes.append(
                helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=to)
            )
            self.there.add((name, half))
        return _named(name, half)

    def _weight(self, weight: TensorProto, half: bool) -> str:
        name = _named(weight.name, half)
        if name not in self.initialisers:
            kept = weight
            if half:
                kept = rounded(numpy_helper.to_array(weight), self.kind, weight.name, name)
            self.initialisers[name] = kept
        return name


def _named(name: str, half: bool) -> str:
    return f"{name}.half" if half else name


def rounded(values: NDArray[np.generic], kind: Half, shown: str, name: str) -> TensorProto:
    """Float32 values as a tensor of that type. shown: what errors call it."""
    array = np.ascontiguousarray(values, np.float32)
    if kind == "float16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            largest = float(np.abs(array).max())
            raise ValueError(f"{shown}: expected weights in float16's range, got {largest:.3g}")
        return numpy_helper.from_array(half, name)
    bits = array.view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # ties to even
    return helper.make_tensor(
        name, TensorProto.BFLOAT16, array.shape, nearest.astype("<u2").tobytes(), raw=True
    )


def simulated(data: bytes) -> ModelProto:
    """A half-precision graph as one that any runtime computes: in float32, each result rounded to
    the type that the graph gives it. What a machine gives that sums in float32, as all of them do;
    ONNX Runtime's CPU has no kernels of its own for most of it."""
    model = onnx.load_from_string(data)
    types, halves = types_of(_typed(model)), set(KINDS.values())
    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" and types.get(node.input[0]) in halves:
            nodes.append(helper.make_node("Identity", node.input, node.output, name=node.name))
            continue
        new = NodeProto()
        new.CopyFrom(node)
        after = []
        for index, name in enumerate(node.output):
            if types.get(name) in halves:
                raw, low = f"{name}.exact", f"{name}.low"
                new.output[index] = raw
                if node.op_type == "Cast":
                    new = helper.make_node("Identity", node.input, [raw], name=node.name)
                kind = types[name]
                after += [
                    helper.make_node("Cast", [raw], [low], name=low, to=kind),
                    helper.make_node("Cast", [low], [name], name=f"{name}.back", to=1),
                ]
        nodes += [new, *after]
    weights = [
        numpy_helper.from_array(numpy_helper.to_array(i).astype(np.float32), i.name)
        if i.data_type in halves
        else i
        for i in graph.initializer
    ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    kept = [TensorProto.FromString(w.SerializeToString()) for w in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model


def _typed(model: ModelProto) -> ModelProto:
    """A copy that knows the type of every tensor. Convolutions of bfloat16 are in ONNX from opset
    22 on; TensorRT has them in any, and old ones of it know no opset 22: so only the copy has."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.opset_import[:]
    copy.opset_import.append(helper.make_opsetid("", 22))
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


__all__ = ["FULL", "KINDS", "Half", "rounded", "simulated", "to_half"]
