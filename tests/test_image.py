"""Pictures from files, bytes and Pillow: the same pixels, shown as a viewer shows them."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from fsseg_sdk.errors import InputError
from fsseg_sdk.image import Picture, read_image, turn
from tests.pictures import claiming, encode, scene, stored, turned

LOSSLESS = ["PNG", "BMP", "TIFF"]
PIXELS = scene(48, 64).pixels


# --- what is the same picture -------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("form", ["path", "str", "bytes", "bytearray", "memoryview", "pillow"])
def test_every_form_gives_the_same_pixels(kind: str, form: str, tmp_path: Path) -> None:
    data = encode(PIXELS, kind)
    path = tmp_path / "picture.any"
    path.write_bytes(data)
    forms: dict[str, object] = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "pillow": Image.open(io.BytesIO(data)),
    }
    picture = read_image(forms[form])
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert (picture.orientation, picture.stored_size, picture.size) == (1, (48, 64), (48, 64))
    np.testing.assert_array_equal(picture.pixels, PIXELS)


def test_a_picture_is_passed_through() -> None:
    picture = Picture(PIXELS, 1, (48, 64))
    assert read_image(picture) is picture


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(PIXELS, "PNG"))
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(kind: str) -> None:
    smooth = scene(48, 64, noise=0).pixels
    read = read_image(encode(smooth, kind, quality=95)).pixels
    assert np.abs(read.astype(int) - smooth).mean() < 6


def _pillow_modes() -> list[tuple[str, Image.Image, tuple[int, int, int]]]:
    """Mode, a picture of one colour in it, and what a viewer shows."""
    new = Image.new
    half = new("RGBA", (9, 7), (200, 100, 0, 128))
    palette = new("P", (9, 7), 3)
    palette.putpalette([0, 0, 0] * 3 + [10, 20, 30])
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    sixteen = Image.fromarray(np.full((7, 9), 40_000, np.uint16))
    keyed = new("RGB", (9, 7), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    return [
        ("1", new("1", (9, 7), 1), (255, 255, 255)),
        ("L", new("L", (9, 7), 77), (77, 77, 77)),
        ("LA", new("LA", (9, 7), (100, 0)), (255, 255, 255)),
        ("LA half", new("LA", (9, 7), (100, 128)), (177, 177, 177)),
        ("P", palette, (10, 20, 30)),
        ("P, transparent", see_through, (255, 255, 255)),
        ("RGB, transparent", keyed, (255, 255, 255)),
        ("RGBA", half, (227, 177, 127)),
        ("RGBA, opaque", new("RGBA", (9, 7), (1, 2, 3, 255)), (1, 2, 3)),
        ("CMYK", new("CMYK", (9, 7), (255, 0, 0, 0)), (0, 255, 255)),
        ("YCbCr", new("RGB", (9, 7), (250, 20, 30)).convert("YCbCr"), (250, 20, 30)),
        ("I;16", sixteen, (156, 156, 156)),
    ]


@pytest.mark.parametrize("image, shown", [pytest.param(i, s, id=n) for n, i, s in _pillow_modes()])
def test_modes_become_what_a_viewer_shows(image: Image.Image, shown: tuple[int, int, int]) -> None:
    pixels = read_image(image).pixels
    assert pixels.shape == (7, 9, 3)
    assert np.abs(pixels.astype(int) - shown).max() <= 2


@pytest.mark.parametrize(
    "image, kind, shown",
    [
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
        (Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "TIFF", (0, 0, 0)),
        (Image.new("L", (16, 16), 90), "JPEG", (90, 90, 90)),
        (Image.new("1", (16, 16), 1), "PNG", (255, 255, 255)),
        (Image.new("1", (16, 16), 1), "TIFF", (255, 255, 255)),
        (Image.new("RGBA", (16, 16), (0, 0, 255, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (16, 16), (0, 0, 255, 0)), "WEBP", (255, 255, 255)),
        (Image.fromarray(np.full((16, 16), 40_000, np.uint16)), "PNG", (156, 156, 156)),
        (Image.fromarray(np.full((16, 16), 40_000, np.uint16)), "TIFF", (156, 156, 156)),
        (Image.new("RGB", (16, 16), (9, 8, 7)).quantize(4), "PNG", (9, 8, 7)),
        (Image.new("RGB", (16, 16), (9, 8, 7)).quantize(4), "BMP", (9, 8, 7)),
    ],
)
def test_files_of_other_modes(image: Image.Image, kind: str, shown: tuple[int, ...]) -> None:
    pixels = read_image(encode(image, kind)).pixels
    assert np.abs(pixels.astype(int) - shown).max() <= 3


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    read = read_image(encode(PIXELS, "TIFF", compression=compression)).pixels
    assert np.abs(read.astype(int) - PIXELS).mean() < (0.001 if compression != "jpeg" else 12)


@pytest.mark.parametrize("mode", ["I", "F", "HSV", "LAB"])
def test_modes_without_a_white_point_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=f"mode '{mode}'"):
        read_image(Image.new(mode, (4, 4)))


def test_first_page_of_a_tiff() -> None:
    pages = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_image(data).pixels, PIXELS)


# --- EXIF ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_turn(kind: str, orientation: int) -> None:
    shown = scene(40, 56, noise=0).pixels
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    picture = read_image(turned(shown, orientation, kind, **options))
    assert picture.orientation == orientation
    assert picture.stored_size == ((40, 56) if orientation < 5 else (56, 40))
    assert picture.size == (40, 56)
    assert picture.pixels.flags.c_contiguous
    tolerance = 20 if kind == "JPEG" else 0
    assert np.percentile(np.abs(picture.pixels.astype(int) - shown), 99) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_agrees_with_pillow(orientation: int) -> None:
    array = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    image = Image.fromarray(array)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(array, orientation), ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turn(stored(array, orientation), orientation), array)


def test_compressed_tiff_is_turned_once() -> None:
    picture = read_image(turned(PIXELS, 6, "TIFF", compression="tiff_lzw"))
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.stored_size == (64, 48)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_invalid_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    picture = read_image(encode(PIXELS, "PNG", exif=exif))
    assert picture.orientation == 1
    np.testing.assert_array_equal(picture.pixels, PIXELS)


# --- manners ------------------------------------------------------------------------------------


def test_global_settings_of_pillow_are_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for data in (encode(PIXELS), claiming("PNG", 60_000, 60_000), b"text"):
        with suppress(InputError):
            read_image(data)
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert after == before


def test_a_pillow_image_stays_usable() -> None:
    image = Image.open(io.BytesIO(turned(PIXELS, 6, "PNG")))
    first = read_image(image).pixels
    assert image.size == (48, 64)
    assert image.getexif()[0x0112] == 6
    np.testing.assert_array_equal(read_image(image).pixels, first)
    np.testing.assert_array_equal(first, PIXELS)


def test_a_lazy_pillow_image_shared_by_threads() -> None:
    data = turned(scene(300, 400).pixels, 8, "PNG")
    for _ in range(5):
        image = Image.open(io.BytesIO(data))
        barrier = threading.Barrier(8)

        def work(_: int, image: Image.Image = image, gate: threading.Barrier = barrier) -> bytes:
            gate.wait()
            return read_image(image).pixels.tobytes()

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(work, range(8)))) == 1
