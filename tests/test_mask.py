"""Masks: what the values mean, the picture's size, the picture's turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from fsseg_sdk.errors import InputError
from fsseg_sdk.image import Picture, load_mask, read_image, read_mask
from tests.pictures import ORIENTATION, encode, scene, stored, turned

SCENE = scene(40, 56, noise=0)
DISC = SCENE.masks["red disc"]
PLAIN = read_image(SCENE.pixels)
SQUARE = scene(48, 48, noise=0)


def picture_of(height: int, width: int) -> Picture:
    return Picture(np.zeros((height, width, 3), np.uint8), 1, (height, width))


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int64, ">u2", np.float32, np.float64, np.float16, np.int8]
)
def test_zero_and_one(dtype: Any) -> None:
    foreground, ignore = read_mask(DISC.astype(dtype), PLAIN)
    assert ignore is None
    assert foreground.dtype == np.bool_
    np.testing.assert_array_equal(foreground, DISC)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_zero_and_255(dtype: Any) -> None:
    foreground, ignore = read_mask((DISC * 255).astype(dtype), PLAIN)
    assert ignore is None
    np.testing.assert_array_equal(foreground, DISC)


def test_255_beside_1_is_ignore() -> None:
    mask = DISC.astype(np.uint8)
    mask[:5] = 255
    foreground, ignore = read_mask(mask, PLAIN)
    assert ignore is not None
    np.testing.assert_array_equal(ignore, mask == 255)
    np.testing.assert_array_equal(foreground, mask == 1)


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))
)
def test_only_listed_values_pass(mask: np.ndarray[Any, Any]) -> None:
    mask = np.array([0, 1, 255, 7], np.uint8)[mask]
    picture = picture_of(*mask.shape)
    if (mask == 7).any():
        with pytest.raises(InputError, match=r"values .*7"):
            read_mask(mask, picture)
        return
    foreground, ignore = read_mask(mask, picture)
    ones = (mask == 1).any()
    np.testing.assert_array_equal(foreground, mask == (1 if ones else 255))
    assert (ignore is not None) == bool(ones and (mask == 255).any())
    if ignore is not None:
        assert not (ignore & foreground).any()


@pytest.mark.parametrize(
    "mask, word",
    [
        (np.full((40, 56), 2, np.uint8), "the values 2"),
        (np.arange(40 * 56).reshape(40, 56), "0, 1, 2, 3, 4, 5, 6, 7 and 2232 more"),
        (np.full((40, 56), 0.5), "0.5"),
        (np.full((40, 56), -1), "-1"),
        (np.full((40, 56), np.nan), "not finite"),
        (np.where(DISC, np.inf, 0.0), "not finite"),
        (DISC.astype(object), "dtype object"),
        (DISC.astype(np.complex64), "complex64"),
        (DISC.astype(str), "dtype <U5"),
        (DISC[None], r"shape \[1, 40, 56\]"),
        (DISC[..., None], r"shape \[40, 56, 1\]"),
        (np.stack([DISC] * 3), r"shape \[3, 40, 56\]"),
        (DISC[0], r"shape \[56\]"),
        (None, "None"),
        ("absent.png", "No such file"),
    ],
)
def test_masks_that_are_refused(mask: object, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        read_mask(mask, PLAIN, "shot 3, mask")
    assert caught.value.argument == "shot 3, mask"


def test_any_strides_and_untouched() -> None:
    wide = np.zeros((80, 112), np.uint8)
    wide[::2, ::2] = DISC
    view = wide[::2, ::2]
    view.flags.writeable = False
    before = wide.tobytes()
    np.testing.assert_array_equal(read_mask(view, PLAIN)[0], DISC)
    assert wide.tobytes() == before
    flipped = np.ascontiguousarray(DISC[::-1, ::-1])[::-1, ::-1]
    np.testing.assert_array_equal(read_mask(flipped, PLAIN)[0], DISC)


# --- files --------------------------------------------------------------------------------------


def _palette(values: np.ndarray[Any, Any], colours: list[int]) -> Image.Image:
    image = Image.frombytes("P", values.shape[::-1], values.astype(np.uint8).tobytes())
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(DISC),
        Image.fromarray(DISC.astype(np.uint8)),
        Image.fromarray((DISC * 255).astype(np.uint8)),
        Image.fromarray((DISC * 255).astype(np.uint8)).convert("RGB"),
        Image.fromarray((DISC * 255).astype(np.uint8)).convert("RGBA"),
        Image.fromarray((DISC * 255).astype(np.uint8)).convert("LA"),
        Image.fromarray(DISC.astype(np.uint16)),
        _palette(DISC, [0, 0, 0, 128, 0, 0]),
        _palette(DISC, [255, 255, 255, 0, 0, 0]),  # colours do not matter, indices do
    ],
    ids=lambda image: image.mode,
)
@pytest.mark.parametrize("kind", [None, "PNG", "TIFF"])
def test_mask_pictures(image: Image.Image, kind: str | None) -> None:
    source = image if kind is None else encode(image, kind)
    foreground, ignore = read_mask(source, PLAIN)
    assert ignore is None
    np.testing.assert_array_equal(foreground, DISC)


def test_palette_index_255_is_ignore() -> None:
    values = DISC.astype(np.uint8)
    values[0] = 255
    foreground, ignore = read_mask(encode(_palette(values, list(range(256)) * 3)), PLAIN)
    np.testing.assert_array_equal(foreground, values == 1)
    assert ignore is not None
    np.testing.assert_array_equal(ignore, values == 255)


@pytest.mark.parametrize(
    "image, word",
    [
        (Image.fromarray(SCENE.pixels), "colours"),
        (Image.new("RGBA", (56, 40), (255, 255, 255, 0)), "transparent"),
        (Image.new("CMYK", (56, 40)), "CMYK"),
        (Image.new("F", (56, 40)), "'F'"),
        (_palette(DISC * 15, [0, 0, 0] * 16), "0, 15"),
    ],
)
def test_pictures_that_are_no_masks(image: Image.Image, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_mask(image, PLAIN)


def test_a_blurred_jpeg_mask_says_why() -> None:
    data = encode((DISC * 255).astype(np.uint8), "JPEG", quality=60)
    with pytest.raises(InputError, match="JPEG blurs masks"):
        read_mask(data, PLAIN)


# --- size and turn ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(39, 56), (40, 57), (20, 28), (80, 112), (1, 1), (0, 56)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="40") as caught:
        read_mask(np.zeros(size, bool), PLAIN)
    assert "swapped" not in str(caught.value)


def test_swapped_sides_are_named() -> None:
    with pytest.raises(InputError, match=r"56 x 40 \(width x height\), got 40 x 56.*swapped"):
        read_mask(DISC.T, PLAIN)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_quarter_turns(orientation: int) -> None:
    """The sizes differ, so both a mask as stored and one as shown are clear."""
    picture = read_image(turned(SCENE.pixels, orientation))
    for mask in (DISC, stored(DISC, orientation), encode(stored(DISC, orientation))):
        read = load_mask(mask, picture)
        np.testing.assert_array_equal(read.foreground, DISC)
        assert read.warnings == ()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_ambiguous_sizes_are_turned_along_with_a_warning(orientation: int) -> None:
    shown = SQUARE if orientation >= 5 else SCENE
    disc = shown.masks["red disc"]
    picture = read_image(turned(shown.pixels, orientation))
    read = load_mask(stored(disc, orientation), picture, "shot 1, mask")
    np.testing.assert_array_equal(read.foreground, disc)
    assert len(read.warnings) == 1
    assert f"shot 1, mask: the picture has EXIF orientation {orientation}" in read.warnings[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("own", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_mask_with_an_orientation_of_its_own(orientation: int, own: int, kind: str) -> None:
    for shown in (SCENE, SQUARE):
        disc = shown.masks["red disc"]
        picture = read_image(turned(shown.pixels, orientation))
        data = turned((disc * 255).astype(np.uint8), own, kind)
        read = load_mask(data, picture)
        np.testing.assert_array_equal(read.foreground, disc)
        assert read.warnings == ()


def test_an_upright_picture_needs_no_turn() -> None:
    upright = turned(SCENE.pixels, 1)
    read = load_mask(DISC, read_image(upright))
    np.testing.assert_array_equal(read.foreground, DISC)
    assert read.warnings == ()


def test_ignored_pixels_turn_along() -> None:
    mask = DISC.astype(np.uint8)
    mask[:4, :9] = 255
    picture = read_image(turned(SCENE.pixels, 6))
    read = load_mask(stored(mask, 6), picture)
    assert read.ignore is not None
    np.testing.assert_array_equal(read.ignore, mask == 255)


def test_turned_photographs_and_masks_line_up() -> None:
    """The whole way: what is under the mask is the disc's colour, for every turn."""
    for orientation in range(1, 9):
        picture = read_image(turned(SCENE.pixels, orientation))
        foreground, _ = read_mask(stored(DISC, orientation), picture)
        under = picture.pixels[foreground].astype(int).mean(axis=0)
        assert np.abs(under - (200, 40, 30)).max() < 12, orientation


def test_pillow_masks_with_a_tag() -> None:
    picture = read_image(turned(SQUARE.pixels, 6))
    disc = SQUARE.masks["red disc"]
    image = Image.fromarray(disc)
    image.getexif()[ORIENTATION] = 1
    np.testing.assert_array_equal(read_mask(image, picture)[0], disc)
