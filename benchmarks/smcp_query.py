"""A query of SMCP through the SDK, against one as the paper's code does it, in torch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pictures import Pictures, pictures_of
from benchmarks.smcp_model import Array, Model
from benchmarks.timing import clock_of, medians
from fsseg_sdk.errors import BackendError

BACKENDS = {"fp32": "onnxruntime", "bf16": "openvino"}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Query:
    """The query in one precision; how long its parts took."""

    def __init__(self, model: Model, precision: str, pictures: Pictures) -> None:
        self.graphs = model.graphs(BACKENDS[precision], precision)
        segmenter, support = model.segmenter(self.graphs), (pictures.support, pictures.mask)
        self.task = segmenter.prepare({"bolt": [support]})
        self.picture, self.clock = pictures.query, clock_of(model.threads)
        self.encoder: list[float] = []
        self.beside: list[float] = []  # all but the heads, in runs of the encoder

    def __call__(self) -> None:
        before = {name: graph.seconds for name, graph in self.graphs.items()}
        begin = self.clock()
        self.task.segment(self.picture)
        whole = self.clock() - begin
        spent = {name: graph.seconds - before[name] for name, graph in self.graphs.items()}
        encoder = spent.pop("encoder")
        self.encoder.append(encoder)
        self.beside.append((whole - sum(spent.values())) / encoder)


def measure_query(model: Model, seconds: float) -> dict[str, Any]:
    """Seconds of a query, pictures as arrays: through the SDK in each precision that runs here, and
    in published style in torch's."""
    pictures = pictures_of((model.side, model.side))
    queries: dict[str, Query] = {}
    refused = {}
    for precision in BACKENDS:
        try:
            queries[precision] = Query(model, precision, pictures)
        except BackendError as error:
            refused[precision] = str(error)
    styles = {
        f"published {p}": published_style(model.encoder, model.head, kind, pictures)
        for p, kind in TYPES.items()
    }
    times = medians({**queries, **styles}, seconds, 3, clock_of(model.threads))
    return {
        "seconds": times,
        "encoder": {p: float(np.median(query.encoder[1:])) for p, query in queries.items()},
        "without_head": float(np.median(queries["fp32"].beside[1:])),
        "times_faster": {
            f"{p}, {style}": times[style] / times[p] for p in queries for style in styles
        },
        "refused": refused,
    }


def published_style(
    encoder: Any, head: Any, kind: torch.dtype, pictures: Pictures
) -> Callable[[], Tensor]:
    """Two pictures in, labels out, all of it in that type. The pictures are of the input's size;
    they are made into tensors beforehand."""
    means, deviations = (np.array(x, np.float32) for x in (encoder.mean, encoder.std))
    encoder, head = (deepcopy(part).to(kind) for part in (encoder, head))

    def tensor(pixels: Array) -> Tensor:
        normal = (pixels.astype(np.float32) / 255 - means) / deviations
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))[None].to(kind)

    shown, asked = tensor(pictures.support), tensor(pictures.query)
    own = torch.from_numpy(pictures.mask)[None, None].to(kind)

    def pooled(features: Tensor, weights: Tensor) -> Tensor:
        large = F.interpolate(features, weights.shape[-2:], mode="bilinear", align_corners=False)
        return (large * weights).sum((2, 3)) / (weights.sum() + 1e-5)

    def labels(features: Tensor, prototype: Tensor) -> Tensor:
        scores = head(features, prototype).softmax(1)
        large = F.interpolate(scores, asked.shape[-2:], mode="bilinear", align_corners=False)
        return large.argmax(1, keepdim=True)

    @torch.inference_mode()
    def segment() -> Tensor:
        prototype = pooled(encoder(shown), own)
        features = encoder(asked)
        pseudo = pooled(features, labels(features, prototype).to(kind))
        return labels(features, (prototype + pseudo) / 2)

    return segment
