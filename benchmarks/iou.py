"""Mean IoU of a bundle beside prototype matching on raw ImageNet features; and of weak labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import RAW, open_bundle, open_methods, open_raw
from benchmarks.protocol import Protocol
from benchmarks.report import table
from training.annotations import Annotation, make, seed_of
from training.evaluation import Episode, Outcome, evaluate, paired_interval

CAVEAT = (
    "This is not PASCAL-5i, nor any other published protocol: sets, pictures and episodes are this "
    "project's own. Compare these figures with each other, not with published ones."
)


def measure_models(protocol: Protocol) -> dict[str, Any]:
    """The bundle and, where their weights are there, the raw encoders; the same episodes each."""
    names, notes = ["bundle"], list[str]()
    for name, (_, file, *_) in RAW.items():
        if protocol.weights is None or not (protocol.weights / file).is_file():
            notes.append(f"{name} is left out: no {file} in the folder of --weights.")
        else:
            names.append(name)
    outcomes: dict[str, Outcome] = {}
    for name in names:
        if name == "bundle" or protocol.weights is None:
            segmenter = open_bundle(protocol.bundle, protocol.threads, protocol.memory)
        else:
            segmenter = open_raw(name, protocol.weights, protocol.threads, protocol.memory)
        outcomes[name] = evaluate(segmenter, protocol.episodes(), name)
    result = summary(protocol, outcomes, [("bundle", other) for other in names[1:]])
    return {**result, "notes": notes}


def measure_methods(protocol: Protocol) -> dict[str, Any]:
    """Every method that the bundle's graphs can serve, on the same features, and what it costs."""
    opened, graph = open_methods(protocol.bundle, protocol.threads, protocol.memory)
    outcomes = {
        name: evaluate(segmenter, protocol.episodes(), name) for name, segmenter in opened.items()
    }
    own = next(iter(outcomes))
    encoder = 1e3 * median(graph.times)
    match = {name: float(median(outcome.match_ms)) for name, outcome in outcomes.items()}
    costs = [
        f"{name}: {ms:.1f} ms after the encoder's {encoder:.0f} ms; a query costs "
        f"{(encoder + ms) / (encoder + match[own]):.3f} times that of {own}"
        for name, ms in match.items()
    ]
    result = summary(protocol, outcomes, [(name, own) for name in list(outcomes)[1:]])
    return {**result, "encoder_ms": encoder, "match_ms": match, "notes": costs}


def measure_weak(protocol: Protocol) -> dict[str, Any]:
    """Masks, and boxes and scribbles derived from them, as they are and refined once."""
    outcomes: dict[str, Outcome] = {}
    episodes = protocol.episodes(seen=False)
    for refined in (False, True):
        changes = {"refine_weak": refined}
        segmenter = open_bundle(protocol.bundle, protocol.threads, protocol.memory, changes=changes)
        for label, kind in (("box", "box-component"), ("scribble", "scribble")):
            name = f"{label}, refined" if refined else label
            outcomes[name] = evaluate(segmenter, episodes, name, annotate=partial(_marked, kind))
        if not refined:
            outcomes["mask"] = evaluate(segmenter, episodes, "mask")
    order = ("mask", "box", "box, refined", "scribble", "scribble, refined")
    compared = [("box, refined", "box"), ("scribble, refined", "scribble")]
    return summary(protocol, {name: outcomes[name] for name in order}, compared)


def _marked(kind: str, mask: NDArray[np.uint8], episode: Episode) -> Annotation:
    return make(kind, mask, seed_of(episode.support.key, episode.identity))


def summary(
    protocol: Protocol, outcomes: Mapping[str, Outcome], compared: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Mean IoU of each, by set and over the held-out sets; differences on the latter."""
    held_out = [s.name for s in protocol.held_out]
    first = next(iter(outcomes.values()))
    rows = []
    for each in protocol.sets:
        part = first.of(each.name)
        if part.episodes:
            rows.append(
                {
                    "set": each.name,
                    "seen": each.seen,
                    "title": each.title,
                    "episodes": len(part.episodes),
                    "pictures": len({e.query.key for e in part.episodes}),
                    "classes": len({e.identity for e in part.episodes}),
                    "iou": {name: o.of(each.name).mean_iou() for name, o in outcomes.items()},
                }
            )
    unseen = {name: outcome.of(*held_out) for name, outcome in outcomes.items()}
    some = bool(next(iter(unseen.values())).episodes)
    return {
        "rows": rows,
        "average": {name: o.mean_iou() for name, o in unseen.items()} if some else {},
        "differences": [
            [first, second, *paired_interval(unseen[first], unseen[second])]
            for first, second in (compared if some else ())
        ],
    }


def lines(result: Mapping[str, Any], bundle: str) -> list[str]:
    """The table and what belongs under it."""

    def shown(name: str) -> str:
        return bundle if name == "bundle" else name

    rows, average = result["rows"], result["average"]
    names = list(rows[0]["iou"]) if rows else []
    cells = [["set", "episodes", "pictures", "classes", *map(shown, names)]]

    def row(entry: Mapping[str, Any]) -> list[str]:
        counts = [str(entry[key]) for key in ("episodes", "pictures", "classes")]
        return [entry["title"], *counts, *(f"{entry['iou'][name]:.1f}" for name in names)]

    held_out = [entry for entry in rows if not entry["seen"]]
    cells += [row(entry) for entry in held_out]
    if average:
        title = f"average of the {len(held_out)} held-out sets"
        cells.append([title, "", "", "", *(f"{average[name]:.1f}" for name in names)])
    cells += [row(entry) for entry in rows if entry["seen"]]
    text = [table(cells)]
    text += [
        f"{shown(first)} less {shown(second)}, held-out sets: {mean:+.1f} points, "
        f"95 % interval [{low:+.1f}, {high:+.1f}] (bootstrap over query pictures)"
        for first, second, mean, low, high in result["differences"]
    ]
    return text + list(result.get("notes", ()))
