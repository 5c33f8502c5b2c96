"""Pictures to the encoder's input, and scores to labels at the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import checks
from .checks import FloatArray
from .device import DeviceArray, DeviceContext
from .places import Place, on, place_of
from .runtime import choose_threads

MOST_PLANES = 65535


def upsample_argmax(
    logits: object,
    size: tuple[int, int],
    extent: tuple[float, float] | None = None,
    labels: object = None,
    *,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Labels at the picture's size: argmax over P of the bilinear upsampling of ``logits``.

    logits: ``[B, P, h, w]`` float32; size: ``(H, W)``; extent: the part of the grid that the
    picture covers, in cells, from the top left; None is all of it. labels: ``[P]`` uint8, what each
    plane stands for; several may stand for the same. None: a plane's number, P <= 255 then. Ties go
    to the lowest plane. Returns ``[B, H, W]`` uint8. Raises InputError.
    """
    place = place_of(logits, "logits")
    scores = checks.planes(logits, "logits", "[B, P, h, w]", place=place)
    names = None if labels is None else checks.label_numbers(labels, "labels", scores, place)
    if scores.shape[1] > (255 if names is None else MOST_PLANES):
        raise InputError(
            "logits",
            expected="at most 255 classes" if names is None else f"at most {MOST_PLANES} planes",
            got=str(scores.shape[1]),
            remedy="Segment in several passes.",
        )
    height, width = checks.size_pair(size, "size")
    extent_h, extent_w = checks.extent_pair(extent, (scores.shape[2], scores.shape[3]))
    out = place.empty((scores.shape[0], height, width), "uint8")
    number = choose_threads(threads)
    if not place.kernels.upsample_argmax(scores, extent_h, extent_w, names, out, number):
        checks.blame({"logits": scores}, "Scale the logits down.")
    return out


def preprocess_all(
    images: Sequence[object],
    input_size: tuple[int, int],
    contents: Sequence[tuple[int, int]],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    context: DeviceContext,
) -> DeviceArray:
    """``preprocess`` of pictures of any sizes, of the host or of a device, into one array there.

    As ``preprocess``, with one content for each image. Returns ``[B, 3, S_h, S_w]`` float32 of the
    context. Raises InputError.
    """
    place = on(context)
    height, width = checks.size_pair(input_size, "input_size")
    out: DeviceArray = place.empty((len(images), 3, height, width))
    for index, (image, content) in enumerate(zip(images, contents, strict=True)):
        pixels = checks.rgb(image, "image", place)
        _preprocess(pixels, content, mean, std, out[index : index + 1], place, 1)
    return out


def preprocess(
    image: object,
    input_size: tuple[int, int],
    content: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    threads: int | None = None,
) -> FloatArray:
    """A picture of any size to the encoder's input: resize with antialiasing, normalise, pad.

    image: uint8 ``[H, W, 3]`` (strided views are read in place); input_size: ``(S_h, S_w)``;
    content: the size that the picture gets, at the top left; the rest is 0 (the mean colour).
    The filter is Pillow's BILINEAR without its rounding to whole numbers.
    Returns ``[1, 3, S_h, S_w]`` float32: ``(x / 255 - mean) / std``. Raises InputError.
    """
    place = place_of(image, "image")
    pixels = checks.rgb(image, "image", place)
    height, width = checks.size_pair(input_size, "input_size")
    out = place.empty((1, 3, height, width))
    _preprocess(pixels, content, mean, std, out, place, choose_threads(threads))
    return out


def _preprocess(
    pixels: NDArray[np.uint8],
    content: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    out: Any,
    place: Place,
    threads: int,
) -> None:
    height, width = out.shape[2:]
    content_h, content_w = checks.size_pair(content, "content")
    if content_h > height or content_w > width:
        raise InputError(
            "content",
            expected=f"at most the input size {(height, width)}",
            got=str((content_h, content_w)),
            remedy="Take it from Geometry.content.",
        )
    means = checks.triple(mean, "mean")
    deviations = checks.triple(std, "std", positive=True)
    place.kernels.preprocess(pixels, content_h, content_w, means, deviations, out, threads)
