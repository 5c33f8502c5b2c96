"""A query from picture to labels by stage, the kernels beside a ResNet-50, and a cold start.

    taskset -c 0 python -m benchmarks pipeline [--bundle NAME] [--seconds S] [--batch N]

One thread unless --threads says otherwise. Sections: "query" (a 1920x1080 picture through the
bundle, as an array and as a JPEG), "resnet" (everything after a ResNet-50 at 473x473 beside it;
needs torch and onnx, to export it), "methods" (what each method costs beside panet and its encoder,
on both), "start" (fresh processes: the import, the first mask).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded

from benchmarks import methods, report, stages  # noqa: E402
from benchmarks.fresh import run_fresh, write_pictures  # noqa: E402
from benchmarks.pictures import SCREEN, Pictures, pictures_of  # noqa: E402
from fsseg_sdk import Segmenter  # noqa: E402
from fsseg_sdk.errors import FssegError  # noqa: E402

SECTIONS = ("query", "resnet", "methods", "start")
BESIDE, AFTER, IMPORT, FIRST = 2.0, 0.3, 0.12, 0.6  # targets: percent, percent, s, s
STEPS = ("import", "load", "prepare", "segment", "total")


def main(arguments: Sequence[str]) -> int:
    parser = report.command("pipeline", __doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each measurement")
    parser.add_argument("--batch", type=int, default=1, help="pictures in one encoder call")
    parser.add_argument("--starts", type=int, default=9, help="fresh processes of each kind")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(arguments)
    if options.batch < 1 or options.starts < 1 or options.threads < 1:
        parser.error("--batch, --starts and --threads take 1 or more")
    print(report.where())
    results: dict[str, Any] = {}
    try:
        for name in options.sections:
            measure = {"query": _query, "resnet": _resnet, "methods": _methods, "start": _start}
            results[name] = measure[name](options)
    except FssegError as error:
        parser.error(str(error))
    report.write_report(options.json, options, results)
    if options.plot:
        report.bars(options.plot, _panels(results))
    return 0


def _query(options: argparse.Namespace) -> dict[str, Any]:
    segmenter = Segmenter.load(options.bundle, threads=options.threads)
    pictures = pictures_of()
    task = segmenter.prepare({"bolt": [(pictures.support, pictures.mask)]})
    data = pictures.jpeg()
    result: dict[str, Any] = {
        "array": stages.measure(task, pictures.query, options.seconds, options.batch),
        "jpeg": stages.measure(task, data, options.seconds, options.batch),
        "jpeg_bytes": len(data),
    }
    print(
        f"\n{segmenter.bundle}: 1 class, {SCREEN[1]}x{SCREEN[0]} query, "
        f"{options.threads} thread(s), batch {options.batch}; ms for one picture"
    )
    _show_stages({"array": result["array"], f"JPEG, {len(data) / 1e3:.0f} kB": result["jpeg"]})
    array = result["array"]
    print(f"{array['fps']:.1f} FPS from arrays (median of {array['runs']} calls)")
    methods.against(
        "everything but the encoder", array["beside_percent"], BESIDE, "% of the encoder"
    )
    return result


def _resnet(options: argparse.Namespace) -> dict[str, Any]:
    print("\nResNet-50 at 473x473, fp32, 1024 channels, 60x60 cells; ms for one picture")
    try:
        from benchmarks.resnet import SIDE, segmenter
    except ImportError as error:
        print(f"left out: {error}")
        return {}
    encoder = segmenter(options.threads)
    result: dict[str, Any] = {}
    for size in ((SIDE, SIDE), SCREEN):
        pictures: Pictures = pictures_of(size)
        task = encoder.prepare({"bolt": [(pictures.support, pictures.mask)]})
        name = f"{size[1]}x{size[0]} labels"
        result[name] = stages.measure(task, pictures.query, options.seconds, options.batch)
    _show_stages(result)
    for name, figures in result.items():
        target = AFTER if name.startswith(str(SIDE)) else None
        what = f"after the encoder (match, labels, presence), {name}"
        methods.against(what, figures["after_percent"], target, "% of the encoder")
    return result


def _methods(options: argparse.Namespace) -> dict[str, Any]:
    """For srofb, every cell of the query counts as sure, so that as many are trained on as can
    be; paia takes its three steps over the query."""
    pictures = pictures_of()

    def measured(kind: str, opened: Mapping[str, Segmenter]) -> dict[str, Any]:
        return methods.measure_queries(kind, opened, pictures, options.seconds, options.batch)

    own = {m: methods.on_bundle(options.bundle, options.threads, m) for m in methods.ON_ANY}
    result: dict[str, Any] = {"the bundle": measured("the bundle", own)}
    try:
        from benchmarks import resnet
    except ImportError as error:
        print(f"ResNet-50 is left out: {error}")
        return result
    names = (*methods.ON_ANY, "oslsm")
    large = {m: resnet.segmenter(options.threads, m, methods.settings_of(m)) for m in names}
    result["ResNet-50"] = measured("ResNet-50", large)
    result["prepare"] = methods.measure_prepare(
        lambda graph, changes: resnet.segmenter(options.threads, "paia", changes, graph),
        resnet.encoder_graph(options.threads),
        pictures,
        options.starts,
        options.threads,
    )
    return result


def _start(options: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    bundle = str(Path(options.bundle).resolve()) if Path(options.bundle).exists() else None
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder)
        given = {"bundle": bundle or options.bundle, "folder": folder, "threads": options.threads}
        run_fresh("import")  # the first of each reads files from the disk
        run_fresh("first_mask", **given)
        turns = tqdm(range(options.starts), desc="fresh processes", disable=None, leave=False)
        imports, firsts = [], []
        for _ in turns:
            imports.append(run_fresh("import"))
            firsts.append(run_fresh("first_mask", **given))

    def middle(answers: list[dict[str, Any]], key: str) -> float:
        return statistics.median(answer[key] for answer in answers)

    first = {step: middle(firsts, step) for step in (*STEPS, "processor")}
    result: dict[str, Any] = {
        "import_s": middle(imports, "import"),
        "import_names_s": middle(imports, "names"),
        "process_s": middle(imports, "process"),
        "loaded_by_import": sorted({name for one in imports for name in one["loaded"]}),
        "loaded_by_names": sorted({name for one in imports for name in one["loaded_by_names"]}),
        "first_mask_s": first,
    }
    print(f"\nFresh processes, medians of {options.starts}, files in the page cache")
    for key, what in (
        ("import", "import fsseg_sdk"),
        ("import_names", "from fsseg_sdk import Segmenter, Box, Scribble"),
    ):
        methods.against(what, result[f"{key}_s"], IMPORT, "s")
    for key, what in (("import", "the first"), ("names", "the second")):
        names = result[f"loaded_by_{key}"]
        wrong = [name for name in names if name in ("torch", "onnxruntime")]
        print(
            f"of numpy, PIL, onnxruntime and torch, {what} loads {', '.join(names) or 'none'}"
            f"{': it must not' if wrong else ''}"
        )
    print(f"a process that does nothing else, start to end: {result['process_s']:.3f} s")
    size = f"{SCREEN[1]}x{SCREEN[0]}"
    methods.against(
        f"import, load, prepare from one picture, first mask at {size}", first["total"], FIRST, "s"
    )
    steps = ", ".join(f"{step} {first[step]:.3f}" for step in STEPS[:-1])
    print(f"of these: {steps} s; computing {first['processor']:.3f} s")
    print("not counted: the interpreter's start, reading the arrays")
    return result


def _show_stages(columns: Mapping[str, Mapping[str, Any]]) -> None:
    cells = [["ms", *(text for name in columns for text in (name, "p95"))]]
    for stage in stages.STAGES:
        values = [f"{c[stage][p]:.2f}" for c in columns.values() for p in ("p50", "p95")]
        cells.append([stage, *values])
    print(report.table(cells))


def _panels(
    results: Mapping[str, Any],
) -> list[tuple[str, dict[str, dict[str, float]], str]]:
    panels: list[tuple[str, dict[str, dict[str, float]], str]] = []
    without = [stage for stage in stages.STAGES if stage not in ("encoder", "total")]
    if "query" in results:
        kinds = {kind: results["query"][kind] for kind in ("array", "jpeg")}
        title = f"{SCREEN[1]}x{SCREEN[0]} query, one picture"
        groups = {k: {s: c[s]["p50"] for s in ("encoder", "total")} for k, c in kinds.items()}
        panels.append((title, groups, "ms, median"))
        groups = {k: {s: max(c[s]["p50"], 0.0) for s in without} for k, c in kinds.items()}
        panels.append(("all but the encoder", groups, "ms, median"))
    if results.get("resnet"):
        after = {name: c["after_percent"] for name, c in results["resnet"].items()}
        title = "after a ResNet-50 at 473x473"
        panels.append((title, {n: {"": v} for n, v in after.items()}, "% of the encoder"))
    if "start" in results:
        steps = {step: {"": results["start"]["first_mask_s"][step]} for step in STEPS}
        panels.append(("a fresh process up to its first mask", steps, "s, median"))
    return panels
