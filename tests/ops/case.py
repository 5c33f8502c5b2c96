"""A row of an op's table: what the conformance suite, the replayer and the benchmarks run."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arguments = dict[str, Any]
Maker = Callable[[np.random.Generator], Arguments]


@dataclass(frozen=True)
class Case:
    """An op, a printable name, and a function that makes the op's named arguments.

    It is handed a random generator seeded by the name.
    """

    op: str
    name: str
    maker: Maker

    def arguments(self) -> Arguments:
        """Fresh arguments; the same each time."""
        return self.maker(np.random.default_rng(zlib.crc32(f"{self.op} {self.name}".encode())))

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"
