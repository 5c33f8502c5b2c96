"""Encoded pictures to pixels.

Only five formats are decoded (JPEG, PNG, WEBP, BMP, TIFF). Anything else is refused by name before
a parser sees it, and a picture over `MAX_PIXELS` is refused before a pixel is decoded. Each
format's reader is called directly: Pillow's registry, limits and other global settings stay as
they are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .formats import animated, broken, check_bytes, check_size, check_webp, sniff

if TYPE_CHECKING:
    from PIL.Image import Image

_READERS = {  # a phone's multi-picture JPEG is read as its first picture
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
}


@dataclass(frozen=True)
class Decoded:
    """A decoded picture that may still have to be turned.

    orientation: the EXIF value it carries, 1..8, or None where it carries none; pending: the turn
    that is still to be applied (Pillow turns TIFF by itself); stored_size: (H, W) before any turn.
    """

    image: Image
    format: str
    orientation: int | None
    pending: int
    stored_size: tuple[int, int]


def decode(data: bytes, argument: str) -> Decoded:
    """Decode an encoded picture; every fault of the data is an InputError that names `argument`."""
    check_bytes(data[:64], len(data), argument)
    kind = sniff(data[:64])
    try:
        if kind == "WEBP":
            check_webp(data, argument)
        image = _reader(kind)(io.BytesIO(data))
        frames = getattr(image, "n_frames", 1) if kind in ("PNG", "WEBP") else 1
        if frames > 1:
            raise animated(kind, argument)
        return load(image, kind, argument)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a parser of foreign bytes can fail in any way; all mean one thing
        raise broken(argument, f"{kind} data", error) from error


def load(image: Image, kind: str, argument: str) -> Decoded:
    """Load an opened Pillow image, after a look at its size, and read its orientation."""
    width, height = image.size
    check_size(height, width, argument)
    # Pillow turns a TIFF while loading and drops its tag; others may tell only afterwards.
    before = _orientation(image) if kind == "TIFF" else None
    try:
        image.load()
        after = _orientation(image)
    except (MemoryError, InputError):
        raise
    except Exception as error:
        raise broken(argument, f"{kind} data", error) from error
    orientation = before or after
    stored = image.size if after or not before or before < 5 else image.size[::-1]
    return Decoded(image, kind, orientation, after or 1, (stored[1], stored[0]))


def to_rgb(decoded: Decoded, argument: str) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] uint8 as a viewer shows them, not yet turned.

    Transparency is laid over white, 16-bit grey is scaled to 8 bits, palettes and CMYK (Adobe's
    inverted ink included) are converted. Colour profiles are not applied. Refused: 32-bit integer
    and float pixels, which do not say what white is, and colour spaces other than those.
    """
    image = decoded.image
    if image.mode.startswith("I;16") or (image.mode == "I" and decoded.format == "PNG"):
        image = _grey16(image)
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode in ("I", "F", "LAB", "HSV") or image.mode not in _MODES:
        raise InputError(
            argument,
            expected="grey, palette, RGB, RGBA, CMYK or YCbCr pixels",
            got=f"Pillow mode {image.mode!r}",
            remedy="Convert it to 8-bit RGB, choosing what is black and what is white.",
        )
    try:
        if transparent and image.mode not in ("CMYK", "YCbCr"):
            from PIL import Image as Pillow

            colours = image.convert("RGBA")
            image = Pillow.new("RGB", image.size, (255, 255, 255))
            image.paste(colours, mask=colours.getchannel("A"))
        elif image.mode != "RGB":
            image = image.convert("RGB")
        return np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:
        raise broken(argument, f"{decoded.format} data", error) from error


def to_indices(decoded: Decoded, argument: str) -> NDArray[Any]:
    """Values [H, W] of a mask picture, not yet turned: palette indices, grey levels or bits.

    A colour picture is a mask only if it is grey in every pixel; alpha has to be opaque.
    """
    image = decoded.image
    if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode in ("LA", "PA", "RGB", "RGBA"):
        bands = np.asarray(image)
        opaque = image.mode == "RGB" or bool((bands[..., -1] == 255).all())
        colours = bands if image.mode == "RGB" else bands[..., :-1]
        if opaque and bool((colours == colours[..., :1]).all()):
            return np.ascontiguousarray(colours[..., 0])
        got = "a picture with colours" if opaque else "a picture with transparent pixels"
    else:
        got = f"a picture of Pillow mode {image.mode!r}"
    raise InputError(
        argument,
        expected="a grey, 1-bit or palette picture with the values 0 and 1, or 0 and 255",
        got=got,
        remedy="Save the mask as an 8-bit grey PNG: 0 background, 255 object.",
    )


_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def _grey16(image: Image) -> Image:
    from PIL import Image as Pillow

    values = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})  # TIFF: bits per sample, and whether white is zero
    bits = tags.get(258, (16,))
    white = (1 << int(bits[0])) - 1 if isinstance(bits, tuple) and bits else 65535
    grey = (np.minimum(values, white) * 255 + white // 2) // white
    if tags.get(262) == 0:
        grey = 255 - grey
    return Pillow.fromarray(grey.astype(np.uint8))


def _reader(kind: str) -> Any:
    module, name = _READERS[kind]
    return getattr(import_module(f"PIL.{module}"), name)


def _orientation(image: Image) -> int | None:
    value = image.getexif().get(0x0112)
    return value if isinstance(value, int) and 1 <= value <= 8 else None
