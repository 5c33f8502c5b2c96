"""Intervals by bootstrap over query pictures: pictures are drawn, not episodes.

Episodes that ask in the same picture are not independent, and pictures are what a test set has
too few of. For a difference, the same pictures are drawn for both methods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.float64]], float]
"""From how often each entry counts, ``[E]``, to a figure."""


def picture_weights(
    pictures: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> Iterator[NDArray[np.float64]]:
    """``repeats`` times ``[E]``: how often each entry counts when pictures are drawn with
    replacement, as many as there are.

    Args:
        pictures: ``[E]`` the query of each entry.
        strata: ``[E]`` its data set, for example; pictures are drawn within each.
    """
    numbers: dict[Hashable, dict[Hashable, int]] = {}
    place = np.empty(len(pictures), np.intp)
    stratum = np.empty(len(pictures), np.intp)
    order: dict[Hashable, int] = {}
    for index, picture in enumerate(pictures):
        name = None if strata is None else strata[index]
        stratum[index] = order.setdefault(name, len(order))
        own = numbers.setdefault(name, {})
        place[index] = own.setdefault(picture, len(own))
    counts = [len(own) for own in numbers.values()]
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.intp)
    entry = starts[stratum] + place if len(place) else place
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        drawn = [np.bincount(generator.integers(n, size=n), minlength=n) for n in counts]
        yield np.concatenate(drawn)[entry].astype(np.float64)


def interval(
    statistic: Statistic, weights: Iterator[NDArray[np.float64]], percent: float = 95.0
) -> tuple[float, float]:
    """The middle ``percent`` of the statistic over these weights."""
    found = [statistic(each) for each in weights]
    edge = (100 - percent) / 2
    low, high = np.nanpercentile(found, [edge, 100 - edge])
    return float(low), float(high)
