"""What comes in: checked once, copied only if a kernel could not read it or it lies elsewhere.

``place`` says where the op runs (places.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .places import HOST, Place, as_array, refuse, to_host

FloatArray = NDArray[np.float32]

FLOAT32 = np.dtype(np.float32)
UINT8 = np.dtype(np.uint8)
INT64 = np.dtype(np.int64)
HALVES = ("float16", "bfloat16")
"""What features may be, beside float32, on a device."""


def planes(
    value: object,
    argument: str,
    axes: str = "[B, C, h, w]",
    *,
    empty: bool = False,
    place: Place = HOST,
    halves: bool = False,
) -> FloatArray:
    """float32 ``[B, C, h, w]`` with contiguous planes; any strides of the first two axes.

    empty: B may be 0. halves: on a device, float16 and bfloat16 are fine, too.
    """
    array = place.see(value, argument)
    if not (halves and not isinstance(array, np.ndarray) and array.dtype in HALVES):
        _require(array, argument, FLOAT32, 4, axes, empty=empty)
    else:
        _require_filled(array, argument, 4, axes, empty)
    return place.ready(array, _has_planes(array))


def _has_planes(array: Any) -> bool:
    """Whether a plane, the last two axes, is contiguous."""
    (height, width), (down, right) = array.shape[-2:], array.strides[-2:]
    item = array.itemsize
    return bool((right == item or width == 1) and (down == item * width or height == 1))


def rows(
    value: object, argument: str, ranks: tuple[int, ...], axes: str, place: Place = HOST
) -> FloatArray:
    """float32 ``[P, C]`` (or ``[B, P, C]``, ``[K]``) with a contiguous last axis."""
    array = place.see(value, argument)
    _require(array, argument, FLOAT32, array.ndim if array.ndim in ranks else ranks[0], axes)
    return place.ready(array, array.strides[-1] == 4 or array.shape[-1] == 1)


def mask_stack(value: object, argument: str, place: Place = HOST) -> NDArray[Any]:
    """``[B, H, W]`` uint8, bool (seen as uint8) or float32 with a contiguous last axis."""
    array = place.see(value, argument)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    dtype = UINT8 if array.dtype == UINT8 else FLOAT32
    _require(array, argument, dtype, 3, "[B, H, W]", "uint8, bool or float32")
    return place.ready(array, array.strides[2] == array.itemsize or array.shape[2] == 1)


def rgb(value: object, argument: str, place: Place = HOST) -> NDArray[np.uint8]:
    """uint8 ``[H, W, 3]`` whose three channels lie side by side; rows and pixels may be strided."""
    array = place.see(value, argument)
    _require(array, argument, UINT8, 3, "[H, W, 3]")
    if array.shape[2] != 3:
        refuse(argument, "[H, W, 3]", f"shape {array.shape}", "Pass RGB with channels last.")
    return place.ready(array, array.strides[2] == 1)


def agree(got: tuple[int, ...], wanted: tuple[int, ...], argument: str, what: str) -> None:
    """Two shapes, or parts of them, must be the same."""
    if got != wanted:
        refuse(argument, f"{what} {wanted}", f"{got}", "Take both from the same features.")


def size_pair(value: object, argument: str) -> tuple[int, int]:
    """Two positive ints: (height, width)."""
    if isinstance(value, Sequence) and len(value) == 2:
        height, width = value
        whole = isinstance(height, (int, np.integer)) and isinstance(width, (int, np.integer))
        if whole and height >= 1 and width >= 1:
            return int(height), int(width)
    refuse(argument, "two positive ints (height, width)", repr(value), "Pass a tuple of ints.")


def extent_pair(
    value: tuple[float, float] | None, grid: tuple[int, int], argument: str = "extent"
) -> tuple[float, float]:
    """The part of the grid that the picture covers; None is all of it."""
    if value is None:
        return float(grid[0]), float(grid[1])
    height, width = number(value[0], argument), number(value[1], argument)
    if not (0.0 < height <= grid[0] and 0.0 < width <= grid[1]):
        refuse(argument, f"0 < extent <= {grid}", repr(value), "Take it from Geometry.extent.")
    return height, width


def number(value: object, argument: str) -> float:
    """A finite float."""
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    refuse(argument, "a finite number", repr(value), "Pass a float.")


def whole(value: object, argument: str, least: int, most: int | None = None) -> int:
    """An int in a range, both ends included."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    upper = "" if most is None else f" and at most {most}"
    refuse(argument, f"an int of at least {least}{upper}", repr(value), "Pass such an int.")


def within(
    value: object,
    argument: str,
    least: float,
    most: float | None,
    *,
    open_start: bool = False,
    open_end: bool = False,
) -> float:
    """A finite float in a range; an open end is not part of it."""
    got = number(value, argument)
    low = got > least if open_start else got >= least
    high = most is None or (got < most if open_end else got <= most)
    if low and high:
        return got
    lower = f"a number above {least:g}" if open_start else f"a number of at least {least:g}"
    upper = "" if most is None else f" and {'below' if open_end else 'at most'} {most:g}"
    refuse(argument, lower + upper, repr(value), "Pass one in this range.")


def matrix(value: object, argument: str, rank: int, axes: str, place: Place = HOST) -> FloatArray:
    """float32 of this rank, contiguous and aligned (copied if it is not)."""
    array = place.see(value, argument)
    _require(array, argument, FLOAT32, rank, axes)
    return place.ready(array, _is_contiguous(array))


