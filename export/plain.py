"""The graph that other precisions are made from: float32 weights, constants folded, types known;
and how such files are run to be measured: in ONNX Runtime, any tensor as an output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fsseg_sdk.backends import GraphSpec, TensorInfo

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it counts when onnxruntime is imported

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def plain(data: bytes) -> ModelProto:
    """A graph of ours with what does not depend on its inputs computed: weights that are stored in
    float16 are float32 again, positions are interpolated, weights are sliced and transposed.

    Tensors keep their names. Every tensor's type and shape is in ``value_info``, as far as ONNX's
    inference finds it.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    _name_nodes(model)
    known = {initialiser.name for initialiser in graph.initializer}
    folded, left = [], []
    for node in graph.node:
        constant = all(name in known for name in node.input if name)
        if constant and "" not in node.output:
            folded.append(node)
            known.update(node.output)
        else:
            left.append(node)
    made = {name for node in folded for name in node.output}
    taken = {name for node in left for name in node.input} | {o.name for o in graph.output}
    wanted = sorted(made & taken)
    values = _computed(model, folded, wanted) if wanted else {}
    inputs = {name for node in left for name in node.input}
    initialisers = [i for i in graph.initializer if i.name in inputs]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(left)
    graph.initializer.extend(initialisers)
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in wanted)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_nodes(model: ModelProto) -> None:
    """Each node a name of its own: that is how layers are spoken of."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"node_{node.op_type}_{index}"
        taken.add(node.name)


def _computed(
    model: ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]
) -> dict[str, NDArray[np.generic]]:

    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [i for i in model.graph.initializer if i.name in used],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    inferred = onnx.shape_inference.infer_shapes(part)
    types = {value.name: value for value in inferred.graph.value_info}
    for value in part.graph.output:
        if value.name in types:
            value.CopyFrom(types[value.name])
    session = session_of(part.SerializeToString(), optimise=False)
    return dict(zip(wanted, session.run(wanted, {}), strict=True))


def fixed_to_one(model: ModelProto) -> ModelProto:
    """The same graph for one picture a call: the first axes that were free are 1."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.HasField("dim_value"):
            first.dim_value = 1
    copy = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def one_picture(spec: GraphSpec) -> GraphSpec:
    """What `fixed_to_one` makes of the graph."""

    def fixed(infos: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
        return tuple(replace(i, shape=(1, *i.shape[1:])) for i in infos)

    return replace(spec, inputs=fixed(spec.inputs), outputs=fixed(spec.outputs))


def types_of(model: ModelProto) -> dict[str, int]:
    """Each tensor's `TensorProto` type, by name."""
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {
        **{value.name: value.type.tensor_type.elem_type for value in values},
        **{initialiser.name: initialiser.data_type for initialiser in graph.initializer},
    }


def session_of(data: bytes, optimise: bool = True) -> Any:
    """An `InferenceSession` on the CPU. optimise: False computes node by node, as written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def with_outputs(model: onnx.ModelProto, names: Sequence[str], kind: int) -> bytes:
    """The model with these tensors, of the element type `kind`, among its outputs."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    there = {value.name for value in wider.graph.output}
    for name in names:
        if name not in there:
            wider.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return wider.SerializeToString()
