"""Settings of a method, compared on base classes, so that no novel class decides.

    python -m training.ablation CHECKPOINT VARIANTS.toml --data-root DATA [--shots 5] [--json FILE]

The pictures are those that the checkpoint's run watched: base classes of its fold, not trained on.
VARIANTS.toml has ``[[variants]]`` tables: a name, a method, and settings as on the command line;
the first one is what the others are compared with. All see the same episodes and features.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsseg_sdk import FssegError, Segmenter
from fsseg_sdk.backends import Graph
from fsseg_sdk.methods.settings import settings_from_json
from training.datasets import IGNORE, Sample
from training.evaluation.engine import progress
from training.evaluation.heldout import (
    Episode,
    Outcome,
    ProtocolSettings,
    list_episodes,
    paired_interval,
)
from training.evaluation.predictor import digest_of, method_of, segmenter_on
from training.files import write_whole
from training.heads import head_graphs
from training.remembering import RememberingGraph
from training.reporting.tables import markdown
from training.run import open_samples
from training.settings import DataSettings
from training.tables import changes_of, read_tables
from training.torch_graph import TorchGraph, trained_encoder

LEAST = 0.005
"""Of a picture that a class covers, to be asked for."""
DECIMALS = 2


@dataclass(frozen=True)
class Variant:
    """A line of the table. settings: ``"iterations=20"`` and the like."""

    name: str
    method: str
    settings: tuple[str, ...] = ()


def read_variants(path: Path) -> list[Variant]:
    """
    Raises:
        FileNotFoundError, ValueError: the file, or a table in it, is not as it must be.
    """
    tables = read_tables(path)
    rows = tables.get("variants")
    if not isinstance(rows, list) or not rows or set(tables) != {"variants"}:
        raise ValueError(f"{path}: expected [[variants]] tables alone, got {', '.join(tables)}")
    found = []
    for number, row in enumerate(rows, 1):
        unknown = set(row) - {"name", "method", "settings"}
        if unknown or not isinstance(row.get("name"), str):
            raise ValueError(
                f"{path}: variant {number}: expected name, method and settings, got "
                f"{', '.join(row)}. Correct the table."
            )
        found.append(
            Variant(row["name"], row.get("method", "srofb"), tuple(row.get("settings", ())))
        )
    return found


def supports_of(
    episodes: Sequence[Episode], samples: Sequence[Sample], shots: int, seed: int
) -> list[tuple[Sample, ...]]:
    """For each episode its support and ``shots - 1`` more; fewer, where a class has no more."""
    rng = random.Random(seed)
    found = []
    for episode in episodes:
        shown = [
            s
            for s in samples
            if s.classes.get(episode.identity, 0) >= LEAST
            and s.key not in (episode.query.key, episode.support.key)
        ]
        found.append((episode.support, *rng.sample(shown, min(shots - 1, len(shown)))))
    return found


def measure(
    segmenter: Segmenter,
    episodes: Sequence[Episode],
    supports: Sequence[Sequence[Sample]],
    label: str,
) -> Outcome:
    """At the query's own size; ignored pixels do not count."""
    rows = []
    pairs = list(zip(episodes, supports, strict=True))
    for episode, shown in progress(pairs, label):
        shots = []
        for sample in shown:
            pixels, labels = sample.read()
            wanted = np.where(labels == IGNORE, IGNORE, labels == episode.identity)
            shots.append((pixels, wanted.astype(np.uint8)))
        pixels, labels = episode.query.read()
        result = segmenter.prepare({"class": shots}).segment(pixels)
        found, known = result.raw_labels == 1, labels != IGNORE
        truth = labels == episode.identity
        both, either = (found & truth).sum(), ((found | truth) & known).sum()
        rows.append((int(both), int(either), result.present["class"], result.timings["match"]))
    both, either, present, ms = (np.array(column) for column in zip(*rows, strict=True))
    return Outcome(list(episodes), both, either, present, match_ms=ms)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every variant and print the table; the result, ready for JSON."""
    variants = read_variants(options.variants)
    encoder, header = trained_encoder(options.checkpoint)
    trained = header["method"]["name"]
    data = settings_from_json(DataSettings, header["settings"]["data"], "data")
    samples = open_samples(data, options.data_root)[1]
    episodes = list_episodes(samples, ProtocolSettings(options.pictures, 2, LEAST, options.seed))
    if not episodes:
        raise ValueError(
            f"{options.checkpoint}: expected pictures that its run watched, got none with a class "
            "that two of them show. Take a checkpoint of a set with pictures that are not split "
            "train."
        )
    supports = supports_of(episodes, samples, options.shots, options.seed)
    multiple = int(getattr(encoder, "multiple", 1))
    side = max(1, round(options.side / multiple)) * multiple
    torch_graph = TorchGraph(encoder, (side, side), bfloat16=True)
    grid = (torch_graph.outputs[0].shape[2], torch_graph.outputs[0].shape[3])
    graphs: dict[str, Graph] = {
        "encoder": RememberingGraph(torch_graph, 8 << 30, half=True),
        **head_graphs(options.checkpoint, trained, grid, bfloat16=True),
    }
    entry = {
        "size": [side, side],
        "geometry": "squash",
        "mean": list(encoder.mean),
        "std": list(encoder.std),
    }
    outcomes: dict[str, Outcome] = {}
    for variant in variants:
        changes = changes_of(variant.settings)
        chosen = method_of(header["method"], variant.method, changes)
        segmenter = segmenter_on(graphs, trained, chosen, entry, options.threads)
        outcomes[variant.name] = measure(segmenter, episodes, supports, variant.name)
    rows = _rows(outcomes)
    pictures = len({e.query.key for e in episodes})
    print(
        f"{len(episodes)} {options.shots}-shot episodes in {pictures} pictures of base classes "
        f"that were not trained on; input {side} x {side}, encoder in bf16; IoU at the pictures' "
        "size"
    )
    print(markdown([["variant", "mean IoU %", "less the first", "match ms"], *map(_cells, rows)]))
    return {
        "checkpoint": {"sha256": digest_of(options.checkpoint), "settings": header["settings"]},
        "shots": options.shots,
        "episodes": len(episodes),
        "seed": options.seed,
        "side": side,
        "variants": {v.name: [v.method, *v.settings] for v in variants},
        "rows": rows,
    }


def _rows(outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    first = next(iter(outcomes.values()))
    rows = []
    for name, outcome in outcomes.items():
        difference = [round(x, DECIMALS) for x in paired_interval(outcome, first)]
        rows.append(
            {
                "variant": name,
                "miou": round(outcome.mean_iou(), DECIMALS),
                "difference": difference,
                "match_ms": round(float(np.median(outcome.match_ms)), DECIMALS),
            }
        )
    return rows


def _cells(row: Mapping[str, Any]) -> list[str]:
    mean, low, high = row["difference"]
    return [
        row["variant"],
        f"{row['miou']:.1f}",
        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{row['match_ms']:.1f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("variants", type=Path, help="TOML; training/configs has srofb-ablation.toml")
    add("--data-root", type=Path, required=True)
    add("--shots", type=int, default=1)
    add("--pictures", type=int, default=100, help="queries, at most")
    add("--side", type=int, default=417, help="of the input, rounded to the encoder's multiple")
    add("--seed", type=int, default=0)
    add("--threads", type=int)
    add("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if min(options.shots, options.pictures, options.side) < 1:
        parser.error("--shots, --pictures and --side take 1 or more")
    try:
        found = compare(options)
        if options.json is not None:
            write_whole(options.json, json.dumps(found, indent=1) + "\n")
    except (OSError, ValueError, FssegError) as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
