"""The comparer itself: what must not pass does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ops.compare import close, close_labels, close_stats

EXPECTED = np.linspace(-1.0, 1.0, 50).reshape(5, 10)


def spoiled(value: float) -> Any:
    result = EXPECTED.astype(np.float32)
    result[2, 3] = value
    return result


def test_equal_passes() -> None:
    assert close(EXPECTED.astype(np.float32), EXPECTED) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5])
def test_one_wrong_value_fails(value: float) -> None:
    message = close(spoiled(value), EXPECTED)
    assert message is not None
    assert "(2, 3)" in message


def test_only_nan_fails() -> None:
    assert close(np.full((5, 10), np.nan, np.float32), EXPECTED) is not None
    assert close_stats(np.full((2, 6), np.nan, np.float32), np.ones((2, 6))) is not None


def test_small_errors_everywhere_fail() -> None:
    """Each is below the largest error allowed; together they are no rounding."""
    off = EXPECTED + 0.9e-5 * np.where(np.arange(50).reshape(5, 10) % 2, 1, -1)
    assert close(off, EXPECTED, scale=1.0) is None or "NMSE" in str(close(off, EXPECTED))
    far = EXPECTED + 0.99e-5 * 20
    assert "NMSE" in str(close(far, EXPECTED, scale=20.0))


def test_reference_must_be_finite() -> None:
    assert close(spoiled(np.nan), spoiled(np.nan)) is not None


def test_zero_reference_wants_zero() -> None:
    zero = np.zeros((2, 3))
    assert close(zero.astype(np.float32), zero) is None
    assert close(zero + 1e-12, zero) is not None


def test_other_shape_fails() -> None:
    assert close(EXPECTED[:, :9].astype(np.float32), EXPECTED) is not None


def test_labels_need_the_margin_rule() -> None:
    logits = np.zeros((1, 2, 1, 2), np.float32)
    logits[0, 1, 0] = (1.0, -1.0)
    arguments = {"logits": logits, "size": (1, 2), "extent": None}
    assert close_labels(np.array([[[1, 0]]], np.uint8), arguments) is None
    assert close_labels(np.array([[[1, 1]]], np.uint8), arguments) is not None
    assert close_labels(np.array([[[2, 0]]], np.uint8), arguments) is not None
    logits[:] = 0.0  # a tie: both are the best
    assert close_labels(np.array([[[1, 0]]], np.uint8), arguments) is None
