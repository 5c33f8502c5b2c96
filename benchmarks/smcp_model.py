"""SMCP with random weights: in torch, as the graphs of a bundle, and as one plain graph."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from benchmarks.timing import TimedGraph, clock_of
from export.head import head_to_onnx
from export.onnx_graph import graph_to_onnx, to_onnx
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph
from training.encoders import build_encoder
from training.heads import parts_of
from training.smcp.head import Head, HeadSettings

Array = NDArray[Any]


@dataclass(frozen=True)
class Model:
    """An encoder and a head, in torch and as ONNX files. plain: the definition as one graph."""

    name: str
    encoder: Any
    head: Head
    side: int
    grid: tuple[int, int]
    files: Mapping[str, tuple[bytes, GraphSpec]]
    plain: Graph
    threads: int

    def graphs(self, backend: str, precision: str) -> dict[str, TimedGraph]:
        """Raises BackendError where this machine has no such backend or precision."""
        own = {"backend": backend, "device": "cpu", "precision": precision, "threads": self.threads}
        clock = clock_of(self.threads)
        return {
            name: TimedGraph(open_graph(data, spec, **own), clock)  # type: ignore[arg-type]
            for name, (data, spec) in self.files.items()
        }

    def segmenter(self, graphs: Mapping[str, Graph]) -> Segmenter:
        return Segmenter(graphs, self.settings("smcp"), threads=self.threads)

    def settings(self, method: str) -> dict[str, Any]:
        """As in a bundle's manifest."""
        return {
            "method": {"name": method},
            "input": {
                "size": [self.side, self.side],
                "geometry": "squash",
                "mean": list(self.encoder.mean),
                "std": list(self.encoder.std),
            },
            "features": {"channels": self.head.channels, "grid": list(self.grid)},
        }


def modules(name: str, form: Any, width: int) -> tuple[Any, Head]:
    """The encoder and the head in torch: the same weights at every call."""
    torch.manual_seed(0)
    encoder: Any = build_encoder(name).eval()
    head = Head(int(encoder.channels), HeadSettings(form, width=width)).eval()
    first: Any = head.classifier.parts[0]
    with torch.no_grad():
        first.bias[1] += 1e5  # something is found, so there is a second pass
    return encoder, head


def opened(name: str, form: Any, options: argparse.Namespace) -> Model:
    encoder, head = modules(name, form, options.width)
    with torch.no_grad():
        grid = encoder(torch.zeros(1, 3, options.side, options.side)).shape[-2:]
    rows, columns = int(grid[0]), int(grid[1])
    size = (options.side, options.side)
    image = TensorInfo("image", "float32", (-1, 3, *size))
    features = TensorInfo("features", "float32", (-1, head.channels, rows, columns))
    prototypes = TensorInfo("prototypes", "float32", (-1, head.channels))
    logits = TensorInfo("logits", "float32", (-1, 2, rows, columns))
    parts = parts_of(head, "smcp", (rows, columns))
    specs = {name: part.spec for name, part in parts.items()}
    specs["encoder"] = GraphSpec("encoder.onnx", (image,), (features,))
    plain = GraphSpec("plain.onnx", (features, prototypes), (logits,))
    examples = {info.name: torch.zeros(2, *info.shape[1:]) for info in plain.inputs}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not needed here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own versions
        data = {"encoder": to_onnx(encoder, size), **head_to_onnx(parts)}
        whole = graph_to_onnx(head, examples, "logits", set(examples))
    files = {key: (graph, specs[key]) for key, graph in data.items()}
    opened_plain = open_graph(whole, plain, backend="onnxruntime", threads=options.threads)
    own = (options.side, (rows, columns), files, opened_plain, options.threads)
    return Model(name, encoder, head, *own)
