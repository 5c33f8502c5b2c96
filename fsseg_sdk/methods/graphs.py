"""Graphs of a bundle beside the encoder: what they gave, if it has the right shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .base import NamedGraph

__all__ = ["run"]


def run(
    graphs: Mapping[str, NamedGraph],
    name: str,
    feeds: Mapping[str, NDArray[np.float32]],
    output: str,
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """A graph's output. BackendError unless it is there and has this shape; -1 is any length."""
    array = graphs[name].run(feeds).get(output)
    found = () if array is None else array.shape
    fits = len(found) == len(shape) and all(n in (-1, m) for n, m in zip(shape, found, strict=True))
    if array is not None and fits:
        return array
    raise BackendError(
        f"graph {name!r}, output {output!r}",
        expected=f"shape [{', '.join('any' if n == -1 else str(n) for n in shape)}]",
        got="none" if array is None else str(list(array.shape)),
        remedy="The graphs of the head do not fit each other or the features; export them again.",
    )
