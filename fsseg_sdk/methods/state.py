"""What a method keeps of a support: rows of arrays, which can be put together and stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["State", "check_state", "combine"]


@dataclass(frozen=True)
class State:
    """What a method keeps of the support: arrays with one row a shot, first axis S.

    Rows of different `summarise` calls can be put together with `combine`, so that a task
    can take one more class or shot without encoding anything twice. Arrays are float32 or
    int64; a task file stores them as they are.

    auxiliary: the same of pictures of which only the class is known, one row a picture (and itself
    without any); None where there are none.
    """

    way: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]
    auxiliary: State | None = None

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.shape[:1] != self.way.shape:
                raise InputError(
                    f"state array {name!r}",
                    expected=f"{len(self.way)} rows, one a shot",
                    got=f"shape {array.shape}",
                    remedy="Build the state with one row per shot.",
                )

    def __len__(self) -> int:
        return len(self.way)

    def select(self, rows: NDArray[np.int64]) -> State:
        """The state of these shots, in this order; auxiliary pictures stay."""
        if np.array_equal(rows, np.arange(len(self))):
            return self  # arrays may be features, which are large
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return State(self.way[rows], arrays, self.auxiliary)

    def with_auxiliary(self, more: State) -> State:
        """The same with more rows of auxiliary pictures, behind those that it has."""
        rows = [more] if self.auxiliary is None else [self.auxiliary, more]
        return replace(self, auxiliary=combine(rows))


def check_state(state: State, tails: Mapping[str, tuple[int, ...]]) -> None:
    """InputError unless the state has exactly these float32 arrays, of shape [S, *tail]; -1 in a
    tail is any length. For states that come from a file."""
    for name in (*tails, *(name for name in state.arrays if name not in tails)):
        tail = tails.get(name)
        array = state.arrays.get(name)
        fits = (
            tail is not None
            and array is not None
            and array.dtype == np.float32
            and array.ndim == 1 + len(tail)
            and all(n in (-1, length) for n, length in zip(tail, array.shape[1:], strict=True))
        )
        if not fits:
            raise InputError(
                f"state array {name!r}",
                expected="none" if tail is None else f"float32 [S, {', '.join(map(str, tail))}]",
                got="none" if array is None else f"{array.dtype} {list(array.shape)}",
                remedy="The state was not made by this method and encoder; prepare it again.",
            )


def combine(states: Sequence[State]) -> State:
    """Rows of all states, in order, and those of their auxiliary pictures. The states come from
    one method and one encoder."""
    if len(states) == 1:
        return states[0]
    names = list(states[0].arrays)
    for state in states[1:]:
        if list(state.arrays) != names:
            raise InputError(
                "states",
                expected=f"arrays {names} in each",
                got=f"{list(state.arrays)}",
                remedy="Combine states of one method only.",
            )
    auxiliary = [state.auxiliary for state in states if state.auxiliary is not None]
    return State(
        np.concatenate([state.way for state in states]),
        {name: np.concatenate([state.arrays[name] for state in states]) for name in names},
        combine(auxiliary) if auxiliary else None,
    )
