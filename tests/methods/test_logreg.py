"""Logistic regression: against Newton's method, the query's pass against its formula, balance."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import InputError, methods, ops
from fsseg_sdk.methods.logreg import LogregFitted, LogregSettings, cell_weights
from fsseg_sdk.methods.rows import labelled_rows

from .harness import GRID, Case, draw_query, draw_shots

LOGREG = methods.get("logreg")
WAYS = [0, 1, 0, 2, 1, 0]


def fitted(settings: LogregSettings, noise: float = 0.6) -> LogregFitted:
    found = Case(LOGREG, settings).fit(draw_shots(WAYS, noise=noise)[0])
    assert isinstance(found, LogregFitted)
    return found


def by_newton(settings: LogregSettings, query: np.ndarray) -> np.ndarray:
    """[N, h, w] logits of the regression itself, class by class, in double."""
    state = LOGREG.summarise(draw_shots(WAYS, noise=0.6)[0], settings, {})
    rows = labelled_rows(state, 3)
    cells = np.pad(settings.length * rows.features.astype(np.float64), ((0, 0), (0, 1)))
    cells[:, -1] = 1
    decay = np.full(cells.shape[1], settings.l2)
    decay[-1] = 0
    asked = query[0].astype(np.float64)
    asked *= settings.length / np.linalg.norm(asked, axis=0)
    logits = []
    for target in rows.member[:, 1:].T:
        weights = cell_weights(target[:, None].astype(np.float32), settings.balanced)[:, 0]
        theta = np.zeros(cells.shape[1])
        for _ in range(30):
            likely = 1 / (1 + np.exp(-cells @ theta))
            slope = cells.T @ (weights * (likely - target)) + decay * theta
            curvature = cells.T @ (cells * (weights * likely * (1 - likely))[:, None])
            theta -= np.linalg.solve(curvature + np.diag(decay), slope)
        logits.append(np.einsum("c,chw->hw", theta[:-1], asked) + theta[-1])
    return np.stack(logits)


@pytest.mark.parametrize("balanced", [True, False])
def test_it_reaches_the_regression(balanced: bool) -> None:
    settings = LogregSettings(l2=0.02, steps=20_000, balanced=balanced)
    query, _ = draw_query(3, noise=0.6)
    own = fitted(settings).match(query).logits[0]
    assert not own[0].any()
    assert np.abs(own[1:] - by_newton(settings, query)).max() < 5e-3
    other = fitted(dataclasses.replace(settings, balanced=not balanced)).match(query).logits[0]
    assert np.abs(own - other).max() > 0.1  # the test can fail


def test_the_query_pass_is_exact() -> None:
    settings = LogregSettings(length=3.0)
    query, _ = draw_query(3, noise=0.6)
    query[0, :, 4, 4] = 0
    own = fitted(settings)
    length = np.linalg.norm(query.astype(np.float64), axis=1, keepdims=True)
    unit = settings.length * query / np.where(length > 0, length, 1)
    expected = np.einsum("kc,bchw->bkhw", own.weights.astype(np.float64), unit)
    expected += own.bias[:, None, None]
    assert np.abs(own.match(query).logits[:, 1:] - expected).max() < 1e-5
    scaled = own.match(7 * query).logits
    assert np.abs(scaled - own.match(query).logits).max() < 1e-5


def test_weights_of_cells() -> None:
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    weights = cell_weights(targets, True)
    assert weights[:, 0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert weights[:, 1].tolist() == weights[:, 2].tolist() == [0.25] * 4  # one side has none
    assert (cell_weights(targets, False) == 0.25).all()


def test_weights_take_little_memory() -> None:
    targets = np.zeros((4000, 50), np.float32)
    targets[np.arange(4000), np.arange(4000) % 50] = 1
    tracemalloc.start()
    weights = cell_weights(targets, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert weights.dtype == np.float32 and peak < 1.6 * weights.nbytes


def test_at_most_so_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = ops.logistic_fit

    def spied(cells: Any, *rest: Any, **named: Any) -> Any:
        seen.append(len(cells))
        return plain(cells, *rest, **named)

    monkeypatch.setattr(ops, "logistic_fit", spied)
    shots, query = draw_shots([0, 1] * 8)[0], draw_query(2)
    for most in (20_000, 1000):
        logits = Case(LOGREG, LogregSettings(cells=most)).logits(shots, query[0])[0]
        assert (logits.argmax(axis=0) == query[1]).mean() > 0.95
    assert seen[0] == 16 * GRID[0] * GRID[1] and 1000 <= seen[1] <= 1003


def test_balance_finds_more_of_a_small_class() -> None:
    """Out of classes that cannot be told apart cell by cell."""
    query, truth = draw_query(3, noise=1.5)
    found = [
        (fitted(LogregSettings(balanced=rule), noise=1.5).match(query).logits[0, 1:] > 0)
        for rule in (True, False)
    ]
    recall = [np.mean([own[n][truth == n + 1].mean() for n in range(3)]) for own in found]
    assert recall[0] > recall[1]


def test_settings() -> None:
    wrongs = ({"length": 0.0}, {"steps": 0}, {"rate": 0.0}, {"rate": 2.1}, {"momentum": 1.0})
    for wrong in (*wrongs, {"l2": -1.0}, {"cells": 10}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            LogregSettings(**wrong)  # type: ignore[arg-type]
