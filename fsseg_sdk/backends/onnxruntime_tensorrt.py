"""ONNX Runtime with its TensorRT provider: by name alone, `auto` never takes it.

It builds an engine whenever a graph is opened or meets a new batch length, which takes minutes,
and its own cache of engines is not used: that has answered with engines of another GPU and of
another graph. What the backend "tensorrt" can do is better done by that. The provider of
onnxruntime-gpu 1.31 is linked against TensorRT 10, so it needs tensorrt 10.16 beside it.

This has never run on a GPU; its logic is tested without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .checks import cannot, choose_threads
from .graph import BackendStatus, GraphSpec
from .onnxruntime import CUDA, OnnxRuntimeGraph, preload_cuda
from .ort_session import CPU, Provider, import_runtime, open_session

__all__ = ["FILES", "devices", "open_graph", "probe"]

NAME = "onnxruntime-tensorrt"
INSTALL = "pip install fsseg_sdk[gpu] 'tensorrt==10.16.*'"
TENSORRT = "TensorrtExecutionProvider"
FILES = MappingProxyType(
    {
        "fp32": (("float32", ""),),
        "bf16": (("bfloat16", ""),),
        "fp16": (("float16", ""),),
        "int8": (("int8", "s8s8"),),  # TensorRT takes no zero point but 0
    }
)
_SWITCHES = {"bf16": "trt_bf16_enable", "fp16": "trt_fp16_enable", "int8": "trt_int8_enable"}
_TF32 = "TensorRT may round float32 to TF32: set NVIDIA_TF32_OVERRIDE=0 to be sure that it does not"


def devices() -> tuple[str, ...]:
    return ("cuda",)


def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> OnnxRuntimeGraph:
    """A session for the checked ONNX file `data`; builds an engine. Raises BackendError."""
    if device != "cuda":
        raise cannot(NAME, "device", "'cuda'", repr(device))
    runtime = import_runtime(NAME, INSTALL)
    preload_cuda(runtime)
    switches = {_SWITCHES[precision]: "1"} if precision in _SWITCHES else {}
    providers: list[Provider] = [(TENSORRT, switches), (CUDA, {"use_tf32": "0"}), CPU]
    session = open_session(runtime, data, spec, providers, choose_threads(threads), NAME)
    graph = OnnxRuntimeGraph(
        session,
        spec,
        backend=NAME,
        device=device,
        precision=precision,
        warnings=(_TF32,) if precision == "fp32" else (),
    )
    graph.warm_up()
    return graph


def probe(
    data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """Builds an engine of the graph features = image + 1, runs it and says how that went."""
    version: str | None = None
    try:
        version = str(import_runtime(NAME, INSTALL).__version__)
        graph = open_graph(data, spec, device=device, precision="fp32", threads=1)
        right = np.array_equal(graph.run(feeds)["features"], feeds["image"] + 1)
    except BackendError as error:
        return BackendStatus(NAME, False, str(error), version, device, tuple(FILES))
    reason = "" if right else "it computes 1 + 1 wrongly on this machine"
    return BackendStatus(NAME, right, reason, version, device, tuple(FILES))
