"""Bundles on any labelled set, through the SDK: 1-shot episodes, mean-IoU, presence, intervals.

The same code path that users run (`Segmenter.prepare`, `Task.segment`) at native resolution, except
that a `remembering.RememberingGraph` may keep a picture's features after the first pass, since an
episode list meets each picture many times. The published protocols are in `protocols`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Segmenter, Task
from fsseg_sdk.tiling import Tile
from training.datasets import IGNORE, Sample
from training.evaluation.bootstrap import interval, picture_weights
from training.evaluation.metrics import Cells


@dataclass(frozen=True)
class ProtocolSettings:
    """``pictures`` queries per set, up to ``classes`` of each, a random support for each of those.

    Classes that cover less than ``least_fraction`` of a picture are neither asked for nor shown.
    """

    pictures: int = 100
    classes: int = 3
    least_fraction: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class Episode:
    """Where does ``query`` show class ``identity``, as ``support`` does? ``absent``: nowhere."""

    dataset: str
    identity: int
    support: Sample
    query: Sample
    absent: bool = False


def list_episodes(
    samples: Sequence[Sample], settings: ProtocolSettings | None = None
) -> list[Episode]:
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
        shown = [
            i
            for i, f in sorted(query.classes.items())
            if f >= settings.least_fraction and len(members[i]) > 1
        ]
        for identity in generator.sample(shown, min(settings.classes, len(shown))):
            support = generator.choice([s for s in members[identity] if s is not query])
            episodes.append(Episode(query.dataset, identity, support, query))
    return episodes


def with_absent(
    episodes: Sequence[Episode],
    samples: Sequence[Sample],
    seed: int = 0,
    source: Literal["own", "any"] = "own",
) -> list[Episode]:
    """Each episode, and the same support asked for in a picture that does not show the class.

    Args:
        samples: where those pictures come from.
        source: ``"own"`` takes a picture of the episode's own set whose labels lack the class;
            where all of them show it, one of another set. ``"any"`` draws one of the sets of
            ``samples``, each alike, then one of its pictures: easier, since that often shows
            another kind of scene. The labels of another set do not know the class: that its
            pictures lack it is an assumption.
    """
    generator = random.Random(seed)
    by_set: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_set[sample.dataset].append(sample)
    result = []
    for episode in episodes:
        own = [s for s in by_set[episode.dataset] if episode.identity not in s.classes]
        others = [n for n, members in by_set.items() if members and n != episode.dataset]
        sets = [*([episode.dataset] if own else []), *others]
        if not sets:
            continue
        name = generator.choice(sets) if source == "any" or not own else episode.dataset
        query = generator.choice(own if name == episode.dataset else by_set[name])
        result.append(episode)
        result.append(
            Episode(episode.dataset, episode.identity, episode.support, query, absent=True)
        )
    return result


@dataclass
class Outcome:
    """What one bundle gave on a list of episodes; one entry per episode. match_ms: of the method,
    after the encoder."""

    episodes: list[Episode]
    intersections: NDArray[np.int64]
    unions: NDArray[np.int64]
    presence: NDArray[np.float64]
    described: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    match_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def mean_iou(self, counts: NDArray[np.float64] | None = None) -> float:
        """Percent: per class summed intersection over summed union; mean over classes, then sets.

        Args:
            counts: ``[episodes]`` how often each counts (for the bootstrap); once if None.
        """
        return self._cells().mean_iou(self.intersections, self.unions, counts)

    def _cells(self) -> Cells:
        episodes = self.episodes
        return Cells.of([e.dataset for e in episodes], [e.identity for e in episodes])

    def of(self, *datasets: str) -> Outcome:
        """The part of these data sets."""
        return self.where([episode.dataset in datasets for episode in self.episodes])

    def where(self, chosen: Sequence[bool]) -> Outcome:
        """The episodes for which ``chosen`` is true."""
        rows = np.asarray(chosen, np.bool_)
        return Outcome(
            [e for e, keep in zip(self.episodes, chosen, strict=True) if keep],
            self.intersections[rows],
            self.unions[rows],
            self.presence[rows],
            self.described[rows] if len(self.described) else self.described,
            self.match_ms[rows] if len(self.match_ms) else self.match_ms,
        )


def paired_interval(
    first: Outcome, second: Outcome, repeats: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean-IoU of ``first`` less that of ``second``, and its 95 % interval.

    Bootstrap over query pictures within each set, the same pictures for both.
    """
    if first.episodes != second.episodes:
        raise ValueError(
            "first, second: expected outcomes of the same episodes, got different lists"
        )
    weights = picture_weights(
        [episode.query.key for episode in first.episodes],
        [episode.dataset for episode in first.episodes],
        repeats,
        seed,
    )
    cells = first._cells()

    def difference(counts: NDArray[np.float64] | None) -> float:
        own = cells.mean_iou(first.intersections, first.unions, counts)
        return own - cells.mean_iou(second.intersections, second.unions, counts)

    return (difference(None), *interval(difference, weights))


def progress(items: Sequence[Episode], label: str) -> Iterator[Episode]:
    from tqdm import tqdm

    yield from tqdm(items, desc=label, mininterval=2, disable=None)


Annotate = Callable[[NDArray[np.uint8], Episode], object]
"""From a mask [H, W] of 0, 1 and 255 (ignore) to an annotation that `Segmenter.prepare` takes."""
AuxiliaryOf = Callable[[Episode], Sequence[Sample]]
"""Pictures of which `Segmenter.prepare` is told only that they show the episode's class."""


def evaluate(
    segmenter: Segmenter,
    episodes: Sequence[Episode],
    label: str = "",
    *,
    annotate: Annotate | None = None,
    auxiliary: AuxiliaryOf | None = None,
    tile: Tile = None,
) -> Outcome:
    """Run every episode through the SDK at the query's native size; ignored pixels don't count.

    Args:
        label: of the progress bar.
        annotate: makes what the support is labelled with, instead of its mask; called once for
            each support and class.
        auxiliary: called for each episode.
        tile: as in `Task.segment`.
    """
    intersections, unions, presence, described, match_ms = [], [], [], [], []
    tasks: dict[tuple[str, int], Task] = {}
    for episode in progress(list(episodes), label):
        key = (episode.support.key, episode.identity)
        if key not in tasks:
            pixels, labels = episode.support.read()
            mask = np.where(labels == IGNORE, IGNORE, labels == episode.identity).astype(np.uint8)
            marked = mask if annotate is None else annotate(mask, episode)
            tasks[key] = segmenter.prepare({"class": (pixels, marked)})
        task, more = tasks[key], [] if auxiliary is None else auxiliary(episode)
        if more:
            task = task.add(auxiliary={"class": [sample.read()[0] for sample in more]})
        pixels, labels = episode.query.read()
        result = task.segment(pixels, tile=tile)
        found, known = result.raw_labels == 1, labels != IGNORE
        truth = (labels == episode.identity) & known & (not episode.absent)
        intersections.append(int((found & truth).sum()))
        unions.append(int(((found | truth) & known).sum()))
        presence.append(result.present["class"])
        described.append(task.describe(result)[0])
        match_ms.append(result.timings["match"])
    return Outcome(
        list(episodes),
        np.array(intersections),
        np.array(unions),
        np.array(presence),
        np.array(described),
        np.array(match_ms),
    )
