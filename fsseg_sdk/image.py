"""Pictures and masks: whatever a user has, as arrays of one layout, turned as viewers do."""

from __future__ import annotations

import os
import stat
import sys
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import as_array, as_pixels
from .decode import Decoded, decode, load, to_indices, to_rgb
from .errors import InputError
from .formats import MAX_PIXELS, check_bytes

__all__ = ["MAX_PIXELS", "Mask", "Picture", "load_mask", "read_image", "read_mask", "turn"]

_LAZY_IMAGE = threading.Lock()  # Pillow loads lazily and without a lock of its own


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as a viewer shows it.

    pixels: uint8 [H, W, 3] RGB; rows and columns may be strided (positive strides), the channels
    are dense. Arrays that fit are viewed, not copied. orientation: the EXIF value 1..8 that was
    applied; stored_size: (H, W) before that turn.
    """

    pixels: NDArray[np.uint8]
    orientation: int
    stored_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as shown."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    def on_host(self) -> Picture:
        """The same with its pixels in numpy: those of a frame on a device are an
        `ops.DeviceArray`."""
        copied = getattr(self.pixels, "_peek", None)
        return self if copied is None else replace(self, pixels=copied())


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of its picture's size. foreground: bool [H, W]; ignore: bool [H, W], or None."""

    foreground: NDArray[np.bool_]
    ignore: NDArray[np.bool_] | None
    warnings: tuple[str, ...] = ()


def read_image(source: object, argument: str = "image") -> Picture:
    """A picture from a path, encoded bytes, a Pillow image or an array.

    Files and bytes: JPEG, PNG, WEBP, BMP and TIFF, told by content, not by extension. GIF and other
    animations are refused by name (a mask belongs to one frame); of a TIFF with several pages the
    first is read, of a Pillow image the frame it stands at. Any mode is converted to 8-bit RGB:
    transparency is laid over white, 16-bit grey is scaled. EXIF orientation is applied.

    Arrays (numpy, DLPack on the CPU, ``__array_interface__``): uint8 [H, W, 3] in RGB order, any
    strides, read-only or not; never written to. A grey [H, W] or RGBA [H, W, 4] array, floats and
    channels-first arrays are refused with the line that converts them, because guessing wrong is
    silent. An array carries no orientation.

    Raises InputError naming `argument`: all of the above, damaged or truncated data, pictures
    without pixels or over `MAX_PIXELS`.
    """
    if isinstance(source, Picture):
        return source
    decoded = _decoded(source, argument)
    if decoded is None:
        array = as_pixels(source, argument)
        return Picture(array, 1, (int(array.shape[0]), int(array.shape[1])))
    pixels = turn(to_rgb(decoded, argument), decoded.pending)
    return Picture(np.ascontiguousarray(pixels), decoded.orientation or 1, decoded.stored_size)


