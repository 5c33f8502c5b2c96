"""Mean IoU, absent classes, weak labels and tiling, on labelled sets, measured through the SDK.

    python -m benchmarks accuracy --data FOLDER... --weights FOLDER [--pictures N]
    python -m benchmarks accuracy --data-root ROOT --weights FOLDER --sections iou presence

A folder of labelled pictures has images/, masks/, index.jsonl and meta.json (docs/data.md).
Sets named voc2012 or coco, and those that the bundle's provenance names, count as seen in training:
of them only pictures split "val" are asked, and they stay out of every average.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded

from benchmarks import absent, auxiliary, iou, report, tiles  # noqa: E402
from benchmarks.models import trained_on  # noqa: E402
from benchmarks.protocol import Protocol  # noqa: E402
from benchmarks.sets import HELD_OUT, open_sets  # noqa: E402
from fsseg_sdk.errors import FssegError  # noqa: E402
from training.evaluation import ProtocolSettings  # noqa: E402

SECTIONS: dict[str, tuple[str, Callable[[Protocol], dict[str, Any]]]] = {
    "iou": ("Mean IoU in %, 1 shot", iou.measure_models),
    "methods": ("Mean IoU in %, 1 shot, by method", iou.measure_methods),
    "auxiliary": ("Mean IoU in %, 1 shot, with auxiliary pictures", auxiliary.measure),
    "presence": ("Presence: half of the pictures do not show the class", absent.measure),
    "weak": ("Mean IoU in %, 1 shot, by how the example is labelled", iou.measure_weak),
    "tile": ("Mean IoU in %, 1 shot, small things in large pictures", tiles.measure),
}


def _parser() -> argparse.ArgumentParser:
    parser = report.command("accuracy", __doc__.split("\n")[0])
    known = ", ".join(HELD_OUT)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", default=[], metavar="FOLDER", help="labelled sets")
    add("--data-root", type=Path, metavar="ROOT", help=f"holds {known} and voc2012")
    add("--weights", type=Path, metavar="FOLDER", help="ImageNet weights of the raw encoders")
    add("--pictures", type=int, default=100, metavar="N", help="queries a set; 0: all")
    add("--classes", type=int, default=3, metavar="N", help="asked for in one picture, at most")
    add("--seed", type=int, default=0)
    add("--mosaics", type=int, default=10, metavar="N", help="large pictures a set, at most")
    add("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    add("--memory", type=float, default=4.0, metavar="GIB", help="for features that are kept")
    return parser


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if min(options.pictures, options.mosaics, options.seed) < 0 or options.classes < 1:
        parser.error("--pictures, --mosaics and --seed take 0 or more, --classes 1 or more")
    if not options.data and options.data_root is None:
        parser.error("say where labelled pictures are: --data FOLDER... or --data-root ROOT")
    try:
        seen = trained_on(options.bundle)
        sets, left_out = open_sets(options.data, options.data_root, seen)
    except (FssegError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    protocol = Protocol(
        bundle=options.bundle,
        weights=options.weights,
        sets=tuple(sets),
        settings=ProtocolSettings(options.pictures, options.classes, seed=options.seed),
        threads=options.threads,
        memory=round(options.memory * 2**30),
        mosaics=options.mosaics,
    )
    for line in (report.where(), *left_out, iou.CAVEAT, *protocol.lines()):
        print(fill(line, 100))
    results = {name: _section(name, protocol) for name in options.sections}
    results = {name: result for name, result in results.items() if result}
    texts = {"caveat": iou.CAVEAT, "protocol": protocol.lines(), "left_out": left_out}
    report.write_report(options.json, options, {**texts, **results})
    if options.plot:
        report.bars(options.plot, _panels(results))
    return 0 if results else 1


def _section(name: str, protocol: Protocol) -> dict[str, Any]:
    """Measure and print one section; {} where there is nothing to measure it on."""
    title, measure = SECTIONS[name]
    print(f"\n{title}")
    if not (protocol.sets if name in ("iou", "methods", "auxiliary") else protocol.held_out):
        print("left out: none of the folders holds pictures for it")
        return {}
    result = measure(protocol)
    if name in ("iou", "methods", "auxiliary", "weak"):
        text = iou.lines(result, Path(protocol.bundle).stem)
    else:
        text = absent.lines(result) if name == "presence" else tiles.lines(result)
    for line in text:
        print(line if "\n" in line else fill(line, 100))
    return result


def _panels(
    results: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, dict[str, dict[str, float]], str]]:
    panels: list[tuple[str, dict[str, dict[str, float]], str]] = []
    for name, result in results.items():
        title, groups, label = SECTIONS[name][0], dict[str, dict[str, float]](), "mean IoU, %"
        if name in ("iou", "methods", "auxiliary", "weak"):
            names = {
                row["set"]: row["set"] + (" (seen)" if row["seen"] else "")
                for row in result["rows"]
            }
            groups = {names[row["set"]]: row["iou"] for row in result["rows"]}
            if result["average"]:
                groups["average, held out"] = result["average"]
        elif name == "tile":
            groups = {row["size"]: row["iou"] for row in result["rows"]}
        else:
            label = "AUROC"
            for source, what in absent.SOURCES.items():
                for row in result[source]:
                    groups.setdefault(row["set"], {})[what] = row["auroc"]
        panels.append((title, groups, label))
    return panels
