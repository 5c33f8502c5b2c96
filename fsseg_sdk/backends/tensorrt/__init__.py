"""Native TensorRT: an engine for the GPU that is here, built from the ONNX file and cached.

The driver is asked first; without one nothing of TensorRT is imported, and `auto` goes on to the
next backend at once. TensorRT-RTX is the same code with another module: see `tensorrt_rtx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, KernelError
from ..graph import BackendStatus, GraphSpec
from .driver import choose_device, probe_driver
from .module import find_module
from .opening import build_engine, open_engine
from .options import BuildOptions, read_options
from .runtime import TensorRtGraph

__all__ = [
    "FILES",
    "BuildOptions",
    "TensorRtGraph",
    "build_engine",
    "devices",
    "open_graph",
    "probe",
    "probe_backend",
    "probe_driver",
    "read_options",
]

NAME = "tensorrt"
FILES = MappingProxyType(
    {
        "fp32": (("float32", ""),),
        "bf16": (("bfloat16", ""),),
        "fp16": (("float16", ""),),
        "int8": (("int8", "s8s8"), ("int8", "")),  # the parser sees whether zero points are 0
    }
)
PRECISIONS = tuple(FILES)


def devices() -> tuple[str, ...]:
    """The first GPU; whether there is one shows when it is asked for."""
    return ("cuda",)


def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> TensorRtGraph:
    """The checked ONNX file `data` as an engine on the GPU: from the cache, or built now (seconds
    to minutes, once). threads: not used, the GPU does the work. Raises BackendError."""
    return open_engine(NAME, data, spec, device=device, precision=precision)


def probe(
    data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """Builds and runs the graph features = image + 1 where a driver is; says how that went."""
    return probe_backend(NAME, data, spec, feeds, device)


def probe_backend(
    name: str, data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """`probe` for the backend `name`, "tensorrt" or "tensorrt-rtx"; on arrays of the device, too,
    where it takes those. Raises InputError for settings
    in the environment that are out of range."""
    version: str | None = None
    try:
        choose_device(device, name)
        version = str(find_module(name).__version__)
        graph = open_engine(name, data, spec, device=device, precision="auto")
        made = [graph.run(feeds)["features"]]
        if (context := graph.context) is not None:
            arrays = {name: context.array(array) for name, array in feeds.items()}
            made.append(graph.run_on_device(arrays)["features"].to_host())
        right = all(np.array_equal(features, feeds["image"] + 1) for features in made)
    except (BackendError, KernelError) as error:
        return BackendStatus(name, False, str(error), version, device, PRECISIONS)
    reason = "" if right else "it computes 1 + 1 wrongly on this machine"
    return BackendStatus(name, right, reason, version, device, PRECISIONS)
