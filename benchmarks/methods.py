"""What each method costs: its query beside panet's and its encoder, its ``prepare`` beside encoder
passes. For `benchmarks.pipeline`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stages
from benchmarks.pictures import Pictures
from benchmarks.timing import TimedGraph, clock_of
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, TensorInfo

ON_ANY = ("panet", "paia", "nearest", "logreg", "srofb", "srofb-fast")
"""Those that need nothing but features; oslsm has a graph of its own, that of `Conditioner`."""
IN_PANETS = {"paia": 1.015, "srofb-fast": 1.06}
"""Targets: a query beside one of panet, encoder in fp32."""
IN_ENCODERS = {"oslsm": 1.02}
"""Targets: a query beside its own encoder."""
PREPARE, AUXILIARY = 1.02, 4

_EVERY = {"foreground_threshold": 0.5, "background_threshold": 0.5}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "srofb": _EVERY,  # every cell of the query counts as sure: as many are trained on as can be
    "srofb-fast": _EVERY,
    "paia": {"query_steps": 3},
}


class Conditioner:
    """OSLSM's conditioning branch, with an answer at random: it runs in ``prepare`` alone."""

    backend, device, precision = "none", "cpu", "fp32"

    def __init__(self, encoder: Graph) -> None:
        self.inputs = encoder.inputs
        self.outputs = (TensorInfo("parameters", "float32", (-1, encoder.outputs[0].shape[1] + 1)),)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        shape = (len(feeds[self.inputs[0].name]), self.outputs[0].shape[1])
        found = 0.1 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return {"parameters": found}


def settings_of(method: str) -> Mapping[str, Any]:
    """Those that it is timed with: the most that it can cost."""
    return _SETTINGS.get(method, {})


def on_bundle(bundle: str, threads: int, method: str) -> Segmenter:
    return Segmenter.load(bundle, method=method, settings=settings_of(method), threads=threads)


def measure_queries(
    kind: str, opened: Mapping[str, Segmenter], pictures: Pictures, seconds: float, batch: int
) -> dict[str, Any]:
    """Stages of a query of each method, and their ratios; printed."""
    rows: dict[str, Any] = {}
    for method, segmenter in opened.items():
        task = segmenter.prepare({"bolt": [(pictures.support, pictures.mask)]})
        rows[method] = stages.measure(task, pictures.query, seconds, batch)
    print(
        f"\n{kind}: ms of match, medians; a query in queries of panet, and in its encoder's passes"
    )
    beside = {m: (r["total"]["p50"] - r["encoder"]["p50"]) for m, r in rows.items()}
    encoder = statistics.median(r["encoder"]["p50"] for r in rows.values())
    for method, row in rows.items():
        row["times_panet"] = (encoder + beside[method]) / (encoder + beside["panet"])
        row["times_encoder"] = 1 + row["beside_percent"] / 100
        print(f"{method}: {row['match']['p50']:.2f} ms, encoder {encoder:.0f} ms")
        against("a query, in those of panet", row["times_panet"], IN_PANETS.get(method), "")
        own = row["times_encoder"]
        against("a query, in its encoder passes", own, IN_ENCODERS.get(method), "")
    return rows


def measure_prepare(
    opened: Callable[[Graph, Mapping[str, Any]], Segmenter],
    graph: Graph,
    pictures: Pictures,
    turns: int,
    threads: int,
) -> dict[str, Any]:
    """``prepare`` of paia from one mask and auxiliary pictures, three steps, in passes of its
    encoder. opened: a Segmenter of a graph, with these settings."""
    clock = clock_of(threads)
    timed = TimedGraph(graph, clock)
    segmenter = opened(timed, {"steps": 3})
    others = [np.roll(pictures.query, 40 * i, axis=1) for i in range(AUXILIARY)]
    ratios = []
    for _ in range(turns + 1):  # the first one warms up
        before, begin = timed.seconds, clock()
        segmenter.prepare({"bolt": [(pictures.support, pictures.mask)]}, {"bolt": others})
        ratios.append((clock() - begin) / (timed.seconds - before))
    ratio = statistics.median(ratios[1:])
    print(f"\npaia, prepare from 1 mask and {AUXILIARY} auxiliary pictures, 3 steps")
    against("in passes of the encoder", ratio, PREPARE, "")
    return {"times_encoder": ratio, "auxiliary": AUXILIARY, "turns": turns}


def against(what: str, value: float, target: float | None, unit: str) -> None:
    """A line with a figure and whether it meets its target, where it has one."""
    verdict = ""
    if target is not None:
        verdict = f" (target {target:g}: {'yes' if value <= target else 'NO'})"
    print(fill(f"{what}: {value:.4g} {unit}".rstrip() + verdict, 100))
