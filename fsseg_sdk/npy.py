"""Arrays as .npy bytes, the plain subset: C order, fixed types, and no pickle by construction.

numpy's own reader evaluates the header as a Python literal; this one compares it with the header
that the writer makes, so there is one spelling of each array and nothing to evaluate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fields import Refusal

__all__ = ["read_npy", "write_npy"]

_MAGIC = b"\x93NUMPY\x01\x00"
_TYPES = {"|b1": "bool", "|u1": "uint8", "<i4": "int32", "<i8": "int64", "<f2": "float16",
          "<f4": "float32", "<f8": "float64"}  # fmt: skip
_DESCR = {name: descr for descr, name in _TYPES.items()}
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,80})\), \} *\n"
)


def write_npy(array: NDArray[Any]) -> bytes:
    """The bytes that `numpy.save` would write for `array` in C order and little-endian."""
    descr = _DESCR.get(array.dtype.name)
    if descr is None:
        raise TypeError(f"array: expected one of {', '.join(_DESCR)}, got {array.dtype}")
    dense = np.ascontiguousarray(array, dtype=np.dtype(descr)).reshape(array.shape)
    return _header(descr, dense.shape) + dense.tobytes()


def read_npy(
    data: bytes | memoryview,
    part: str,
    refuse: Refusal,
    *,
    dtype: str,
    shape: Sequence[int],
) -> NDArray[Any]:
    """A read-only array over `data` (copied only where that is not aligned for its type).

    dtype: a numpy name, such as "float32"; shape: one length per axis, -1 where any is right.
    Raises what `refuse` makes, naming `part`, for another type, shape, layout or length, and for
    values that are not finite.
    """
    view = memoryview(data).cast("B")
    length = int.from_bytes(view[8:10], "little")
    header = bytes(view[: 10 + length])
    match = _HEADER.fullmatch(header[10:])
    if header[:8] != _MAGIC or match is None:
        raise refuse(part, expected="a plain .npy array, C order", got=f"{bytes(view[:16])!r}…")
    descr = match[1].decode("ascii", "replace")
    if descr not in _TYPES or _TYPES[descr] != dtype:
        raise refuse(part, expected=f"type {dtype}", got=_TYPES.get(descr, ascii(descr)))
    lengths = [text for text in match[2].decode("ascii").replace(" ", "").split(",") if text]
    if any(len(text) > 10 for text in lengths):
        raise refuse(part, expected="lengths below 10^10", got=", ".join(lengths))
    found = tuple(int(text) for text in lengths)
    if len(found) != len(shape) or any(
        right not in (-1, length) for right, length in zip(shape, found, strict=True)
    ):
        raise refuse(part, expected=f"shape {_shape(shape)}", got=_shape(found))
    if header != _header(descr, found):
        raise refuse(part, expected="the header that numpy writes", got="another spelling of it")
    count = math.prod(found)
    body = view[len(header) :]
    if body.nbytes != count * np.dtype(descr).itemsize:
        raise refuse(
            part, expected=f"{count} values after the header", got=f"{body.nbytes} bytes of them"
        )
    array = np.frombuffer(body, np.dtype(descr)).reshape(found)
    array = np.require(array, requirements=["A"])  # aligned: a member may begin at an odd byte
    array.setflags(write=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise refuse(part, expected="finite values", got="NaN or infinity")
    return array


def _header(descr: str, shape: Sequence[int]) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    text += " " * (21 - len(repr(shape[0]))) if shape else ""  # numpy leaves room to append
    padding = -(len(_MAGIC) + 2 + len(text) + 1) % 64
    body = (text + " " * padding + "\n").encode("ascii")
    return _MAGIC + len(body).to_bytes(2, "little") + body


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if length == -1 else str(length) for length in shape) + "]"
