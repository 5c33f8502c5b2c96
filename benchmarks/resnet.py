"""A ResNet-50 at 473 x 473, exported and run by ONNX Runtime behind the SDK: what papers measure.

Its weights are random: speed does not depend on them.
"""

from __future__ import annotations

import logging
import os
import warnings
from functools import cache
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import torch

from benchmarks.methods import Conditioner
from export.onnx_graph import to_onnx
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph
from training.encoders import build_encoder

SIDE, GRID, CHANNELS = 473, 60, 1024


def segmenter(
    threads: int, method: str = "panet", changes: Any = None, graph: Graph | None = None
) -> Segmenter:
    """``image [B, 3, 473, 473] -> features [B, 1024, 60, 60]``, fp32. changes: settings of the
    method; graph: another form of `encoder_graph`."""
    encoder, own = _encoder(threads)
    graph = graph or own
    settings = {
        "name": "ResNet-50",
        "method": {"name": method, "settings": changes or {}},
        "input": {
            "size": [SIDE, SIDE],
            "geometry": "squash",
            "mean": list(encoder.mean),
            "std": list(encoder.std),
        },
        "features": {"channels": CHANNELS, "grid": [GRID, GRID]},
    }
    graphs = {"encoder": graph}
    if method == "oslsm":
        graphs["oslsm_conditioner"] = Conditioner(graph)
    return Segmenter(graphs, settings, threads=threads)


def encoder_graph(threads: int) -> Graph:
    """The same one for all."""
    return _encoder(threads)[1]


@cache
def _encoder(threads: int) -> tuple[Any, Graph]:
    torch.manual_seed(0)
    encoder: Any = build_encoder("resnet50").eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not needed here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own versions
        data = to_onnx(encoder, (SIDE, SIDE))
    spec = GraphSpec(
        "encoder.onnx",
        (TensorInfo("image", "float32", (-1, 3, SIDE, SIDE)),),
        (TensorInfo("features", "float32", (-1, CHANNELS, GRID, GRID)),),
    )
    return encoder, open_graph(data, spec, threads=threads)
