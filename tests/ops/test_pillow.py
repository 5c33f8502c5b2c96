"""preprocess against the filter it promises: Pillow's BILINEAR, which antialiases."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import ops
from tests.ops.inputs import picture

SIZES = [
    ((1080, 1920), (473, 473)),  # (height, width)
    ((480, 640), (448, 448)),
    ((64, 64), (64, 64)),
    ((37, 53), (91, 200)),  # larger
    ((4000, 1), (32, 32)),
    ((1, 4000), (32, 32)),
    ((300, 7), (9, 150)),  # smaller one way, larger the other
    ((1, 1), (5, 5)),
]


@pytest.mark.parametrize("kind", ["noise", "bars"])
@pytest.mark.parametrize(("size", "content"), SIZES)
def test_preprocess_is_within_one_level_of_pillow(
    size: tuple[int, int], content: tuple[int, int], kind: str
) -> None:
    image = picture(np.random.default_rng(0), size, "contiguous")
    if kind == "bars":  # black and white: the largest differences that neighbours can have
        image = np.where(image < 128, 0, 255).astype(np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = ops.preprocess(image, content, content, mean, std)[0]
    resized = Image.fromarray(image).resize(content[::-1], Image.Resampling.BILINEAR)
    unit = result.transpose(1, 2, 0) * np.array(std, np.float32) + np.array(mean, np.float32)
    difference = np.abs(unit * 255.0 - np.asarray(resized, np.float32))
    # Pillow rounds to whole levels after each of its two passes, ours not at all.
    assert float(difference.max()) <= 1.0 + 1e-3, float(difference.max())
    if size == content:
        assert float(difference.max()) <= 1e-3
