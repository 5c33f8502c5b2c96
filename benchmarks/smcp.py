"""SMCP: two passes of the head as graphs that share, against two plain passes; a query of it.

    taskset -c 0 python -m benchmarks smcp [--seconds S] [--encoders NAME ...] [--sections passes]

Weights are random; speed does not depend on them. "Plain" is the definition, features and tiled
prototype concatenated, as one graph in the same runtime. With one thread, passes are timed by that
thread's own clock, so that other work on the machine does not count. "Published style" is a query
as the paper's code does it, in torch: the support is encoded for every query, and features are
upsampled to be pooled.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.pictures import pictures_of  # noqa: E402
from benchmarks.timing import medians  # noqa: E402
from export.head import head_to_onnx  # noqa: E402
from export.onnx_graph import graph_to_onnx, to_onnx  # noqa: E402
from fsseg_sdk import Segmenter  # noqa: E402
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph  # noqa: E402
from training.encoders import build_encoder  # noqa: E402
from training.heads import parts_of  # noqa: E402
from training.smcp.head import Head, HeadSettings  # noqa: E402

FORMS = ("paper", "official")
PASSES = {  # largest share of two plain passes, in percent
    ("vgg16_smcp", "paper"): 60.0,
    ("resnet50", "paper"): 50.0,
    ("vgg16_smcp", "official"): 76.0,
    ("resnet50", "official"): 64.0,
}
BESIDE = 1.02  # a query without its head, in runs of the encoder
FASTER = {"vgg16_smcp": 2.5, "resnet50": 5.0}  # than published style
_Array = NDArray[Any]


class TimedGraph:
    """A graph and the seconds that it has run."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.seconds = graph, 0.0
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.backend, self.device, self.precision = graph.backend, graph.device, graph.precision

    def run(self, feeds: Mapping[str, _Array]) -> dict[str, _Array]:
        begin = time.perf_counter()
        found = self.graph.run(feeds)
        self.seconds += time.perf_counter() - begin
        return found


@dataclass(frozen=True)
class Model:
    """An encoder and a head, in torch and as graphs of ONNX Runtime."""

    encoder: Any
    head: Head
    side: int
    grid: tuple[int, int]
    graphs: Mapping[str, TimedGraph]
    plain: Graph

    def segmenter(self, threads: int) -> Segmenter:
        settings = {
            "method": {"name": "smcp"},
            "input": {
                "size": [self.side, self.side],
                "geometry": "squash",
                "mean": list(self.encoder.mean),
                "std": list(self.encoder.std),
            },
            "features": {"channels": self.head.channels, "grid": list(self.grid)},
        }
        return Segmenter(self.graphs, settings, threads=threads)


