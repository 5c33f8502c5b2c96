"""Measure bundles through the SDK: fixed 1-shot episodes at native resolution, mean-IoU, presence, paired intervals.

The same code path that users run (`Segmenter.prepare`, `Task.segment`), except that every picture's features are kept after
the first pass, since an episode list meets each picture many times.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph
from training.datasets import IGNORE, Sample


@dataclass(frozen=True)
class ProtocolSettings:
    """``pictures`` queries per set, up to ``classes`` of each, one random support of the class for each; classes that
    cover less than ``least_fraction`` of a picture are neither asked for nor shown."""

    pictures: int = 100
    classes: int = 3
    least_fraction: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class Episode:
    """Does ``query`` show class ``identity``, which ``support`` shows, and where? ``absent`` if it does not."""

    dataset: str
    identity: int
    support: Sample
    query: Sample
    absent: bool = False


def list_episodes(samples: Sequence[Sample], settings: ProtocolSettings | None = None) -> list[Episode]:
    """Episodes of one data set in which the class is in the query; the same for the same seed."""
    settings = settings or ProtocolSettings()
    generator = random.Random(settings.seed)
    members: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        for identity, fraction in sample.classes.items():
            if fraction >= settings.least_fraction:
                members[identity].append(sample)
    queries = sorted(samples, key=lambda sample: sample.key)
    generator.shuffle(queries)
    episodes: list[Episode] = []
    for query in queries[: settings.pictures]:
        shown = [i for i, f in sorted(query.classes.items()) if f >= settings.least_fraction and len(members[i]) > 1]
        for identity in generator.sample(shown, min(settings.classes, len(shown))):
            support = generator.choice([s for s in members[identity] if s is not query])
            episodes.append(Episode(query.dataset, identity, support, query))
    return episodes


def with_absent(episodes: Sequence[Episode], samples: Sequence[Sample], seed: int = 0) -> list[Episode]:
    """Each episode, and the same support asked for in a picture of ``samples`` that does not show the class at all.

    Pictures of the episode's own set come first; where all of them show the class, any other set's serve.
    """
    generator = random.Random(seed)
    result = []
    for episode in episodes:
        def lacks(sample: Sample, episode: Episode = episode) -> bool:
            return sample.dataset != episode.dataset or episode.identity not in sample.classes

        own = [s for s in samples if s.dataset == episode.dataset and lacks(s)]
        pool = own or [s for s in samples if s.dataset != episode.dataset]
        if not pool:
            continue
        result.append(episode)
        result.append(
            Episode(episode.dataset, episode.identity, episode.support, generator.choice(pool), absent=True)
        )
    return result


class RememberingGraph:
    """A graph that computes each input once. Holds every output: for evaluation only."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.backend, self.device, self.precision = graph.backend, graph.device, graph.precision
        self._known: dict[bytes, dict[str, NDArray[Any]]] = {}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        digest = hashlib.sha256()
        for name in sorted(feeds):
            digest.update(name.encode() + np.ascontiguousarray(feeds[name]).tobytes())
        key = digest.digest()
        if key not in self._known:
            self._known[key] = self.graph.run(feeds)
        return self._known[key]


@dataclass
class Outcome:
    """What one bundle gave on a list of episodes; one entry per episode."""

    episodes: list[Episode]
    intersections: NDArray[np.int64]
    unions: NDArray[np.int64]
    presence: NDArray[np.float64]
    described: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def mean_iou(self, counts: NDArray[np.float64] | None = None) -> float:
        """Percent: per class the summed intersection over the summed union, the mean over classes, then over sets.

        Args:
            counts: ``[episodes]`` how often each counts (for the bootstrap); once if None.
        """
        counts = np.ones(len(self.episodes)) if counts is None else counts
        sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for index, episode in enumerate(self.episodes):
            entry = sums[episode.dataset, episode.identity]
            entry[0] += counts[index] * self.intersections[index]
            entry[1] += counts[index] * self.unions[index]
        per_set: dict[str, list[float]] = defaultdict(list)
        for (dataset, _), (intersection, union) in sums.items():
            if union > 0:
                per_set[dataset].append(intersection / union)
        return 100 * float(np.mean([np.mean(v) for v in per_set.values()]))

    def of(self, dataset: str) -> Outcome:
        """The part of one data set."""
        rows = np.array([e.dataset == dataset for e in self.episodes])
        return Outcome(
            [e for e in self.episodes if e.dataset == dataset],
            self.intersections[rows],
            self.unions[rows],
            self.presence[rows],
        )


def paired_interval(
    first: Outcome, second: Outcome, repeats: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean-IoU of ``first`` less that of ``second``, and its 95 % interval.

    Bootstrap over query pictures within each set, the same pictures for both.
    """
    if first.episodes != second.episodes:
        raise ValueError("first, second: expected outcomes of the same episodes, got different lists")
    pictures: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, episode in enumerate(first.episodes):
        pictures[episode.dataset][episode.query.key].append(index)
    generator = np.random.default_rng(seed)
    differences = []
    for _ in range(repeats):
        counts = np.zeros(len(first.episodes))
        for groups in pictures.values():
            rows = list(groups.values())
            for chosen in generator.integers(len(rows), size=len(rows)):
                counts[rows[chosen]] += 1
        differences.append(first.mean_iou(counts) - second.mean_iou(counts))
    low, high = np.percentile(differences, [2.5, 97.5])
    return first.mean_iou() - second.mean_iou(), float(low), float(high)


def progress(items: Sequence[Episode], label: str) -> Iterator[Episode]:
    from tqdm import tqdm

    yield from tqdm(items, desc=label, mininterval=2, disable=None)


def evaluate(segmenter: Segmenter, episodes: Sequence[Episode], label: str = "") -> Outcome:
    """Run every episode through the SDK at the query's native size; ignored pixels count for nothing."""
    intersections, unions, presence, described = [], [], [], []
    tasks: dict[tuple[str, int], Any] = {}
    for episode in progress(list(episodes), label):
        key = (episode.support.key, episode.identity)
        if key not in tasks:
            pixels, labels = episode.support.read()
            mask = np.where(labels == IGNORE, IGNORE, labels == episode.identity).astype(np.uint8)
            tasks[key] = segmenter.prepare({"class": (pixels, mask)})
        pixels, labels = episode.query.read()
        result = tasks[key].segment(pixels)
        found, known = result.raw_labels == 1, labels != IGNORE
        truth = (labels == episode.identity) & known & (not episode.absent)
        intersections.append(int((found & truth).sum()))
        unions.append(int(((found | truth) & known).sum()))
        presence.append(result.present["class"])
        described.append(tasks[key].describe(result)[0])
    return Outcome(
        list(episodes), np.array(intersections), np.array(unions), np.array(presence), np.array(described)
    )


def auroc(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Chance that a picture with the class scores above one without (ties count half)."""
    above = scores[present][:, None] - scores[~present][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def calibration_error(scores: NDArray[np.float64], present: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: mean of |share present - mean score| over equal-width bins, weighted by count."""
    index = np.minimum((scores * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        rows = index == number
        if rows.any():
            error += float(rows.mean()) * abs(float(present[rows].mean()) - float(scores[rows].mean()))
    return error
