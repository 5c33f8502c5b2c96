"""What is random in online_mlp: the same bits everywhere, and as random as it must be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fsseg_sdk import ops
from fsseg_sdk.errors import InputError
from fsseg_sdk.ops.counter import dropout_mask, random_words


def test_start_is_the_same_everywhere() -> None:
    mlp = ops.online_mlp_start(35, 300, 4, seed=7)
    assert [array.shape for array in mlp] == [(300, 35), (300,), (4, 300), (4,)]
    assert all(array.dtype == np.float32 for array in mlp)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in mlp)).hexdigest()
    assert digest[:16] == "5f39682088b37e84"
    other = ops.online_mlp_start(35, 300, 4, seed=8)
    assert all(not np.array_equal(a, b) for a, b in zip(mlp, other, strict=True))
    for array, fan_in in zip(mlp, (35, 35, 300, 300), strict=True):
        bound = fan_in**-0.5
        assert np.abs(array).max() <= bound
        if array.size > 100:
            assert abs(array.mean()) < 0.1 * bound and array.std() > 0.9 * bound / 3**0.5


@pytest.mark.parametrize("wrong", [(0, 3, 2), (4, 0, 2), (4, 3, 0), (4, 3, 257), (4, 5000, 2)])
def test_start_refuses(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InputError):
        ops.online_mlp_start(*wrong)


def test_random_words() -> None:
    words = random_words(3, 4, np.array([0, 1, 12345678901]), 5)
    assert hashlib.sha256(words.tobytes()).hexdigest()[:16] == "118c59ba09f118b6"
    mask = dropout_mask(0, 0, np.arange(500), 300, 0.3)
    assert abs(mask.mean() - 0.7) < 0.005
    spread = mask.mean(axis=0).std(), mask.mean(axis=1).std()  # of sums of 500 and 300 such words
    assert abs(spread[0] - (0.21 / 500) ** 0.5) < 0.003
    assert abs(spread[1] - (0.21 / 300) ** 0.5) < 0.003
    assert abs(np.corrcoef(mask[:-1].reshape(-1), mask[1:].reshape(-1))[0, 1]) < 0.01
    assert abs(np.corrcoef(mask[:, :-1].reshape(-1), mask[:, 1:].reshape(-1))[0, 1]) < 0.01
    assert dropout_mask(0, 0, np.arange(9), 9, 0.0).all()
