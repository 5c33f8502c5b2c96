"""The nearest of many rows, by cosine: csrc/nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks
from .checks import FloatArray
from .places import HOST, Place, place_of
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
        self._packed: dict[object, tuple[Any, Any, Any]] = {}
        self._ready(HOST)

    def match(self, features: object, *, threads: int | None = None) -> FloatArray:
        """As ``nearest(features, rows, group, groups)``, in the same bits."""
        place = place_of(features, "features")
        rows, group, packed = self._ready(place)
        what = (rows, group, self._groups, self._bf16, packed, "features")
        return _match(features, place, *what, threads)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_packed": {}}  # its order is that of this processor

    def _ready(self, place: Place) -> tuple[Any, Any, Any]:
        """``(rows, group, packed)`` for the instructions in use, or for a context."""
        key = (kernels._simd(), kernels._bf16()) if place is HOST else place.key
        found = self._packed.get(key)
        if found is None:
            rows = place.ready(self._rows, True)
            group = place.numbers(self._group, 0, self._groups)
            given = (rows, group, self._groups, self._bf16)
            out = place.empty((place.kernels._nearest_bytes(*given),), "uint8")
            if not place.kernels.nearest_pack(*given, out, choose_threads(None)):
                checks.blame({"rows": self._rows}, "Scale the rows down.")
            found = (rows, group, out)
            # One for the host, one for a device: not one for each context there ever was.
            others = [k for k in self._packed if isinstance(k, tuple) != (place is HOST)]
            self._packed = {k: self._packed[k] for k in others} | {key: found}
        return found


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
    place = place_of(features, "features")
    r = checks.rows(rows, "rows", (2,), "[M, C]", place)
    count = checks.whole(groups, "groups", 1, MOST_GROUPS)
    number = checks.numbers(group, "group", "[M]", 0, count, place)
    if number.shape[0] != r.shape[0]:
        checks.agree(number.shape, r.shape[:1], "group", "rows:")
    what = (r, number, count, checks.bf16(precision), None, "rows")
    return _match(features, place, *what, threads)


def _match(
    features: object,
    place: Place,
    rows: FloatArray,
    group: NDArray[np.int64],
    groups: int,
    bf16: bool,
    packed: NDArray[np.uint8] | None,
    blamed: str,
    threads: int | None,
) -> FloatArray:
    f = checks.planes(features, "features", place=place, halves=True)
    if rows.shape[1] != f.shape[1]:
        checks.agree(rows.shape[1:], f.shape[1:2], blamed, "channels of features:")
    out = place.empty((f.shape[0], groups, *f.shape[2:]))
    number = choose_threads(threads)
    if not place.kernels.nearest(f, rows, group, groups, bf16, packed, out, number):
        checks.blame({"features": f, "rows": rows}, "Scale the features down.")
    return out
