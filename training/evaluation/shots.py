"""What the runtime's methods keep of a shot or an auxiliary picture, and tasks made of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk.core import Core
from fsseg_sdk.methods import State, combine
from fsseg_sdk.task import Task

LARGE = 1 << 20
"""Bytes of a state's array from which on it is held in float16."""


class Row(NamedTuple):
    """What a method keeps of one shot, or of one auxiliary picture."""

    core: Core
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, task: Task) -> Row:
        """Pixels are held in float16, if the method keeps any: there are thousands of rows."""
        return cls(
            task.core,
            {
                name: array.astype(np.float16) if array.nbytes > LARGE else array
                for name, array in task.state.arrays.items()
            },
        )

    def state(self, way: int) -> State:
        wide = {
            name: array.astype(np.float32) if array.dtype == np.float16 else array
            for name, array in self.arrays.items()
        }
        return State(np.full(1, way, np.int64), wide)


def joined(ways: Sequence[Sequence[Row]], unmarked: Sequence[Sequence[Row]] = ()) -> Task:
    """The task of these shots and auxiliary pictures, as if they had been prepared together."""
    state = combine([row.state(way) for way, rows in enumerate(ways) for row in rows])
    more = [row.state(way) for way, rows in enumerate(unmarked) for row in rows]
    if more:
        state = state.with_auxiliary(combine(more))
    names = [f"class {way}" for way in range(1, len(ways) + 1)]
    return Task.fit(ways[0][0].core, names, state)