def main(arguments: Sequence[str]) -> int:
    parser = report.command("smcp", __doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each measurement")
    parser.add_argument("--encoders", nargs="+", default=["vgg16_smcp", "resnet50"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--side", type=int, default=417, help="of the encoder's input")
    parser.add_argument("--width", type=int, default=512, help="channels of the head")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(report.where())
    results: dict[str, Any] = {}
    for name in options.encoders:
        for form in options.forms:
            model = opened(name, form, options)
            row = {}
            for section, measure in SECTIONS.items():
                row.update(measure(model, options) if section in options.sections else {})
            results[f"{name}, {form}"] = row
            _show(name, form, model, row)
    report.write_report(options.json, options, results)
    if options.plot and "passes" in options.sections:
        panels = {k: {p: 1e3 * r[p] for p in ("plain", "split")} for k, r in results.items()}
        report.bars(options.plot, [("two passes of the head", panels, "ms, median")])
    return 0


def opened(name: str, form: Any, options: argparse.Namespace) -> Model:
    torch.manual_seed(0)
    encoder: Any = build_encoder(name).eval()
    head = Head(int(encoder.channels), HeadSettings(form, width=options.width)).eval()
    first: Any = head.classifier.parts[0]
    with torch.no_grad():
        first.bias[1] += 1e5  # something is found, so there is a second pass
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
    graphs = {
        key: TimedGraph(open_graph(graph, specs[key], threads=options.threads))
        for key, graph in data.items()
    }
    opened_plain = open_graph(whole, plain, threads=options.threads)
    return Model(encoder, head, options.side, (rows, columns), graphs, opened_plain)


def measure_passes(model: Model, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the graphs of two passes, without the pooling between them."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1, model.head.channels, *model.grid), np.float32)
    first, second = rng.standard_normal((2, 1, model.head.channels), np.float32)
    graphs = model.graphs
    shares = graphs["smcp_prototype"].run({"prototypes": first})["shares"]  # once a task

    def plain() -> list[_Array]:
        feeds = ({"features": features, "prototypes": p} for p in (first, second))
        return [model.plain.run(f)["logits"] for f in feeds]

    def split() -> list[_Array]:
        query = graphs["smcp_query"].run({"features": features})["query"]
        one = graphs["smcp_head"].run({"query": query, "shares": shares})["logits"]
        fused = graphs["smcp_prototype"].run({"prototypes": second})["shares"]
        return [one, graphs["smcp_head"].run({"query": query, "shares": fused})["logits"]]

    for expected, found in zip(plain(), split(), strict=True):
        largest = np.abs(expected[:, 0]).max()
        if not np.abs(found - expected)[:, 0].max() <= 1e-4 * largest:
            raise ValueError("plain and split: expected the same logits, got others.")
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    times = medians({"plain": plain, "split": split}, options.seconds, 3, clock)
    return {**times, "share_percent": 100 * times["split"] / times["plain"]}


def measure_query(model: Model, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a query through the SDK and in published style, pictures as arrays."""
    pictures = pictures_of((model.side, model.side))
    task = model.segmenter(options.threads).prepare({"bolt": [(pictures.support, pictures.mask)]})
    encoder, spent = model.graphs["encoder"], {"encoder": [0.0], "beside": [0.0]}
    heads = [graph for name, graph in model.graphs.items() if name != "encoder"]

    def query() -> None:
        before = encoder.seconds, sum(graph.seconds for graph in heads)
        begin = time.perf_counter()
        task.segment(pictures.query)
        whole = time.perf_counter() - begin
        spent["encoder"].append(encoder.seconds - before[0])
        within = sum(graph.seconds for graph in heads) - before[1]
        spent["beside"].append((whole - within) / spent["encoder"][-1])

    style = published_style(model, pictures.support, pictures.mask, pictures.query)
    times = medians({"query": query, "published": style}, options.seconds, 3)
    return {
        **times,
        "encoder": float(np.median(spent["encoder"][2:])),
        "without_head": float(np.median(spent["beside"][2:])),
        "times_faster": times["published"] / times["query"],
    }


def published_style(
    model: Model, support: _Array, mask: _Array, query: _Array
) -> Callable[[], Tensor]:
    """Two pictures in, labels out. The pictures are of the input's size; they are made into
    tensors beforehand."""
    means, deviations = (np.array(x, np.float32) for x in (model.encoder.mean, model.encoder.std))

    def tensor(pixels: _Array) -> Tensor:
        normal = (pixels.astype(np.float32) / 255 - means) / deviations
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))[None]

    shown, asked = tensor(support), tensor(query)
    own = torch.from_numpy(mask.astype(np.float32))[None, None]

    def pooled(features: Tensor, weights: Tensor) -> Tensor:
        large = F.interpolate(features, weights.shape[-2:], mode="bilinear", align_corners=False)
        return (large * weights).sum((2, 3)) / (weights.sum() + 1e-5)

    def labels(features: Tensor, prototype: Tensor) -> Tensor:
        scores = model.head(features, prototype).softmax(1)
        large = F.interpolate(scores, asked.shape[-2:], mode="bilinear", align_corners=False)
        return large.argmax(1, keepdim=True)

    @torch.inference_mode()
    def segment() -> Tensor:
        prototype = pooled(model.encoder(shown), own)
        features = model.encoder(asked)
        pseudo = pooled(features, labels(features, prototype).float())
        return labels(features, (prototype + pseudo) / 2)

    return segment


def _show(name: str, form: str, model: Model, row: Mapping[str, float]) -> None:
    rows, columns = model.grid
    print(f"\n{name}, {form}: {model.head.channels} channels on {columns} x {rows} cells, fp32")
    figures = (
        ("two passes, of two plain ones", "share_percent", "%", PASSES.get((name, form)), 1),
        ("a query without its head, in encoders", "without_head", "", BESIDE, 1),
        ("times faster than published style", "times_faster", "", FASTER.get(name), -1),
    )
    milliseconds = {key: 1e3 * row[key] for key in row if key in _TIMES}
    print(", ".join(f"{_TIMES[key]} {value:.0f} ms" for key, value in milliseconds.items()))
    for what, key, unit, target, sign in figures:
        if key not in row:
            continue
        verdict = ""
        if target is not None:
            reached = sign * row[key] <= sign * target
            verdict = f" (target {target:g}: {'yes' if reached else 'NO'})"
        print(fill(f"{what}: {row[key]:.4g} {unit}".rstrip() + verdict, 100))


SECTIONS = {"passes": measure_passes, "query": measure_query}
_TIMES = {
    "plain": "two plain passes",
    "split": "two that share",
    "query": "a query",
    "encoder": "its encoder",
    "published": "published style",
}
