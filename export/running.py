"""ONNX files in ONNX Runtime as they are, for measuring: one thread, any tensor as an output."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnx
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


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
