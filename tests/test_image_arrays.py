"""Pictures from arrays: views where possible, the same answer for any strides, help otherwise."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image
from tests.pictures import scene

PIXELS = scene(48, 64).pixels


class Wrapped:
    """An object with one array protocol and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any], *protocols: str) -> None:
        for name in protocols:
            setattr(self, name, getattr(array, name))
        self._keep = array


class OnGpu:
    __cuda_array_interface__: dict[str, Any] = {}  # noqa: RUF012


class DlpackOnGpu:
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("must not be asked for data on a GPU")


class Dlpack:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **settings: Any) -> object:
        return self._array.__dlpack__(**settings)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],
        lambda a: a[::2, 1::3],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.asfortranarray(a),
        lambda a: np.dstack([a, a[..., :1]])[..., :3],
        lambda a: np.broadcast_to(a[:1, :1], a.shape),
        lambda a: a[5:6, 7:8],
    ],
)
def test_strided_views(view: Any) -> None:
    array = view(PIXELS.copy())
    array.flags.writeable = False
    before = array.tobytes()
    pixels = read_image(array).pixels
    np.testing.assert_array_equal(pixels, array)
    assert pixels.strides[2] == 1
    assert min(pixels.strides) > 0
    assert array.tobytes() == before


def test_fitting_arrays_are_viewed() -> None:
    array = PIXELS.copy()
    for view in (array, array[::2, 4:], np.dstack([array, array])[..., :3]):
        assert np.shares_memory(read_image(view).pixels, view)


def test_array_protocols() -> None:
    for source in (Wrapped(PIXELS, "__array_interface__"), Dlpack(PIXELS), PIXELS.view(np.ndarray)):
        np.testing.assert_array_equal(read_image(source).pixels, PIXELS)


@pytest.mark.parametrize(
    "array, got, remedy",
    [
        (np.zeros((4, 5), np.uint8), r"shape \[4, 5\]", "np.stack"),
        (np.zeros((4, 5, 4), np.uint8), r"\[4, 5, 4\]", "image\\[..., :3\\]"),
        (np.zeros((4, 5, 1), np.uint8), r"\[4, 5, 1\]", "np.repeat"),
        (np.zeros((3, 4, 5), np.uint8), r"\[3, 4, 5\]", "transpose"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"\[1, 4, 5, 3\]", r"image\[0\]"),
        (np.zeros((), np.uint8), r"\[\]", ""),
        (np.zeros((4, 5, 3), np.float32), "float32", "255"),
        (np.full((4, 5, 3), np.nan), "NaN", "255"),
        (np.full((4, 5, 3), np.inf, np.float16), "NaN or infinite", ""),
        (np.zeros((4, 5, 3), np.uint16), "uint16", ">> 8"),
        (np.zeros((4, 5, 3), np.dtype(">i4")), "i4", "uint8"),
        (np.zeros((4, 5, 3), object), "object", "rectangular"),
        (np.zeros((4, 5, 3), bool), "bool", "uint8"),
        (np.zeros((4, 5, 3), "U1"), "<U1", ""),
        (np.zeros((0, 5, 3), np.uint8), "5 x 0", "no pixels"),
        (np.zeros((4, 0, 3), np.uint8), "0 x 4", "no pixels"),
        (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "9000 x 9000", "tiles"),
        (np.broadcast_to(np.uint8(0), (1, 10**6, 3)), "1000000 x 1", "tiles"),
        (np.ma.masked_equal(np.zeros((4, 5, 3), np.uint8), 0), "masked", "filled"),
    ],
)
def test_arrays_that_are_refused(array: Any, got: str, remedy: str) -> None:
    with pytest.raises(InputError, match=got) as caught:
        read_image(array, "query")
    assert caught.value.argument == "query"
    assert remedy.replace("\\", "") in caught.value.remedy


@pytest.mark.parametrize(
    "source, got",
    [
        (None, "None"),
        (3, "int"),
        ([[1, 2], [3, 4]], "list"),
        (io.BytesIO(b""), "BytesIO"),
        (OnGpu(), "OnGpu"),
        (DlpackOnGpu(), "device 2"),
        (Wrapped(np.zeros((4, 5, 3), object), "__array_interface__"), "object"),
    ],
)
def test_other_objects_are_refused(source: object, got: str) -> None:
    with pytest.raises(InputError, match=got):
        read_image(source)
