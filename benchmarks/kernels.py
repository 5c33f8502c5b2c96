"""Each op against (a) published torch code, (b) the numpy reference, (c) memory bandwidth.

    taskset -c 0 python -m benchmarks kernels [--json FILE] [--plot FILE] [--seconds S]

One thread, medians of its CPU time; what is compared is called in turn. Every result is checked
before it is timed. Bandwidth is that of reading an array of the same size, measured in turn with
the op: "cache" reads the same array again and again, "memory" goes through more arrays than the
caches hold. "arithmetic" is the op's own speed when its features lie in the first-level cache: the
same computation cannot be faster, whatever the bandwidth.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.kernel_rows import Inputs, Row, all_rows  # noqa: E402
from benchmarks.neighbour_rows import neighbour_rows  # noqa: E402
from benchmarks.timing import aligned, machine, medians, write_json  # noqa: E402
from fsseg_sdk import _kernels, ops  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS, GRID, IMAGE, SCREEN = 1024, (60, 60), (473, 473), (1080, 1920)


def check(row: Row) -> float:
    """The op's and the baselines' largest error, relative to the largest reference value."""
    expected = row.reference()
    errors = {}
    for name, call in {"op": row.op, **row.published}.items():
        result = call()
        if expected.dtype == np.uint8:  # labels: all but those that rounding decides
            error = float((result != expected).mean())
        else:
            error = float((np.abs(result - expected) / np.abs(expected).max()).max())
        limit = row.tolerance if name == "op" else max(2e-2, row.tolerance)
        if not (error <= limit):
            raise SystemExit(f"{row.name}: {name} is wrong by {error}")
        errors[name] = error
    return errors["op"]


def bandwidth(row: Row, features: Any, seconds: float) -> dict[str, float]:
    """The op's and the probe's time on the same array, again and again and through many arrays."""
    if row.streams is None:
        return {}
    run, result = row.streams, dict[str, float]()
    many = [features, *(aligned(features) for _ in range(7))]
    shared = np.broadcast_to(features[:, :1], features.shape)  # all channels in one plane: L1
    for where, arrays in (("cache", [features]), ("memory", many)):
        turns = itertools.cycle(arrays)  # one for all: what one call has read, the next does not
        calls = {
            "op": lambda turns=turns: run(next(turns)),
            "read 1": lambda turns=turns: _kernels._read_probe(next(turns), 1),
            "read 4": lambda turns=turns: _kernels._read_probe(next(turns), 4),
        }
        times = medians(calls, seconds, clock=time.thread_time)
        best = min(times["read 1"], times["read 4"])
        result[f"read_{where}_gb_s"] = features.nbytes / best / 1e9
        result[f"op_{where}_gb_s"] = features.nbytes / times["op"] / 1e9
        result[f"of_{where}"] = best / times["op"]
    arithmetic = medians({"op": lambda: run(shared)}, seconds / 2, clock=time.thread_time)["op"]
    result["arithmetic_gb_s"] = features.nbytes / arithmetic / 1e9
    return result


def measure(row: Row, features: Any, seconds: float) -> dict[str, Any]:
    """All figures of a row."""
    error = check(row)
    slow = {"reference": row.reference, **row.published}
    before = medians({"op": row.op}, seconds / 2, clock=time.thread_time)["op"]
    times = medians(slow, seconds, least=3, clock=time.thread_time)
    after = medians({"op": row.op}, seconds / 2, clock=time.thread_time)["op"]
    times["op"] = (before + after) / 2
    ratios = {name: times[name] / times["op"] for name in slow}
    return {
        "name": row.name,
        "error": error,
        "seconds": times,
        "ratios": ratios,
        "targets": row.targets,
        "bandwidth_target": row.target,
        "bandwidth": bandwidth(row, features, seconds),
    }


def overhead(seconds: float) -> float:
    """Seconds that Python adds to a call: an op on one pixel."""
    features, weights = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    return medians(
        {"op": lambda: ops.weighted_pool(features, weights, threads=1)},
        seconds,
        clock=time.thread_time,
    )["op"]


def show(result: dict[str, Any]) -> None:
    print(f"{result['name']}: {result['seconds']['op'] * 1e3:.3f} ms, error {result['error']:.1e}")
    for name, ratio in result["ratios"].items():
        target = result["targets"].get(name)
        verdict = (
            "" if target is None else f"  (target {target:g}: {'yes' if ratio >= target else 'NO'})"
        )
        milliseconds = result["seconds"][name] * 1e3
        print(f"    {ratio:8.1f} x faster than {name} ({milliseconds:.2f} ms){verdict}")
    b = result["bandwidth"]
    for where in ("cache", "memory") if b else ():
        print(
            f"    {100 * b[f'of_{where}']:6.0f} % of reading from {where}: "
            f"{b[f'op_{where}_gb_s']:.1f} of {b[f'read_{where}_gb_s']:.1f} GB/s"
        )
    if b and result["bandwidth_target"] is not None:
        target = result["bandwidth_target"]
        verdict = "yes" if b["of_memory"] >= target else "NO"
        print(f"           (target {100 * target:.0f} % of reading from memory: {verdict})")
    if b:
        print(f"           arithmetic alone would allow {b['arithmetic_gb_s']:.1f} GB/s")


def plot(path: str, results: Sequence[dict[str, Any]]) -> None:
    """Bars: how many times faster than each baseline."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [(r["name"], n, x) for r in results for n, x in r["ratios"].items() if n != "reference"]
    figure, axes = pyplot.subplots(figsize=(10, 0.45 * len(bars) + 1.2))
    axes.barh([f"{name}\nvs {base}" for name, base, _ in bars], [x for _, _, x in bars])
    for place, (_, _, ratio) in enumerate(bars):
        axes.text(ratio, place, f" {ratio:.0f}x", va="center", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("times faster, one thread")
    axes.tick_params(axis="y", labelsize=6)
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks kernels", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    given = Inputs()
    where = machine()
    print(f"{where['processor']}, {where['kernels']['simd']}, load {where['load']}")
    call = overhead(options.seconds / 4)
    print(f"a call that computes nothing: {call * 1e6:.1f} us")
    results = []
    for row in itertools.chain(all_rows(given), neighbour_rows(given)):
        if options.only in row.name:
            features = given.features if row.features is None else row.features
            results.append(measure(row, features, options.seconds))
            show(results[-1])
    write_json(options.json, {"machine": where, "overhead_s": call, "rows": results})
    if options.plot:
        plot(options.plot, results)
    return 0