def read_mask(
    source: object, picture: Picture, argument: str = "mask"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """(foreground, ignore) of `load_mask`, for callers that have no place for its warnings."""
    mask = load_mask(source, picture, argument)
    return mask.foreground, mask.ignore


def load_mask(source: object, picture: Picture, argument: str = "mask") -> Mask:
    """A mask [H, W] for `picture`, from the same kinds of sources as `read_image`.

    Values: bool, 0/1 or 0/255 of any real dtype (floats must hold exactly these); beside 1, 255
    means "ignore". So {0, 255} is background and object, {0, 1, 255} is background, object, ignore.
    Of palette pictures the indices count; a colour picture must be grey in every pixel.

    Size: the picture's as shown. For a picture that EXIF turned, a mask of the stored size is
    turned along. Where both sizes are equal (square pictures, half turns, mirrors) the mask is
    turned along, too, with a warning; unless its file carries an EXIF orientation of its own (1
    included), which then decides. Masks are never resized.

    Raises InputError naming `argument`. An empty mask is not an error here (see `read_support`).
    """
    decoded = _decoded(source, argument)
    own = decoded.orientation if decoded is not None else None
    if decoded is not None:
        values: NDArray[Any] = turn(to_indices(decoded, argument), decoded.pending)
    else:
        values = as_array(source, argument)
    if values.ndim != 2:
        layers = values.ndim == 3 and 1 in (values.shape[0], values.shape[-1])
        raise InputError(
            argument,
            expected="a mask of shape [H, W]",
            got=f"shape {list(values.shape)}",
            remedy="Pass mask[0] or mask[..., 0]."
            if layers
            else "Pass one [H, W] plane per class.",
        )
    values, warning = _aligned(values, picture, own, argument)
    lossy = decoded is not None and decoded.format == "JPEG"
    foreground, ignore = _split(values, argument, lossy)
    return Mask(foreground, ignore, (f"{argument}: {warning}",) if warning else ())


def turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation 1..8 to [H, W] or [H, W, C]: a view, as a viewer shows it."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _aligned(
    values: NDArray[Any], picture: Picture, own: int | None, argument: str
) -> tuple[NDArray[Any], str]:
    shown, stored = picture.size, picture.stored_size
    size = (int(values.shape[0]), int(values.shape[1]))
    as_stored = picture.orientation != 1 and own is None and size == stored
    if as_stored and size != shown:
        return turn(values, picture.orientation), ""
    if as_stored:
        return turn(values, picture.orientation), (
            f"the picture has EXIF orientation {picture.orientation} and the mask fits turned or "
            "not; it was turned along. If it was drawn on the upright picture, save that upright."
        )
    if size == shown:
        return values, ""
    swapped = size == shown[::-1]
    raise InputError(
        argument,
        expected=f"the size of its picture, {shown[1]} x {shown[0]} (width x height)",
        got=f"{size[1]} x {size[0]}" + (": width and height are swapped" if swapped else ""),
        remedy="Transpose or turn the mask."
        if swapped
        else "Masks are not resized: draw it on this picture.",
    )


def _split(
    values: NDArray[Any], argument: str, lossy: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    if values.dtype == np.bool_:
        return np.ascontiguousarray(values), None
    if values.dtype.kind not in "uif":
        raise InputError(
            argument,
            expected="bool, integer or float values",
            got=f"dtype {values.dtype}",
            remedy="Pass mask.astype(bool).",
        )
    one, high = values == 1, values == 255
    if bool((one | high | (values == 0)).all()):
        if not high.any():
            return one, None
        return (one, high) if one.any() else (high, None)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        got, remedy = "values that are not finite (NaN or infinity)", "Replace them by 0, 1 or 255."
    else:
        found = np.unique(values)
        shown = ", ".join(f"{value:g}" for value in found[:8].tolist())
        got = f"the values {shown}" + (f" and {found.size - 8} more" if found.size > 8 else "")
        remedy = "Pass mask == k for the class k that you mean, or threshold a soft mask."
        if lossy:
            remedy = "JPEG blurs masks: save it as PNG."
    raise InputError(
        argument,
        expected="the values 0/1 or 0/255 (255 beside 1 is ignore)",
        got=got,
        remedy=remedy,
    )


def _decoded(source: object, argument: str) -> Decoded | None:
    """The decoded picture, or None if `source` is not an encoded one or a Pillow image."""
    if isinstance(source, (str, os.PathLike)):
        return decode(_file_bytes(os.fspath(source), argument), argument)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode(bytes(source), argument)
    pillow = sys.modules.get("PIL.Image")  # whoever holds a Pillow image has imported it
    if pillow is not None and isinstance(source, pillow.Image):
        with _LAZY_IMAGE:
            return load(source, source.format or "Pillow", argument)
    return None


def _file_bytes(path: str | bytes, argument: str) -> bytes:
    name = os.fsdecode(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(
                    argument,
                    expected="a picture file",
                    got=f"{name!r}, which is not a regular file",
                    remedy="Pass the path of a file, or its bytes.",
                )
            check_bytes(file.read(64), status.st_size, argument)
            file.seek(0)
            return file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        url = "Download it first." if "://" in name else "Check the path."
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            argument, expected="a picture file", got=f"{name!r} ({reason})", remedy=url
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe must not hang the caller
