"""Small drawn pictures with exact masks, and files that are turned, foreign or oversized."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fsseg_sdk.image import turn

ORIENTATION = 0x0112
COLOURS = {"red disc": (200, 40, 30), "blue square": (30, 60, 210), "green bar": (40, 170, 60)}
_BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the turn that undoes a turn


@dataclass(frozen=True)
class Scene:
    """pixels: uint8 [H, W, 3]; masks: bool [H, W] by the names of `COLOURS`, not overlapping."""

    pixels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]


def scene(height: int = 96, width: int = 128, seed: int = 0, noise: int = 12) -> Scene:
    """A disc, a square and a bar on a grey gradient; places and sizes depend on the seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    back = 90 + 60 * columns / width + 30 * rows / height
    pixels = np.repeat(back[..., None], 3, axis=2)
    side = min(height, width)
    shift = random.uniform(-0.05, 0.05, (3, 2)) * side
    y, x = rows - 0.3 * height - shift[0, 0], columns - 0.25 * width - shift[0, 1]
    disc = np.hypot(y, x) < 0.17 * side
    y, x = rows - 0.35 * height - shift[1, 0], columns - 0.72 * width - shift[1, 1]
    square = np.maximum(abs(y), abs(x)) < 0.15 * side
    y, x = rows - 0.8 * height - shift[2, 0], columns - 0.5 * width - shift[2, 1]
    bar = (abs(y) < 0.06 * side) & (abs(x) < 0.3 * side)
    masks = dict(zip(COLOURS, (disc, square, bar), strict=True))
    for name, mask in masks.items():
        pixels[mask] = COLOURS[name]
    pixels += random.integers(-noise, noise + 1, pixels.shape) if noise else 0
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), masks)


def encode(picture: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file of this kind."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stored(shown: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What a camera stores so that a viewer, which applies `orientation`, shows `shown`."""
    return np.ascontiguousarray(turn(shown, _BACK[orientation]))


def turned(shown: NDArray[Any], orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A file that holds `shown` turned, and the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    return encode(stored(shown, orientation), kind, exif=exif, **options)


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims this size; what follows is right, but for the pixels."""
    body = zlib.compress(bytes(30_000))
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    if kind == "BMP":
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + info + body
    if kind == "TIFF":
        tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1)]
        tags += [(278, height), (279, len(body))]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
        return head.ljust(200, b"\0") + body
    if kind == "JPEG":
        file = encode(np.zeros((8, 8, 3), np.uint8), "JPEG")
        at = file.index(b"\xff\xc0") + 5
        return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]
    if kind == "WEBP":  # VP8X: a canvas of up to 2^24 a side
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        inner = encode(np.zeros((8, 8, 3), np.uint8), "WEBP")[12:]
        chunks_ = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sides + inner
        return b"RIFF" + struct.pack("<I", 4 + len(chunks_)) + b"WEBP" + chunks_
    raise ValueError(kind)


def gif() -> bytes:
    return encode(Image.fromarray(np.zeros((8, 8), np.uint8)), "GIF")


FOREIGN: dict[str, tuple[bytes, str]] = {
    # name: first bytes, and a word of the refusal
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    "eps, binary": (b"\xc5\xd0\xd3\xc6" + bytes(60), "EPS"),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, "FITS"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "svg, declared": (b'\xef\xbb\xbf<?xml version="1.0"?><svg/>', "SVG"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    "avif": (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\0\0", "MP4"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "video"),
    "psd": (b"8BPS\0\1", "Photoshop"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "netpbm": (b"P6\n2 2\n255\n" + bytes(12), "NetPBM"),
    "html": (b"<!DOCTYPE html><html></html>", "HTML"),
    "numpy": (b"\x93NUMPY\1\0", "numpy"),
    "text": (b"hello, world", "hello"),
    "zero bytes": (bytes(500), "begin"),
    "nothing": (b"", "nothing"),
}
