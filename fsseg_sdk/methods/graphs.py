"""Graphs of a bundle beside the encoder: what they gave, if it is what they should."""

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
    """A graph's output. BackendError unless it is there, float32, finite and of this shape; -1 is
    any length. What a method makes of it later could only blame the pictures."""
    array = graphs[name].run(feeds).get(output)
    found = () if array is None else array.shape
    fits = len(found) == len(shape) and all(n in (-1, m) for n, m in zip(shape, found, strict=True))
    source = f"graph {name!r}, output {output!r}"
    if array is None or not fits or array.dtype != np.float32:
        raise BackendError(
            source,
            expected=f"float32 [{', '.join('any' if n == -1 else str(n) for n in shape)}]",
            got="none" if array is None else f"{array.dtype} {list(array.shape)}",
            remedy="The graphs of the head do not fit each other or the features; export again.",
        )
    if not np.isfinite(array).all():
        raise BackendError(
            source,
            expected="finite numbers",
            got=f"{np.count_nonzero(~np.isfinite(array))} that are NaN or infinite",
            remedy="Its weights or this precision are at fault: try fp32, or export it again.",
        )
    return array
