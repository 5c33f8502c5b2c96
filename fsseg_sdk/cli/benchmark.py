"""``fsseg benchmark``: latency and FPS of a bundle on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..board import PowerMeter
from ..doctor import drawn_picture, machine, packages
from .console import Progress, check_tile, load_segmenter, print_json, table, write_json

if TYPE_CHECKING:
    from ..result import Result
    from ..segmenter import Segmenter

__all__ = ["run"]

STAGES = ("preprocess", "encoder", "match", "label", "other", "total")


def run(arguments: argparse.Namespace) -> int:
    check_tile(arguments.tile)
    width, height = arguments.size
    begin = perf_counter()
    segmenter = load_segmenter(arguments)
    load_ms = (perf_counter() - begin) * 1e3
    image, masks = drawn_picture(width, height, arguments.ways)
    support = {f"class {way}": [(image, mask)] for way, mask in enumerate(masks, 1)}
    begin = perf_counter()
    task = segmenter.prepare(support)
    prepare_ms = (perf_counter() - begin) * 1e3
    query = np.ascontiguousarray(image[:, ::-1])
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    progress = Progress(arguments.warm_up + arguments.repeat)
    with PowerMeter() as meter:
        for turn in range(arguments.warm_up + arguments.repeat):
            begin = perf_counter()
            result = task.segment(query, tile=arguments.tile)
            wall = (perf_counter() - begin) * 1e3
            if turn >= arguments.warm_up:
                _add(times, result, wall)
            progress.step()
    progress.clear()
    report = _report(arguments, segmenter, load_ms, prepare_ms, times)
    report |= _power(report["fps"], meter.watts)
    if arguments.out:
        write_json(Path(arguments.out), report)
    if arguments.json:
        print_json(report)
    else:
        _print(report)
    return 0


def _add(times: dict[str, list[float]], result: Result, wall: float) -> None:
    """`total` is the whole call as its caller sees it; `other` what no stage claims of that."""
    stages = [stage for stage in STAGES if stage not in ("other", "total")]
    for stage in stages:
        times[stage].append(result.timings[stage])
    times["other"].append(max(wall - sum(result.timings[stage] for stage in stages), 0.0))
    times["total"].append(wall)


def _power(fps: float, watts: float | None) -> dict[str, float | None]:
    """Of a Jetson; None elsewhere. The warm-up is part of the mean."""
    if watts is None:
        return {"watts": None, "fps_per_watt": None}
    return {"watts": round(watts, 3), "fps_per_watt": round(fps / watts, 3) if watts else None}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds: min, p50, p90, p99, max and mean of the runs."""
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    summary = {"min": min(values), "p50": p50, "p90": p90, "p99": p99, "max": max(values)}
    return {name: round(float(v), 4) for name, v in {**summary, "mean": np.mean(values)}.items()}


def _report(
    arguments: argparse.Namespace,
    segmenter: Segmenter,
    load_ms: float,
    prepare_ms: float,
    times: dict[str, list[float]],
) -> dict[str, Any]:
    from .. import ops

    width, height = arguments.size
    latency = {stage: percentiles(values) for stage, values in times.items()}
    build = ops.build_info()
    return {
        "format": "fsseg-benchmark",
        "format_version": "1.0.0",
        "created_with": f"fsseg_sdk {__version__}",
        "bundle": segmenter.bundle,
        "method": segmenter.method,
        "backend": segmenter.backend,
        "device": segmenter.device,
        "precision": segmenter.precision,
        "threads": arguments.threads or build["threads"],
        "simd": build["simd"],
        "input": {"width": segmenter.input_size[1], "height": segmenter.input_size[0]},
        "query": {"width": width, "height": height},
        "ways": arguments.ways,
        "tile": arguments.tile,
        "warm_up": arguments.warm_up,
        "repeat": arguments.repeat,
        "load_ms": round(load_ms, 3),
        "prepare_ms": round(prepare_ms, 3),
        "latency_ms": latency,
        "fps": round(1e3 / latency["total"]["p50"], 3),
        "machine": machine(),
        "packages": packages(),
    }


def _print(report: dict[str, Any]) -> None:
    query, model, host = report["query"], report["input"], report["machine"]
    print(
        f"{report['bundle']}: {report['method']}, {report['ways']} "
        f"class{'es' if report['ways'] != 1 else ''}, {query['width']} x {query['height']} query, "
        f"{model['width']} x {model['height']} input"
    )
    print(
        f"{report['backend']} on {report['device']} in {report['precision']}, "
        f"{report['threads']} threads, {report['simd']} kernels; "
        f"{host['processor']}, load {host['load'][0] if host['load'] else 'unknown'}"
    )
    columns = ("min", "p50", "p90", "p99", "max")
    rows = [["ms", *columns]]
    for stage, values in report["latency_ms"].items():
        rows.append([stage, *(f"{values[column]:.2f}" for column in columns)])
    print(table(rows))
    print(
        f"{report['fps']:.1f} FPS (median of {report['repeat']} runs after {report['warm_up']}); "
        f"loaded in {report['load_ms']:.0f} ms, support prepared in {report['prepare_ms']:.0f} ms"
    )
    if host["board"] is not None:
        board = host["board"]
        clocks = ", ".join(f"{k} {v:g}" for k, v in board.items() if k.endswith("mhz"))
        power = f"{report['watts']:.1f} W" if report["watts"] is not None else "watts unknown"
        each = f", {report['fps_per_watt']:.2f} FPS per watt" if report["watts"] else ""
        print(f"{board['model']}, power mode {board['power_mode']}; {clocks}; {power}{each}")