def _is_contiguous(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return bool(array.is_contiguous)


def triple(value: object, argument: str, positive: bool = False) -> tuple[float, float, float]:
    """Three finite floats, one a channel."""
    if isinstance(value, (Sequence, np.ndarray)) and len(value) == 3:
        one, two, three = (number(item, argument) for item in value)
        if not positive or min(one, two, three) > 0.0:
            return one, two, three
    wanted = "three positive numbers" if positive else "three numbers"
    refuse(argument, wanted, repr(value), "Pass one for each of R, G, B.")


def cell_weights(
    value: object, argument: str, features: FloatArray, place: Place = HOST
) -> FloatArray | None:
    """float32 ``[B, h, w]`` with contiguous planes, one for each cell of features; None stays."""
    if value is None:
        return None
    array = place.see(value, argument)
    _require(array, argument, FLOAT32, 3, "[B, h, w]", empty=features.shape[0] == 0)
    wanted = (features.shape[0], *features.shape[2:])
    if array.shape != wanted:
        agree(array.shape, wanted, argument, "batch, height and width of features:")
    return place.ready(array, _has_planes(array))


def ways(
    value: object, argument: str, features: FloatArray, classes: int, place: Place = HOST
) -> NDArray[np.int64]:
    """int64 ``[B]`` of the host, each a class or -1, contiguous."""
    array = _looked_at(value, argument)
    _require(array, argument, INT64, 1, "[B]", empty=features.shape[0] == 0)
    if array.shape != features.shape[:1]:
        agree(array.shape, features.shape[:1], argument, "batch of features:")
    wrong = array[(array < -1) | (array >= classes)]
    if wrong.size:
        wanted = f"-1 or a class below {classes}"
        refuse(argument, wanted, str(int(wrong[0])), "Number the classes from 0.")
    return place.numbers(array.copy(order="C"), -1, classes)


def numbers(
    value: object, argument: str, axes: str, least: int, end: int, place: Place = HOST
) -> NDArray[np.int64]:
    """int64 of one axis, of the host, contiguous, each from ``least`` to below ``end``."""
    array = _looked_at(value, argument)
    _require(array, argument, INT64, 1, axes)
    wrong = array[(array < least) | (array >= end)]
    if wrong.size:
        refuse(argument, f"{least} to {end - 1}", str(int(wrong[0])), "Number them from 0.")
    return place.numbers(array.copy(order="C"), least, end)


def _looked_at(value: object, argument: str) -> NDArray[Any]:
    """Kernels write where these values say, so they are seen before: they come from the host."""
    return as_array(value, argument)


def label_numbers(
    value: object, argument: str, planes: FloatArray, place: Place = HOST
) -> NDArray[np.uint8]:
    """uint8 ``[P]``, contiguous, one for each of the planes ``[B, P, h, w]``."""
    array = place.see(value, argument)
    _require(array, argument, UINT8, 1, "[P]")
    if array.shape != planes.shape[1:2]:
        agree(array.shape, planes.shape[1:2], argument, "planes of logits:")
    return place.ready(array, _is_contiguous(array))


def bf16(precision: object) -> bool:
    """``"fp32"`` or ``"bf16"``."""
    if not isinstance(precision, str) or precision not in ("fp32", "bf16"):
        refuse("precision", "'fp32' or 'bf16'", repr(precision), "Pass that instead.")
    return precision == "bf16"


def no_negative(array: Any, argument: str) -> None:
    """A kernel met something that may not be: is it a negative value here?"""
    if array is None:
        return
    values = to_host(array)
    if (values < 0).any():
        where = tuple(int(i) for i in np.argwhere(values < 0)[0])
        got = f"{values[where]} at index {where}"
        refuse(argument, "values of 0 or more", got, "Clip them at 0.")


def given(**arrays: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Those that are not None, by name: for ``blame``."""
    return {name: array for name, array in arrays.items() if array is not None}


def blame(arrays: dict[str, NDArray[Any]], otherwise: str) -> NoReturn:
    """A kernel met something that is not finite: say which argument, where and what."""
    for argument, array in ((name, to_host(given)) for name, given in arrays.items()):
        bad = ~np.isfinite(array)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            refuse(
                argument,
                "finite values",
                f"{array[where]} at index {where} ({int(bad.sum())} in all)",
                "Look at what made it: an overflow in half precision, or a division by 0.",
            )
    refuse(next(iter(arrays)), "values whose result fits float32", "an overflow", otherwise)


def _require(
    array: Any,
    argument: str,
    dtype: np.dtype[Any],
    rank: int,
    axes: str,
    names: str = "",
    *,
    empty: bool = False,
) -> None:
    """empty: the first axis may be."""
    # Of a device, a name. The name of numpy's would take longer than all else here.
    if array.dtype != (dtype if isinstance(array, np.ndarray) else dtype.name):
        expected = f"{names or dtype.name} {axes}"
        got = f"dtype {getattr(array.dtype, 'str', array.dtype)}"
        refuse(argument, expected, got, "Convert it with .astype().")
    _require_filled(array, argument, rank, axes, empty)


def _require_filled(array: Any, argument: str, rank: int, axes: str, empty: bool) -> None:
    filled = array.shape[1:] if empty else array.shape
    if array.ndim != rank or 0 in filled:
        refuse(argument, f"non-empty {axes}", f"shape {array.shape}", "Give it that shape.")
