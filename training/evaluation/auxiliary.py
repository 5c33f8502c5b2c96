"""Auxiliary pictures of an episode: their class is told, their masks are withheld.

They are drawn from the pool for every episode, by its query and its first support, so that they
need no lists of their own: those of fewer are the first of more, and every method meets the same.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from training.evaluation.lists import FewShot
from training.evaluation.lots import Lot
from training.evaluation.pool import Pool


class Given(NamedTuple):
    """What a class gets beside its supports. auxiliary: U, pictures that show it; wrong: pictures
    that do not, but are said to."""

    auxiliary: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        return f"U = {self.auxiliary}" + (f" + {self.wrong} wrong" if self.wrong else "")


NOTHING = Given()


@dataclass(frozen=True)
class Auxiliary:
    """Keys of a class's auxiliary pictures, right and wrong ones, or what was made of them."""

    right: tuple[Any, ...]
    wrong: tuple[Any, ...]

    def first(self, given: Given) -> tuple[Any, ...]:
        return self.right[: given.auxiliary] + self.wrong[: given.wrong]


def draw_auxiliary(pool: Pool, episode: FewShot, most: Given) -> list[Auxiliary]:
    """For each class of the episode, in its order: up to ``most.auxiliary`` pictures that show
    enough of the class to be supports, and ``most.wrong`` that show none of it. The query and the
    supports are never among them. A class with too few pictures gives those that it has."""
    taken = {episode.query, *(key for _, keys in episode.support for key in keys)}
    found = []
    for identity, keys in episode.support:
        name = (pool.protocol.name, pool.fold.split, pool.fold.number, episode.query, keys[0])
        right = [key for key in pool.supports[identity] if key not in taken]
        wrong = [
            key
            for key in sorted(pool.samples)
            if most.wrong and key not in taken and identity not in pool.samples[key].classes
        ]
        found.append(
            Auxiliary(
                _some(Lot(*name, "auxiliary", identity), right, most.auxiliary),
                _some(Lot(*name, "wrong", identity), wrong, most.wrong),
            )
        )
    return found


def most_of(every: Sequence[Given]) -> Given:
    """Enough for each of them."""
    return Given(*(max(numbers) for numbers in zip(*every, strict=True)))


def mean_number(
    pool: Pool, episodes: Sequence[FewShot], given: Given, broken: Container[str] = ()
) -> float:
    """How many auxiliary pictures a class really gets, on average over the episodes. broken: keys
    of pictures that could not be used."""
    if given == NOTHING:
        return 0.0
    counts = [
        sum(key not in broken for key in drawn.first(given))
        for episode in episodes
        for drawn in draw_auxiliary(pool, episode, given)
    ]
    return sum(counts) / len(counts)


def given_of(row: Mapping[str, Any]) -> Given:
    """Of a row of a result; older ones do not say it."""
    return Given(*(int(row.get(name, 0)) for name in Given._fields))


def _some(lot: Lot, keys: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(lot.some(keys, min(count, len(keys))))
