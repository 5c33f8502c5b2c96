"""What a lower precision costs: mean-IoU on labelled pictures, or on drawn ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph
from training.datasets import Dataset, Sample
from training.evaluation.heldout import (
    Episode,
    Outcome,
    ProtocolSettings,
    evaluate,
    list_episodes,
    paired_interval,
)
from training.remembering import RememberingGraph
from training.scenes import draw_pair

QUERIES = 300  # at most, of each labelled set
DRAWS = 2  # examples for each class of a query
FIRST = 100  # episodes on which an encoder that loses far too much is seen
DRAWN, DRAWN_SIDE = 96, 160
MEMORY = 3 << 30  # bytes of features that are kept, at most


@dataclass(frozen=True)
class DrawnSample(Sample):
    """A picture that `training.scenes` drew, in memory."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return self.pixels, self.labels


@dataclass(frozen=True)
class Cost:
    """mean_iou: in per cent, of the lower precision; loss: points below float32, with its 95 %
    interval over the query pictures; part: on the first episodes alone, which were enough."""

    mean_iou: float
    loss: float
    low: float
    high: float
    part: bool = False

    @property
    def careful(self) -> float:
        """The loss and a standard error: an interval of 95 % is four of those wide."""
        return self.loss + (self.high - self.low) / 4

    def __str__(self) -> str:
        if np.isinf(self.loss):
            return "too far from float32's features to be measured"
        return (
            f"mean-IoU {self.mean_iou:.2f} %, {self.loss:+.2f} points lost "
            f"[{self.low:+.2f}, {self.high:+.2f}]{' on the first episodes' if self.part else ''}"
        )

    def against(self, most: float) -> str:
        """The cost in words, and whether its interval leaves open if it is below `most` points."""
        return f"{self}, an interval that includes {most:g}" if self.open(most) else str(self)

    def open(self, most: float) -> bool:
        """Whether more episodes might show a loss below `most` points."""
        return self.low <= most <= self.high


def episodes_of(folder: Path | None, queries: int = QUERIES) -> tuple[list[Episode], str]:
    """Episodes of a labelled set, or of every set in a folder of sets; and what they are. Pictures
    of the split "val" where there are any, else all. None: drawn pictures.

    Raises:
        FileNotFoundError: no labelled set is there.
        ValueError: none of them has a class in two pictures.
    """
    if folder is None:
        return list(_drawn()), f"{DRAWN} drawn pairs of pictures, no labelled ones"
    sets = sorted(path.parent for path in folder.glob("index.jsonl"))
    sets = sets or sorted(path.parent for path in folder.glob("*/index.jsonl"))
    if not sets:
        raise FileNotFoundError(
            f"--episodes: expected a labelled set (docs/data.md) or a folder of some, got "
            f"{folder.name!r} without an index.jsonl"
        )
    episodes: list[Episode] = []
    for path in sets:
        samples = Dataset.open(path).samples
        held = [sample for sample in samples if sample.split == "val"] or list(samples)
        for seed in range(DRAWS):
            episodes += list_episodes(held, ProtocolSettings(queries, seed=seed))
    if not episodes:
        raise ValueError(f"--episodes: no class is in two pictures of {folder.name!r}")
    return episodes, f"{len(episodes)} episodes of {', '.join(path.name for path in sets)}"


@functools.cache
def _drawn() -> tuple[Episode, ...]:
    episodes = []
    for seed in range(DRAWN):
        pair = [
            DrawnSample(
                "drawn", Path(f"{seed}-{index}"), Path(), "val", {1: 0.1}, "drawn", None, *drawn
            )
            for index, drawn in enumerate(draw_pair(np.random.default_rng(1000 + seed), DRAWN_SIDE))
        ]
        episodes.append(Episode("drawn", 1, pair[0], pair[1]))
    return tuple(episodes)


class Judge:
    """Runs the same episodes on other encoders of one bundle.

    Args:
        manifest: of the bundle, as JSON. graphs: all of its graphs, in float32.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        graphs: Mapping[str, Graph],
        episodes: Sequence[Episode],
    ) -> None:
        self.manifest, self.graphs, self.episodes = manifest, dict(graphs), list(episodes)
        self.exact = evaluate(self._segmenter(graphs["encoder"]), self.episodes, "float32")

    def cost(self, encoder: Graph, label: str = "", most: float = np.inf) -> Cost:
        """Of this encoder, where the others of the bundle's graphs stay in float32. One that loses
        more than `most` points on a part of the episodes, with its whole interval, is not measured
        on the others."""
        segmenter = self._segmenter(encoder)
        step = len(self.episodes) // FIRST  # a part of every set
        if step > 1 and np.isfinite(most):
            chosen = np.arange(len(self.episodes)) % step == 0
            exact = self.exact.where(chosen)
            cost = _cost(exact, evaluate(segmenter, exact.episodes, label), part=True)
            if cost.low > most:
                return cost
        return _cost(self.exact, evaluate(segmenter, self.episodes, label))

    def _segmenter(self, encoder: Graph) -> Segmenter:
        remembering = RememberingGraph(encoder, MEMORY, half=True)
        return Segmenter({**self.graphs, "encoder": remembering}, self.manifest, threads=1)


def _cost(exact: Outcome, found: Outcome, part: bool = False) -> Cost:
    return Cost(found.mean_iou(), *paired_interval(exact, found), part)
