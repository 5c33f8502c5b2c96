"""Lists of episodes in two passes over the pictures, so that none is encoded for every episode.

First the supports: each picture is decoded and encoded once, and all its classes and annotations
become rows (prototypes, say), which are small. Then the queries: each is encoded once and matched
with the rows of every episode that asks in it. Features are not held: 1,500 maps of 1024 x 53 x 53
are 17 GB in float32. Where a predictor keeps some (``most_bytes``), the queries run backwards, so
that those kept last are used first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.datasets import DataError
from training.datasets.sample import read_picture
from training.evaluation.auxiliary import NOTHING, Auxiliary, Given, draw_auxiliary, most_of
from training.evaluation.lists import FewShot
from training.evaluation.metrics import confusion
from training.evaluation.pictures import mark, resized, way_labels
from training.evaluation.pool import Pool
from training.evaluation.predictor import Predictor

T = TypeVar("T")
MOST_BROKEN = 100  # then it is no single picture that is broken
MOST_TIMED = 50


class Setting(NamedTuple):
    """What a row of a table is about, within a fold."""

    shots: int
    ways: int
    annotation: str
    auxiliary: int = 0
    wrong: int = 0

    @property
    def given(self) -> Given:
        """Pictures that a class has beside its supports."""
        return Given(self.auxiliary, self.wrong)


class Support(NamedTuple):
    """What becomes one row: a class of a picture, annotated in one way."""

    picture: str
    identity: int
    annotation: str


@dataclass(frozen=True)
class FoldCounts:
    """confusions: setting -> name of a resolution -> ``[E, N + 1, N + 1]`` pixels, rows of the
    truth; E runs over those episodes of all runs that could be run. ms_per_query: from a decoded
    picture to its labels at its own size, with supports that are prepared: encoder (the median over
    pictures that went through it) and all else (the median over some queries); None where the
    encoder did not run. encoded: how often it ran. seconds: of the whole fold. kept: (shots, ways)
    -> which episodes were run, all but those that meet a broken picture. broken: picture -> what
    is wrong with it."""

    confusions: Mapping[Setting, Mapping[str, NDArray[np.int64]]]
    ms_per_query: float | None
    encoded: int
    seconds: float
    kept: Mapping[tuple[int, int], Sequence[int]]
    broken: Mapping[str, str]


def measure(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    annotations: Sequence[str],
    skip_broken: bool = False,
    given: Sequence[Given] = (NOTHING,),
) -> FoldCounts:
    """Run every episode of a fold.

    Args:
        lists: (shots, ways) -> the episodes of all runs, one after another.
        annotations: kinds of marks; each list is run with each.
        skip_broken: leave out episodes with a picture that cannot be used, 100 pictures at most.
        given: numbers of auxiliary pictures; each list is run with each.

    Raises:
        DataError: a picture or mask cannot be used; the message names the file.
    """
    began, before = perf_counter(), len(predictor.times)
    broken = Broken(skip_broken)
    rows = _supports(predictor, pool, lists, annotations, broken)
    settings = [Setting(*k, a, *g) for k in lists for a in annotations for g in given]
    confusions, times = _queries(predictor, pool, lists, settings, rows, broken)
    kept = {
        kind: [index for index, each in enumerate(episodes) if not broken.meets(each)]
        for kind, episodes in lists.items()
    }
    for setting, found in confusions.items():
        for name, counted in found.items():
            found[name] = counted[kept[setting.shots, setting.ways]]
    encoder = predictor.times[before:]
    known = len(encoder) > 0 and len(times) > 0
    return FoldCounts(
        confusions,
        1e3 * float(np.median(encoder) + np.median(times)) if known else None,
        len(encoder),
        perf_counter() - began,
        kept,
        broken.pictures,
    )


class Broken:
    """The pictures that cannot be used, where that was allowed."""

    def __init__(self, allowed: bool) -> None:
        self.allowed, self.pictures = allowed, dict[str, str]()

    def note(self, key: str, error: DataError) -> None:
        """
        Raises:
            DataError: none may be left out, or not that many.
        """
        if not self.allowed:
            raise error
        self.pictures[key] = str(error)
        if len(self.pictures) > MOST_BROKEN:
            raise DataError(
                f"more than {MOST_BROKEN} pictures cannot be used; the last: {error}", error.file
            ) from error

    def meets(self, episode: FewShot) -> bool:
        every = (key for _, keys in episode.support for key in keys)
        return episode.query in self.pictures or any(key in self.pictures for key in every)


def _supports(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    annotations: Sequence[str],
    broken: Broken,
) -> dict[Support, Any]:
    wanted: dict[str, set[int]] = defaultdict(set)
    for episodes in lists.values():
        for episode in episodes:
            for identity, keys in episode.support:
                for key in keys:
                    wanted[key].add(identity)
    rows: dict[Support, Any] = {}
    for key in progress(sorted(wanted), f"fold {pool.fold.number}, supports"):
        sample = pool.samples[key]
        asked = [Support(key, c, kind) for c in sorted(wanted[key]) for kind in annotations]
        try:
            pixels, labels = sample.read()
            marks = [mark(a.annotation, sample, labels, a.identity, pool.protocol) for a in asked]
        except DataError as error:
            broken.note(key, error)
            continue
        rows.update(zip(asked, predictor.summarise(pixels, marks), strict=True))
    return rows


def _queries(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    settings: Sequence[Setting],
    rows: Mapping[Support, Any],
    broken: Broken,
) -> tuple[dict[Setting, dict[str, NDArray[np.int64]]], list[float]]:
    asked: dict[str, list[tuple[tuple[int, int], int]]] = defaultdict(list)
    for kind, episodes in lists.items():
        for index, episode in enumerate(episodes):
            if not broken.meets(episode):
                asked[episode.query].append((kind, index))
    counts: dict[Setting, dict[str, NDArray[np.int64]]] = {setting: {} for setting in settings}
    most = most_of([setting.given for setting in settings])
    times: list[float] = []
    keys = sorted(asked, reverse=True)
    clocked = set(keys[:: -(-len(keys) // MOST_TIMED) or 1])
    for key in progress(keys, f"fold {pool.fold.number}, queries"):
        try:
            pixels, labels = pool.samples[key].read()
        except DataError as error:
            broken.note(key, error)
            continue
        sizes = pool.protocol.counted((labels.shape[0], labels.shape[1]))
        at = {name: resized(labels, size) for name, size in sizes.items()}
        for kind, index in asked[key]:
            episode = lists[kind][index]
            identities = tuple(identity for identity, _ in episode.support)
            truths = {
                name: way_labels(each, identities, pool.protocol.query_ignore)
                for name, each in at.items()
            }
            unmarked = auxiliary_rows(predictor, pool, episode, most, broken)
            for setting in settings:
                if (setting.shots, setting.ways) != kind:
                    continue
                ways = [
                    [rows[Support(k, identity, setting.annotation)] for k in shown]
                    for identity, shown in episode.support
                ]
                given = [each.first(setting.given) for each in unmarked]
                if key in clocked:
                    times.append(predictor.timed(pixels, ways, given))
                    clocked.remove(key)
                found = predictor.segment(pixels, ways, list(sizes.values()), given)
                for (name, truth), labelled in zip(truths.items(), found, strict=True):
                    n = len(ways) + 1
                    if name not in counts[setting]:
                        counts[setting][name] = np.zeros((len(lists[kind]), n, n), np.int64)
                    counts[setting][name][index] = confusion(labelled, truth, n)
    return counts, times


def auxiliary_rows(
    predictor: Predictor, pool: Pool, episode: FewShot, most: Given, broken: Broken
) -> list[Auxiliary]:
    """For each class of the episode, what the predictor makes of its auxiliary pictures. They are
    read again for every episode: their features take more memory than reading takes time.

    Raises:
        DataError: a picture cannot be read, and none may be left out.
    """
    if most == NOTHING:
        return [Auxiliary((), ())] * len(episode.support)

    def made(keys: Sequence[str]) -> tuple[Any, ...]:
        rows = []
        for key in keys:
            try:
                rows.append(predictor.summarise_auxiliary(read_picture(pool.samples[key].image)))
            except DataError as error:
                broken.note(key, error)
        return tuple(rows)

    return [Auxiliary(made(a.right), made(a.wrong)) for a in draw_auxiliary(pool, episode, most)]


def progress(items: Sequence[T], label: str) -> Iterable[T]:
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, desc=label, mininterval=2, disable=None)
    return bar
