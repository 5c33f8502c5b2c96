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

from training.evaluation.lists import FewShot
from training.evaluation.metrics import confusion
from training.evaluation.pictures import mark, resized, way_labels
from training.evaluation.pool import Pool
from training.evaluation.predictor import Predictor

T = TypeVar("T")


class Setting(NamedTuple):
    """What a row of a table is about, within a fold."""

    shots: int
    ways: int
    annotation: str


class Support(NamedTuple):
    """What becomes one row: a class of a picture, annotated in one way."""

    picture: str
    identity: int
    annotation: str


@dataclass(frozen=True)
class FoldCounts:
    """confusions: setting -> name of a resolution -> ``[E, N + 1, N + 1]`` pixels, rows of the
    truth; E runs over the episodes of all runs. ms_per_query: from a decoded picture to its
    labels, encoder (the median over pictures that went through it) and all else (the median over
    queries). encoded: how often the encoder ran. seconds: of the whole fold."""

    confusions: Mapping[Setting, Mapping[str, NDArray[np.int64]]]
    ms_per_query: float
    encoded: int
    seconds: float


def measure(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    annotations: Sequence[str],
) -> FoldCounts:
    """Run every episode of a fold.

    Args:
        lists: (shots, ways) -> the episodes of all runs, one after another.
        annotations: kinds of marks; each list is run with each.
    """
    began, before = perf_counter(), len(predictor.times)
    rows = _supports(predictor, pool, lists, annotations)
    confusions, times = _queries(predictor, pool, lists, annotations, rows)
    encoder = predictor.times[before:]
    return FoldCounts(
        confusions,
        1e3 * float(np.median(encoder) + np.median(times)),
        len(encoder),
        perf_counter() - began,
    )


def _supports(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    annotations: Sequence[str],
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
        pixels, labels = sample.read()
        asked = [Support(key, c, kind) for c in sorted(wanted[key]) for kind in annotations]
        marks = [mark(a.annotation, sample, labels, a.identity, pool.protocol) for a in asked]
        rows.update(zip(asked, predictor.summarise(pixels, marks), strict=True))
    return rows


def _queries(
    predictor: Predictor,
    pool: Pool,
    lists: Mapping[tuple[int, int], Sequence[FewShot]],
    annotations: Sequence[str],
    rows: Mapping[Support, Any],
) -> tuple[dict[Setting, dict[str, NDArray[np.int64]]], list[float]]:
    asked: dict[str, list[tuple[tuple[int, int], int]]] = defaultdict(list)
    for kind, episodes in lists.items():
        for index, episode in enumerate(episodes):
            asked[episode.query].append((kind, index))
    counts: dict[Setting, dict[str, NDArray[np.int64]]] = {
        Setting(*kind, annotation): {} for kind in lists for annotation in annotations
    }
    times: list[float] = []
    for key in progress(sorted(asked, reverse=True), f"fold {pool.fold.number}, queries"):
        pixels, labels = pool.samples[key].read()
        sizes = pool.protocol.counted((labels.shape[0], labels.shape[1]))
        at = {name: resized(labels, size) for name, size in sizes.items()}
        first = True  # later ones find what the first has made of the picture
        for kind, index in asked[key]:
            episode = lists[kind][index]
            identities = tuple(identity for identity, _ in episode.support)
            truths = {
                name: way_labels(each, identities, pool.protocol.query_ignore)
                for name, each in at.items()
            }
            for annotation in annotations:
                ways = [
                    [rows[Support(k, identity, annotation)] for k in keys]
                    for identity, keys in episode.support
                ]
                begin, before = perf_counter(), len(predictor.times)
                found = predictor.segment(pixels, ways, list(sizes.values()))
                if first:
                    seconds = perf_counter() - begin
                    times.append(seconds - sum(predictor.times[before:]))
                first = False
                setting = counts[Setting(*kind, annotation)]
                for (name, truth), labelled in zip(truths.items(), found, strict=True):
                    n = len(ways) + 1
                    if name not in setting:
                        setting[name] = np.zeros((len(lists[kind]), n, n), np.int64)
                    setting[name][index] = confusion(labelled, truth, n)
    return counts, times


def progress(items: Sequence[T], label: str) -> Iterable[T]:
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, desc=label, mininterval=2, disable=None)
    return bar
