"""Picture formats: told by their first bytes, sizes read from headers, the rest refused by name."""

from __future__ import annotations

import struct

from .errors import InputError

MAX_PIXELS = 64_000_000  # a picture's H * W
MAX_SIDE = 65_535  # either side; also what JPEG can say
MAX_BYTES = 512 * 2**20  # an encoded picture
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_ALLOWED = "a JPEG, PNG, WEBP, BMP or TIFF picture"

_MAGIC: tuple[tuple[str, bytes], ...] = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("BMP", b"BM"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("TIFF", b"II+\0"),
    ("TIFF", b"MM\0+"),
    ("a GIF animation", b"GIF8"),
    ("PostScript (EPS)", b"%!PS"),
    ("PostScript (EPS)", b"\xc5\xd0\xd3\xc6"),
    ("a FITS picture", b"SIMPLE  ="),
    ("a PDF document", b"%PDF"),
    ("a Photoshop document", b"8BPS"),
    ("a JPEG 2000 picture", b"\0\0\0\x0cjP  "),
    ("a JPEG 2000 picture", b"\xff\x4f\xff\x51"),
    ("a JPEG XL picture", b"\xff\x0a"),
    ("a JPEG XL picture", b"\0\0\0\x0cJXL "),
    ("an OpenEXR picture", b"\x76\x2f\x31\x01"),
    ("a Radiance HDR picture", b"#?RADIANCE"),
    ("a DDS texture", b"DDS "),
    ("a QOI picture", b"qoif"),
    ("an icon (ICO)", b"\0\0\1\0"),
    ("an icon (ICNS)", b"icns"),
    ("a numpy file", b"\x93NUMPY"),
    ("a zip archive", b"PK\x03\x04"),
    ("a gzip archive", b"\x1f\x8b"),
    ("a Matroska or WebM video", b"\x1a\x45\xdf\xa3"),
)


def sniff(head: bytes) -> str:
    """Whose first bytes these are (64 are enough): a name of `FORMATS` or a description."""
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else "a RIFF file (video or sound)"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "an AVIF picture"
        return "a HEIC picture" if brand[:2] in (b"he", b"mi") else "an MP4 or QuickTime video"
    for name, magic in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456fF7" and head[2:3].isspace():
        return "a NetPBM picture"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "an SVG or XML document"
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return "nothing" if not head else f"bytes that begin with {head[:8]!r}"


def check_size(height: int, width: int, argument: str) -> None:
    """Refuse a picture without pixels, or larger than `MAX_PIXELS` or `MAX_SIDE`."""
    empty = height < 1 or width < 1
    if not empty and max(height, width) <= MAX_SIDE and height * width <= MAX_PIXELS:
        return
    raise InputError(
        argument,
        expected=f"a picture of 1 to {MAX_PIXELS:,} pixels, sides up to {MAX_SIDE:,}",
        got=f"{width} x {height} pixels",
        remedy="It has no pixels." if empty else "Scale it down or cut it into tiles first.",
    )


def check_bytes(head: bytes, size: int, argument: str) -> None:
    """Refuse, from its first bytes and its length alone, what is not an allowed format."""
    kind = sniff(head)
    if kind not in FORMATS:
        remedy = "Convert it to PNG or JPEG first." if size else "It is empty (0 bytes)."
        raise InputError(argument, expected=_ALLOWED, got=kind, remedy=remedy)
    if size > MAX_BYTES:
        raise InputError(
            argument,
            expected=f"a file of at most {MAX_BYTES:,} bytes",
            got=f"{size:,} bytes",
            remedy="Compress the picture, or pass its pixels as a numpy array.",
        )


def check_webp(data: bytes, argument: str) -> None:
    """Check the size before Pillow's decoder is opened, which takes its memory at once."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 " and len(body) == 10:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    else:
        raise broken(argument, "WEBP data", None)
    check_size(height, width, argument)


def animated(kind: str, argument: str) -> InputError:
    return InputError(
        argument,
        expected="a still picture",
        got=f"an animated {kind}",
        remedy="Save the frame you mean as a picture of its own.",
    )


def broken(argument: str, what: str, error: Exception | None) -> InputError:
    reason = " ".join(str(error).split())[:120] if error is not None else "its header is cut off"
    return InputError(
        argument,
        expected="a complete, undamaged picture",
        got=f"{what} that cannot be decoded ({reason or type(error).__name__})",
        remedy="Open it in a viewer, and export it again from its source.",
    )
