"""Arrays as .npy: the same bytes as numpy's, and a reader that evaluates nothing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fsseg_sdk.errors import TaskError
from fsseg_sdk.fields import Refusal
from fsseg_sdk.npy import read_npy, write_npy

REFUSE = Refusal(TaskError, "task 'x'", "Save it again.")
SHAPES = [(), (0,), (1,), (7,), (2, 3), (0, 4), (3, 1, 2, 5), (1, 1, 1, 1, 1, 1, 1), (12345, 1)]


def example(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return (np.arange(int(np.prod(shape))) % 100).reshape(shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
)
def test_round_trip_and_the_bytes_of_numpy(dtype: str, shape: tuple[int, ...]) -> None:
    array = example(dtype, shape)
    data = write_npy(array)
    file = io.BytesIO()
    np.save(file, array)
    assert data == file.getvalue()
    found = read_npy(data, "x", REFUSE, dtype=dtype, shape=shape)
    assert found.dtype == array.dtype
    assert found.shape == shape
    assert np.array_equal(found, array)
    assert not found.flags.writeable


def test_any_layout_is_written_in_c_order() -> None:
    array = example("float32", (4, 6))
    wide = np.zeros((4, 12), np.float32)
    wide[:, ::2] = array
    for other in (np.asfortranarray(array), wide[:, ::2], array.astype(">f4"), array[::-1][::-1]):
        assert write_npy(other) == write_npy(array)


def test_other_types_are_not_written() -> None:
    for dtype in ("complex64", "object", "uint64", "U3"):
        with pytest.raises(TypeError, match="array: expected one of bool, uint8"):
            write_npy(np.zeros(3, dtype))


def test_members_at_odd_addresses_are_aligned() -> None:
    data = write_npy(example("float64", (5,)))
    for shift in range(9):
        view = memoryview(bytes(shift) + data)[shift:]
        assert read_npy(view, "x", REFUSE, dtype="float64", shape=[5]).flags.aligned


def test_every_byte_of_the_header_counts() -> None:
    """No other spelling of an array is accepted, and none is evaluated."""
    data = write_npy(example("float32", (3, 4)))
    for at in range(len(data) - 48):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            with pytest.raises(TaskError, match="task 'x', x: expected"):
                read_npy(bytes(broken), "x", REFUSE, dtype="float32", shape=(3, 4))


def test_free_axes() -> None:
    data = write_npy(example("uint8", (3, 4)))
    for shape in ((-1, 4), (3, -1), (-1, -1)):
        assert read_npy(data, "x", REFUSE, dtype="uint8", shape=shape).shape == (3, 4)
    for shape in ((-1,), (-1, 5), (-1, -1, -1), ()):
        with pytest.raises(TaskError, match="expected shape"):
            read_npy(data, "x", REFUSE, dtype="uint8", shape=shape)


def test_claims_beyond_the_data() -> None:
    data = write_npy(example("uint8", (3, 4)))
    for claim in (b"(9, 4)", b"(3, 9)"):
        with pytest.raises(TaskError, match="values after the header, got 12 bytes"):
            read_npy(data.replace(b"(3, 4)", claim), "x", REFUSE, dtype="uint8", shape=(-1, -1))
