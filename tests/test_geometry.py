"""Where a picture lies in the encoder's input, and where its pixels lie on the feature grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image
from fsseg_sdk.preprocess import Geometry, bilinear_samples, plan, preprocess
from tests.pictures import scene

SIDES = st.integers(1, 5000)
INPUTS = st.integers(8, 1024)


def test_squash_covers_the_input() -> None:
    geometry = plan("squash", (1080, 1920), (448, 448))
    assert geometry.content == (448, 448)
    assert geometry.extent((28, 28)) == (28.0, 28.0)


@pytest.mark.parametrize(
    "image_size, content",
    [
        ((1080, 1920), (252, 448)),
        ((1920, 1080), (448, 252)),
        ((448, 448), (448, 448)),
        ((100, 100), (448, 448)),
        ((1, 5000), (1, 448)),
        ((5000, 1), (448, 1)),
        ((3, 4), (336, 448)),
    ],
)
def test_fit_keeps_the_aspect(image_size: tuple[int, int], content: tuple[int, int]) -> None:
    geometry = plan("fit", image_size, (448, 448))
    assert geometry.content == content
    rows, columns = geometry.extent((56, 28))
    assert rows == pytest.approx(content[0] / 8)
    assert columns == pytest.approx(content[1] / 16)


@given(SIDES, SIDES, INPUTS, INPUTS)
def test_fit_fills_one_side_and_rounds_the_other(h: int, w: int, s_h: int, s_w: int) -> None:
    content = plan("fit", (h, w), (s_h, s_w)).content
    scale = min(s_h / h, s_w / w)
    assert content[0] == s_h or content[1] == s_w
    for side, pixels in zip(content, (h, w), strict=True):
        assert side == 1 or abs(side - pixels * scale) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "geometry, word",
    [
        (("stretch", (4, 4), (8, 8), (8, 8)), "'stretch'"),
        (("squash", (0, 4), (8, 8), (8, 8)), "image_size"),
        (("squash", (4, 4), (8, -8), (8, 8)), "input_size"),
        (("fit", (4, 4), (8, 8), (9, 8)), "content"),
        (("fit", (4, 4), (8, 8), (0, 8)), "content"),
        (("fit", (4.0, 4), (8, 8), (8, 8)), "image_size"),
    ],
)
def test_impossible_geometries(geometry: tuple[object, ...], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Geometry(*geometry)  # type: ignore[arg-type]


def test_a_picture_without_pixels_has_no_plan() -> None:
    for kind in ("fit", "squash"):
        with pytest.raises(InputError, match="image_size"):
            plan(kind, (0, 5), (8, 8))  # type: ignore[arg-type]


@given(SIDES, st.floats(0.05, 100.0))
def test_samples_follow_the_formula(pixels: int, extent: float) -> None:
    low, high, share = bilinear_samples(pixels, extent)
    last = max(math.ceil(extent) - 1, 0)
    assert len(low) == len(high) == len(share) == pixels
    assert low.min() >= 0
    assert high.max() <= last
    assert share.min() >= 0
    assert share.max() <= 1
    for x in {0, pixels // 2, pixels - 1}:
        place = min(max((x + 0.5) * extent / pixels - 0.5, 0.0), last)
        assert low[x] + share[x] * (high[x] - low[x]) == pytest.approx(place, abs=1e-4)


def test_samples_equal_torch_interpolate() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    for cells, pixels in [(7, 50), (28, 448), (5, 3), (1, 9), (12, 12)]:
        line = random.normal(size=cells).astype(np.float32)
        low, high, share = bilinear_samples(pixels, float(cells))
        ours = line[low] * (1 - share) + line[high] * share
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(line)[None, None], size=pixels, mode="linear", align_corners=False
        )[0, 0].numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_preprocess_pads_with_the_mean_colour() -> None:
    picture = read_image(scene(60, 80).pixels)
    geometry = plan("fit", picture.size, (64, 64))
    assert geometry.content == (48, 64)
    tensor = preprocess(picture, geometry, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), threads=1)
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == np.float32
    assert (tensor[:, :, 48:] == 0).all()
    assert (tensor[:, :, :48] != 0).mean() > 0.99
    back = tensor[0].transpose(1, 2, 0) * (0.2, 0.3, 0.4) + (0.4, 0.5, 0.6)
    means = picture.pixels.mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(back[:48].mean(axis=(0, 1)), means, atol=0.01)


def test_preprocess_is_the_same_for_any_strides() -> None:
    pixels = scene(60, 80).pixels
    padded = np.zeros((120, 90, 3), np.uint8)
    padded[::2, 5:85] = pixels
    geometry = plan("squash", (60, 80), (32, 32))
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    views = [pixels, padded[::2, 5:85], np.asfortranarray(pixels), pixels[::-1].copy()[::-1]]
    results = [preprocess(read_image(view), geometry, mean, std, threads=1) for view in views]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_preprocess_refuses_another_pictures_geometry() -> None:
    with pytest.raises(InputError, match="60, 80"):
        preprocess(
            read_image(scene(60, 80).pixels),
            plan("squash", (80, 60), (32, 32)),
            (0.0, 0.0, 0.0),
            (1.0, 1.0, 1.0),
        )
