"""Lots that fall the same on every machine and in every version of Python: SHA-256 of a name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Lot:
    """A stream of draws that depends on its names alone."""

    def __init__(self, *names: str | int) -> None:
        self._name = " ".join(map(str, names))
        self._drawn = 0

    def below(self, count: int) -> int:
        """One of 0..count-1, each as likely as the others (to 2^-200)."""
        digest = hashlib.sha256(f"{self._name} {self._drawn}".encode()).digest()
        self._drawn += 1
        return int.from_bytes(digest, "big") % count

    def choose(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different ones; the first of more are the same as those of fewer."""
        left, drawn = list(items), []
        for _ in range(count):
            place = self.below(len(left))
            drawn.append(left[place])
            left[place] = left[-1]
            left.pop()
        return drawn
