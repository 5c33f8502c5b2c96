"""TensorRT-RTX: the native TensorRT backend with another module, for RTX cards.

It comes from PyPI, and it builds engines without a GPU (`fsseg engine build --device none`), which
is how the project's tests build every graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .graph import BackendStatus, GraphSpec
from .tensorrt import FILES, TensorRtGraph, devices, probe_backend
from .tensorrt.opening import open_engine

__all__ = ["FILES", "devices", "open_graph", "probe"]

NAME = "tensorrt-rtx"


def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> TensorRtGraph:
    """As `tensorrt.open_graph`."""
    return open_engine(NAME, data, spec, device=device, precision=precision)


def probe(
    data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """As `tensorrt.probe`."""
    return probe_backend(NAME, data, spec, feeds, device)
