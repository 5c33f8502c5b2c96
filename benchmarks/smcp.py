"""SMCP: two passes of the head as graphs that share, against two plain passes; a query of it.

    taskset -c 0 python -m benchmarks smcp [--seconds S] [--encoders NAME ...] [--sections passes]

Weights are random; speed does not depend on them. "Plain" is the definition, features and tiled
prototype concatenated, as one graph in the same runtime. "Published style" is a query as the
paper's code does it, in torch: the support is encoded for every query, and features are upsampled
to be pooled. The SDK runs in fp32 on ONNX Runtime and in bf16 on OpenVINO, published style in
both types, too. With one thread the processor's time is taken, so that other work on the machine
does not count; not so for "resources", which want a machine that does nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.smcp_model import Array, Model, opened  # noqa: E402
from benchmarks.smcp_query import measure_query  # noqa: E402
from benchmarks.smcp_resources import measure_resources  # noqa: E402
from benchmarks.timing import clock_of, medians  # noqa: E402

FORMS = ("paper", "official")
PASSES = {  # largest share of two plain passes, in percent
    ("vgg16_smcp", "paper"): 60.0,
    ("resnet50", "paper"): 50.0,
    ("vgg16_smcp", "official"): 76.0,
    ("resnet50", "official"): 64.0,
}
BESIDE = 1.02  # a query without its head, in runs of the encoder
FASTER = {  # than published style in fp32
    ("vgg16_smcp", "fp32"): 2.5,
    ("resnet50", "fp32"): 5.0,
    ("vgg16_smcp", "bf16"): 12.0,
    ("resnet50", "bf16"): 20.0,
}
SECTIONS = ("passes", "query", "resources")


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
            row: dict[str, Any] = {}
            if "passes" in options.sections:
                row.update(measure_passes(model, options.seconds))
            if "query" in options.sections:
                row.update(measure_query(model, options.seconds))
            if "resources" in options.sections:
                row["resources"] = measure_resources(model, form, options.seconds)
            results[f"{name}, {form}"] = row
            _show(name, form, model, row)
    report.write_report(options.json, options, results)
    if options.plot and "passes" in options.sections:
        panels = {k: {p: 1e3 * r[p] for p in ("plain", "split")} for k, r in results.items()}
        report.bars(options.plot, [("two passes of the head", panels, "ms, median")])
    return 0


def measure_passes(model: Model, seconds: float) -> dict[str, float]:
    """Seconds of the graphs of two passes, without the pooling between them."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1, model.head.channels, *model.grid), np.float32)
    first, second = rng.standard_normal((2, 1, model.head.channels), np.float32)
    graphs = model.graphs("onnxruntime", "fp32")
    shares = graphs["smcp_prototype"].run({"prototypes": first})["shares"]  # once a task

    def plain() -> list[Array]:
        feeds = ({"features": features, "prototypes": p} for p in (first, second))
        return [model.plain.run(f)["logits"] for f in feeds]

    def split() -> list[Array]:
        query = graphs["smcp_query"].run({"features": features})["query"]
        one = graphs["smcp_head"].run({"query": query, "shares": shares})["logits"]
        fused = graphs["smcp_prototype"].run({"prototypes": second})["shares"]
        return [one, graphs["smcp_head"].run({"query": query, "shares": fused})["logits"]]

    for expected, found in zip(plain(), split(), strict=True):
        largest = np.abs(expected[:, 0]).max()
        if not np.abs(found - expected)[:, 0].max() <= 1e-4 * largest:
            raise ValueError("plain and split: expected the same logits, got others.")
    times = medians({"plain": plain, "split": split}, seconds, 3, clock_of(model.threads))
    return {**times, "share_percent": 100 * times["split"] / times["plain"]}


def _show(name: str, form: str, model: Model, row: Mapping[str, Any]) -> None:
    rows, columns = model.grid
    print(f"\n{name}, {form}: {model.head.channels} channels on {columns} x {rows} cells")
    if "plain" in row:
        plain, split = 1e3 * row["plain"], 1e3 * row["split"]
        print(f"two plain passes {plain:.0f} ms, two that share {split:.0f} ms")
        target = PASSES.get((name, form))
        _say("two passes, of two plain ones", row["share_percent"], "%", target, -1)
    if "seconds" in row:
        _show_query(name, row)
    for kind, taken in row.get("resources", {}).items():
        if "refused" in taken:
            print(fill(f"{kind}: {taken['refused']}", 100))
        else:
            print(
                f"{kind}: {taken['fps']:.2f} queries a second, {taken['memory_mb']:.0f} MB at "
                f"most, {taken['processors']:.2f} processors"
            )


def _show_query(name: str, row: Mapping[str, Any]) -> None:
    print("a query: " + ", ".join(f"{k} {1e3 * v:.0f} ms" for k, v in row["seconds"].items()))
    print("its encoder: " + ", ".join(f"{k} {1e3 * v:.0f} ms" for k, v in row["encoder"].items()))
    _say("a query without its head, in encoders", row["without_head"], "", BESIDE, -1)
    for pair, times in row["times_faster"].items():
        precision, _, style = pair.partition(", ")
        target = FASTER.get((name, precision)) if style == "published fp32" else None
        _say(f"times faster in {precision} than {style}", times, "", target, 1)
    for precision, reason in row["refused"].items():
        print(fill(f"{precision}: {reason}", 100))


def _say(what: str, value: float, unit: str, target: float | None, sign: int) -> None:
    """sign: 1 where more is better, -1 where less is."""
    verdict = ""
    if target is not None:
        reached = sign * value >= sign * target
        verdict = f" (target {target:g}: {'yes' if reached else 'NO'})"
    print(fill(f"{what}: {value:.4g} {unit}".rstrip() + verdict, 100))
