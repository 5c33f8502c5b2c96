"""A row of `benchmarks backends`: one backend in one precision, beside the first in fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks import report, stages
from fsseg_sdk import Segmenter
from fsseg_sdk.image import read_image
from training.evaluation import Episode
from training.evaluation.heldout import Outcome, evaluate, paired_interval
from training.remembering import RememberingGraph
from training.scenes import draw_pair

SIDE = 480


class Rows:
    """Measures rows, each on the same drawn query and the same episodes.

    exact: the bundle in ONNX Runtime, in float32. manifest: of the bundle, as JSON. memory: bytes
    of features that are kept while the episodes run.
    """

    def __init__(
        self,
        exact: Segmenter,
        manifest: Mapping[str, Any],
        episodes: Sequence[Episode],
        seconds: float,
        memory: int,
    ) -> None:
        self.manifest, self.episodes = manifest, episodes
        self.seconds, self.memory = seconds, memory
        (self.shown, families), (self.query, _) = draw_pair(np.random.default_rng(1), SIDE)
        self.mask = families == 1
        self.features = self._features(exact)
        self.first: Outcome | None = None  # of the first row in fp32

    def measure(self, segmenter: Segmenter) -> dict[str, Any]:
        task = segmenter.prepare({"thing": (self.shown, self.mask)})
        times = stages.measure(task, self.query, self.seconds)
        off = np.square(self._features(segmenter) - self.features).sum()
        row: dict[str, Any] = {
            "backend": segmenter.backend,
            "device": segmenter.device,
            "precision": segmenter.precision,
            "ms": times["total"]["p50"],
            "encoder_ms": times["encoder"]["p50"],
            "fps": times["fps"],
            "feature_error": float(np.sqrt(off / np.square(self.features).sum())),
            "warnings": list(segmenter.warnings),
        }
        if self.episodes:
            found = self._outcome(segmenter)
            row["mean_iou"] = found.mean_iou()
            if self.first is not None:
                row["lost"] = paired_interval(self.first, found)
            elif row["precision"] == "fp32":
                self.first = found
        return row

    def _features(self, segmenter: Segmenter) -> Any:
        return segmenter._core.encoder.encode([read_image(self.query)]).features

    def _outcome(self, segmenter: Segmenter) -> Outcome:
        core = segmenter._core
        kept = RememberingGraph(core.encoder.graph, self.memory, half=True)
        remembering = Segmenter(
            {**core.graphs, "encoder": kept}, self.manifest, threads=core.threads
        )
        return evaluate(remembering, self.episodes, f"{segmenter.backend} {segmenter.precision}")


def show(name: str, rows: Sequence[Mapping[str, Any]], refused: Sequence[str]) -> None:
    first = next((row["ms"] for row in rows if row["precision"] == "fp32"), float("nan"))
    head = ["backend", "precision", "ms", "encoder", "FPS", "times", "mean-IoU", "points lost"]
    cells = [[*head, "MB", "feature error"]]
    for row in rows:
        iou = f"{row['mean_iou']:.2f} %" if "mean_iou" in row else ""
        lost = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*row["lost"]) if "lost" in row else ""
        place = "" if row["device"] == "cpu" else f" {row['device']}"
        cells.append(
            [
                f"{row['backend']}{place}",
                row["precision"],
                f"{row['ms']:.1f}",
                f"{row['encoder_ms']:.1f}",
                f"{row['fps']:.1f}",
                f"{first / row['ms']:.2f}",
                iou,
                lost,
                f"{row['bundle_mb']:.1f}",
                f"{row['feature_error']:.2%}",
            ]
        )
    print(
        f"\n{name}: a query of {SIDE}x{SIDE}, one thread each; times as fast as the first fp32, "
        "points of mean-IoU\nlost against it [95 %, paired]"
    )
    print(report.table(cells))
    for line in (*refused, *dict.fromkeys(note for row in rows for note in row["warnings"])):
        print(fill(line, 100))


def panels(results: Mapping[str, Any]) -> list[tuple[str, dict[str, dict[str, float]], str]]:
    """For `report.bars`: milliseconds and mean-IoU of each bundle."""
    found: list[tuple[str, dict[str, dict[str, float]], str]] = []
    for name, result in results.items():
        for key, label in (("ms", "ms a query"), ("mean_iou", "mean-IoU, %")):
            groups: dict[str, dict[str, float]] = {}
            for row in result["rows"]:
                if key in row:
                    group = groups.setdefault(f"{row['backend']} {row['device']}", {})
                    group[row["precision"]] = row[key]
            if groups:
                found.append((name, groups, label))
    return found
