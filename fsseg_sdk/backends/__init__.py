"""Backends: what runs a graph. One module per runtime behind the Graph protocol.

The way of a graph: `choice` picks the file, `onnx_check` looks through it, `opening` tries the
backends of `registry` in their order and hands the file to one of them. A backend's module has

- FILES: the files that it can run for each precision (see `choice`);
- devices(): what `device="auto"` tries, best first; no error, and nothing slow where there is none;
- open_graph(data, spec, *, device, precision, threads): a Graph of one checked file, or
  BackendError; device and precision are what was asked or chosen, never "auto";
- probe(data, spec, feeds, device): a BackendStatus, after running a small graph for real.

`auto` tries the backends of `order`, each on its devices, passes over what a probe (once in a
process) finds not to work here, and takes the first that can do what was asked. What it passed
over although it is installed and its device is there stands in the graph's `warnings`. A backend
that was named is used, or an error says why it cannot be: nothing falls back in silence.
"""

from __future__ import annotations

from .graph import (
    BackendStatus,
    DeviceGraph,
    Graph,
    GraphFile,
    GraphSpec,
    NotPrepared,
    TensorInfo,
)
from .opening import open_graph, open_graphs
from .probing import probe
from .registry import file_for, names, order

__all__ = [
    "BackendStatus",
    "DeviceGraph",
    "Graph",
    "GraphFile",
    "GraphSpec",
    "NotPrepared",
    "TensorInfo",
    "file_for",
    "names",
    "open_graph",
    "open_graphs",
    "order",
    "probe",
]
