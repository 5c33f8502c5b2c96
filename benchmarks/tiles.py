"""Small things in large pictures: what tiling gains, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.models import open_bundle
from benchmarks.mosaics import CELLS, Mosaic, in_mosaics, object_share
from benchmarks.protocol import Protocol
from benchmarks.report import table
from fsseg_sdk import Segmenter
from fsseg_sdk.tiling import Tile, plan_tiles
from training.evaluation import Episode, Outcome, evaluate, paired_interval

TILES: dict[str, Tile] = {"tile=None": None, 'tile="auto"': "auto", "tile=True": True}
ALONE = "pictures alone"
SIZES = {"under 0.2 %": (0.0, 0.002), "under 1 %": (0.0, 0.01), "all": (0.0, 1.0)}
PROTOCOL = (
    "No labelled picture here is larger than the encoder's input, so queries are mosaics of "
    f"{CELLS} real ones of a set, all of which show the class, each squashed to the input's size. "
    "The example is an ordinary picture. Grouped by the share of the mosaic that one object (a "
    "connected region; the one with the class's middle pixel) covers. 'pictures alone': the same "
    f"{CELLS} pictures as queries of their own, what there would be if size did not matter."
)


def measure(protocol: Protocol) -> dict[str, Any]:
    """Mean IoU by size of what is asked for, and seconds for one query."""
    segmenter = open_bundle(protocol.bundle, protocol.threads, protocol.memory)
    large: list[Episode] = []
    for each in protocol.held_out:
        large += in_mosaics(
            each.episodes(protocol.settings),
            each.samples,
            segmenter.input_size,
            protocol.mosaics,
            protocol.settings.least_fraction,
            protocol.settings.seed,
        )
    if not large:
        return {"rows": []}
    outcomes = {name: evaluate(segmenter, large, name, tile=tile) for name, tile in TILES.items()}
    outcomes[ALONE] = _alone(segmenter, large)
    shares = [object_share(episode) for episode in large]
    rows = []
    for name, (low, high) in SIZES.items():
        chosen = [low < share <= high for share in shares]
        if any(chosen):
            rows.append(_row(name, {k: o.where(chosen) for k, o in outcomes.items()}))
    return {"rows": rows, "cost": _cost(protocol, large[0])}


def _alone(segmenter: Segmenter, large: Sequence[Episode]) -> Outcome:
    """The pieces of each mosaic as queries of their own, their pixels added up."""
    pieces = [
        Episode(e.dataset, e.identity, e.support, piece)
        for e in large
        if isinstance(e.query, Mosaic)
        for piece in e.query.pieces
    ]
    outcome = evaluate(segmenter, pieces, ALONE)
    intersections, unions = (
        values.reshape(len(large), CELLS).sum(axis=1)
        for values in (outcome.intersections, outcome.unions)
    )
    presence = outcome.presence.reshape(len(large), CELLS).max(axis=1)
    return Outcome(list(large), intersections, unions, presence)


def _row(name: str, parts: Mapping[str, Outcome]) -> dict[str, Any]:
    episodes = parts["tile=None"].episodes
    return {
        "size": name,
        "episodes": len(episodes),
        "sets": sorted({episode.dataset for episode in episodes}),
        "iou": {k: part.mean_iou() for k, part in parts.items()},
        "gain": paired_interval(parts["tile=True"], parts["tile=None"]),
    }


def _cost(protocol: Protocol, episode: Episode, repeats: int = 3) -> dict[str, Any]:
    """Of one mosaic, nothing remembered: windows, and the median of some runs."""
    segmenter: Segmenter = open_bundle(protocol.bundle, protocol.threads)
    pixels, labels = episode.support.read()
    task = segmenter.prepare({"class": (pixels, labels == episode.identity)})
    query, _ = episode.query.read()
    grid = task.segment(query).logits.shape[1:]
    cost: dict[str, Any] = {"size": list(query.shape[:2])}
    for name, tile in TILES.items():
        plan = plan_tiles(query.shape[:2], segmenter.input_size, (grid[0], grid[1]), tile)
        times = []
        for _ in range(repeats):
            begin = perf_counter()
            task.segment(query, tile=tile)
            times.append(perf_counter() - begin)
        windows = 1 if plan is None else len(plan.windows)
        cost[name] = {"windows": windows, "seconds": float(np.median(times))}
    return cost


def lines(result: Mapping[str, Any]) -> list[str]:
    if not result["rows"]:
        return [PROTOCOL, "No class is shown by enough pictures of its set: nothing to measure."]
    names = list(result["rows"][0]["iou"])
    cells = [["an object covers", "mosaics", *names]]
    for row in result["rows"]:
        cells.append([row["size"], str(row["episodes"]), *(f"{row['iou'][n]:.1f}" for n in names)])
    text = [PROTOCOL, "", table(cells)]
    for row in result["rows"]:
        mean, low, high = row["gain"]
        text.append(
            f"{row['size']}: tile=True less tile=None {mean:+.1f} points, 95 % interval "
            f"[{low:+.1f}, {high:+.1f}]; from {', '.join(row['sets'])}"
        )
    cost = result["cost"]
    height, width = cost["size"]
    text.append(
        f"One {width} x {height} query: "
        + ", ".join(
            f"{name} {cost[name]['windows']} windows {1e3 * cost[name]['seconds']:.0f} ms"
            for name in TILES
        )
    )
    return text
