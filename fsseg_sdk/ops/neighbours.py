"""The nearest of many rows, by cosine: csrc/nearest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import checks
from .checks import FloatArray
from .runtime import choose_threads, kernels

__all__ = ["NearestRows", "nearest"]

MOST_GROUPS = 65535


class NearestRows:
    """Rows made ready once for many calls of ``nearest``: of unit length, in the kernel's order.

    rows: ``[M, C]`` float32, of any lengths; group: ``[M]`` int64, which of ``groups`` a row is of.
    precision: ``"fp32"``, or ``"bf16"``, which rounds unit cells and unit rows to bfloat16 (sums
    stay float32). They are copied. May be pickled, and used by several threads at once.
    Raises InputError.
    """

    def __init__(
        self, rows: object, group: object, groups: int, *, precision: str = "fp32"
    ) -> None:
        self._rows = np.array(checks.rows(rows, "rows", (2,), "[M, C]"), order="C")
        self._groups = checks.whole(groups, "groups", 1, MOST_GROUPS)
        self._group = checks.numbers(group, "group", "[M]", 0, self._groups)
        if self._group.shape[0] != self._rows.shape[0]:
            checks.agree(self._group.shape, self._rows.shape[:1], "group", "rows:")
        self._bf16 = checks.bf16(precision)
        self._packed: tuple[tuple[str, str], NDArray[np.uint8]] | None = None
        self._ready()

    def match(self, features: object, *, threads: int | None = None) -> FloatArray:
        """As ``nearest(features, rows, group, groups)``, in the same bits."""
        return _match(features, self._rows, self._group, self._groups, self._bf16, self, threads)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_packed": None}  # its order is that of this processor

    def _ready(self) -> NDArray[np.uint8]:
        """The packed copy for the instructions in use."""
        unit = (kernels._simd(), kernels._bf16())
        packed = self._packed
        if packed is None or packed[0] != unit:
            given = (self._rows, self._group, self._groups, self._bf16)
            out = np.empty(kernels._nearest_bytes(*given), np.uint8)
            if not kernels.nearest_pack(*given, out, choose_threads(None)):
                checks.blame({"rows": self._rows}, "Scale the rows down.")
            packed = self._packed = (unit, out)
        return packed[1]


def nearest(
    features: object,
    rows: object,
    group: object,
    groups: int,
    *,
    precision: str = "fp32",
    threads: int | None = None,
) -> FloatArray:
    """The largest cosine of every cell with any row of each group, in one pass of blocks.

    The array of all cosines is never in memory. features: ``[B, C, h, w]`` float32; rows, group,
    groups, precision: as in ``NearestRows``, which saves time where rows are used again.

    The cosine of anything with a zero vector is 0; a group without rows is -1 everywhere. Returns
    ``[B, groups, h, w]`` float32, the same bits for every number of threads. Raises InputError.
    """
    r = checks.rows(rows, "rows", (2,), "[M, C]")
    count = checks.whole(groups, "groups", 1, MOST_GROUPS)
    number = checks.numbers(group, "group", "[M]", 0, count)
    if number.shape[0] != r.shape[0]:
        checks.agree(number.shape, r.shape[:1], "group", "rows:")
    return _match(features, r, number, count, checks.bf16(precision), None, threads)


def _match(
    features: object,
    rows: FloatArray,
    group: NDArray[np.int64],
    groups: int,
    bf16: bool,
    ready: NearestRows | None,
    threads: int | None,
) -> FloatArray:
    f = checks.planes(features, "features")
    if rows.shape[1] != f.shape[1]:
        what = "rows" if ready is None else "features"
        checks.agree(rows.shape[1:], f.shape[1:2], what, "channels of features:")
    out = np.empty((f.shape[0], groups, *f.shape[2:]), np.float32)
    packed = None if ready is None else ready._ready()
    number = choose_threads(threads)
    if not kernels.nearest(f, rows, group, groups, bf16, packed, out, number):
        checks.blame({"features": f, "rows": rows}, "Scale the features down.")
    return out
