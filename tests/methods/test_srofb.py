"""SROFB: which cells it learns from, what it learns, and what it does when it cannot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fsseg_sdk import InputError, methods, ops
from fsseg_sdk.methods import State
from fsseg_sdk.methods.cells import Samples, balanced, spread, thinned
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json
from fsseg_sdk.methods.srofb_settings import SrofbFastSettings, SrofbSettings

from . import torch_srofb
from .harness import CHANNELS, GRID, Case, draw_query, draw_shots, judged

SROFB, PANET = methods.get("srofb"), methods.get("panet")


def case(**changes: object) -> Case:
    return Case(SROFB, SrofbSettings(**changes))  # type: ignore[arg-type]


class TestAgainstTorch:
    @pytest.mark.parametrize(
        ("ways", "changes"),
        [
            ([0], {"match_share": 0.0}),
            ([0], {"match_share": 0.7, "query_weight": 3.0}),
            ([0, 0, 0, 0, 0], {"iterations_of_five": 60}),
            ([0, 1, 2], {"momentum": 0.9, "iterations": 30, "match_share": 0.0}),
            ([0, 1], {"length": 0.0, "temperature": 10.0, "learning_rate": 0.02}),
            ([0, 0, 0], {"background_threshold": 0.8, "iterations": 2, "hidden": 37}),
        ],
    )
    def test_scores(self, ways: list[int], changes: dict[str, float]) -> None:
        shots, _ = draw_shots(ways, noise=0.6)
        n_ways = max(ways) + 1
        query, _ = draw_query(n_ways, noise=0.6)
        own = case(**changes)
        match = own.fit(shots).match(query)
        assert match.warnings == ((),)
        start = ops.online_mlp_start(CHANNELS, own.settings.hidden, n_ways + 1, 0)
        expected = torch_srofb.logits(shots, query, start, own.settings)
        scale = np.abs(expected).max()
        assert scale > 0.05
        assert np.abs(match.logits[0] - expected).max() <= 1e-4 * scale
        assert np.array_equal(match.logits[0].argmax(0), expected.argmax(0))

    def test_bfloat16_gives_the_same_labels(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, _ = draw_query(2)
        exact, rounded = (case(precision=p).logits(shots, query) for p in ("fp32", "bf16"))
        assert not np.array_equal(exact, rounded)
        assert (exact.argmax(1) == rounded.argmax(1)).mean() >= 0.99


class TestSureCells:
    def fitted(self, **changes: object):
        return case(**changes).fit(draw_shots([0, 1])[0])

    def rough(self) -> np.ndarray:
        """Logits at PANet's scale 20: class 1 is sure in the first column, class 2 in the second,
        background in the third, nothing in the others."""
        rough = np.zeros((3, *GRID), np.float32)
        for label, column in ((1, 0), (2, 1), (0, 2)):
            rough[label, :, column] = 10.0
        return rough

    def test_thresholds(self) -> None:
        sure = self.fitted(temperature=10.0).sure_cells(self.rough(), GRID)
        assert [np.flatnonzero(plane.any(0)).tolist() for plane in sure] == [[2], [0], [1]]
        # softmax(10 * 0.5) with two others at 0 is 0.9867
        strict = self.fitted(temperature=10.0, foreground_threshold=0.99)
        assert strict.sure_cells(self.rough(), GRID)[0].any()
        assert not strict.sure_cells(self.rough(), GRID)[1:].any()
        # twice the temperature is as sure as twice the cosine
        warm = self.fitted(temperature=20.0, foreground_threshold=0.99)
        assert warm.sure_cells(self.rough(), GRID)[1:].any()

    def test_cells_beyond_the_picture_are_none(self) -> None:
        sure = self.fitted(fallback="top_k").sure_cells(self.rough(), (3.2, 0.9))
        assert sure[1, :4, 0].all() and not sure[:, 4:].any() and not sure[:, :, 1:].any()

    def test_top_k(self) -> None:
        own = self.fitted(fallback="top_k", top_k=3, temperature=10.0, foreground_threshold=1.0)
        rough = self.rough()
        rough[1, 4, 5:8] = 12.0, 13.0, 14.0
        sure = own.sure_cells(rough, GRID)
        assert np.argwhere(sure[1]).tolist() == [[4, 5], [4, 6], [4, 7]]
        assert sure[2].sum() == 3

    def test_budget(self) -> None:
        sure = self.fitted(query_cells=9).sure_cells(self.rough(), GRID)
        assert sure.sum((1, 2)).tolist() == [3, 3, 3]
        assert np.flatnonzero(sure[1].any(1)).tolist() == [0, 3, 6]  # evenly spaced


class TestWhenItCannot:
    def test_no_sure_cell_leaves_the_match_as_it_is(self) -> None:
        shots, _ = draw_shots([0])
        query, _ = draw_query(1)
        match = (
            case(temperature=1.0, foreground_threshold=1.0)
            .fit(shots)
            .match(np.concatenate([query, query]))
        )
        rough = Case(PANET, PanetSettings()).fit(shots).match(query).logits
        assert all(np.array_equal(logits, rough[0]) for logits in match.logits)
        assert all("before refinement" in texts[0] for texts in match.warnings)
        assert len(match.warnings) == 2

    @pytest.mark.parametrize("rate", [100.0, 30.0])
    def test_a_fit_that_diverges_leaves_the_match_as_it_is(self, rate: float) -> None:
        shots, _ = draw_shots([0, 1], noise=4.0)  # so that no network can tell them apart
        query, _ = draw_query(2, noise=4.0)
        own = case(
            learning_rate=rate, momentum=0.999, iterations=40, iterations_of_five=40, temperature=99
        )
        match = own.fit(shots).match(query)
        rough = Case(PANET, PanetSettings()).fit(shots).match(query).logits
        assert np.isfinite(match.logits).all()
        assert np.array_equal(match.logits, rough)
        assert "did not learn" in match.warnings[0][0]

    def test_a_support_that_cannot_be_learned_is_said_once(self) -> None:
        shots, _ = draw_shots([0], noise=4.0)
        fitted = case(warm_start=True, learning_rate=100.0, momentum=0.999, warm_iterations=40).fit(
            shots
        )
        assert "did not learn" in fitted.warnings[0]

    def test_a_class_that_is_not_there_takes_no_cells(self) -> None:
        """Its support still trains it; the others are refined."""
        shots, _ = draw_shots([0, 1, 2])
        query, labels = draw_query(3)
        without = query.copy()
        background = query[0, :, labels == 0]
        without[0, :, labels == 2] = background[: (labels == 2).sum()]
        match = case().fit(shots).match(without)
        assert match.warnings == ((),)
        assert (match.logits[0].argmax(0) == np.where(labels == 2, 0, labels)).mean() >= 0.97


class TestWhatItLearnsFrom:
    def test_the_query_bridges_a_gap(self) -> None:
        """Where query features are turned from the support's, its own sure cells help."""
        shots, _ = draw_shots([0, 0], noise=0.5)
        query, labels = draw_query(1, noise=0.5)
        drift = np.random.default_rng(0).normal(size=CHANNELS).astype(np.float32)
        turned = (labels == 1) * drift[:, None, None] * np.float32(0.9)
        query = query + turned[None].astype(np.float32)
        own, alone = case(match_share=0.0), case(match_share=0.0, query_weight=0.0)
        margins = []
        for each in (own, alone):
            logits = each.logits(shots, query)[0]
            margins.append((logits[1] - logits[0])[labels == 1].mean() / np.abs(logits).max())
        assert margins[0] > margins[1]

    def test_classes_weigh_the_same(self) -> None:
        shots, _ = draw_shots([0])
        query, _ = draw_query(1)
        state = case().summarise(shots)
        arrays = state.arrays
        samples = Samples.of_shots(arrays["cells"], arrays["cell_weights"], state.way, 1)
        assert samples.weights[0, 1].sum() < 0.5 * samples.weights[0, 0].sum()
        for balance, expected in (("class", [0.5, 0.5]), ("cell", None)):
            (_, weights), (_, more) = balanced(
                [samples, Samples(query, np.ones((1, 2, *GRID), np.float32))], balance
            )
            sums = weights.sum((0, 2, 3)) + more.sum((0, 2, 3))
            assert abs(sums.sum() - 1) < 1e-5
            assert expected is None or np.allclose(sums, expected, atol=1e-5)
            assert expected is not None or sums[0] > sums[1]

    def test_ways_have_their_own_planes(self) -> None:
        shots, labels = draw_shots([1, 0])
        state = case().summarise(shots)
        arrays = state.arrays
        weights = Samples.of_shots(arrays["cells"], arrays["cell_weights"], state.way, 2).weights
        for row, way in enumerate([1, 0]):
            assert np.array_equal(weights[row, way + 1, 0].reshape(GRID), labels[row] > 0)
            assert np.array_equal(weights[row, 0, 0].reshape(GRID), labels[row] == 0)
            assert not weights[row, 2 - way].any()

    def test_a_budget_keeps_both_sides(self) -> None:
        shots, _ = draw_shots([0, 0])
        state = case(support_cells=10).summarise(shots)
        assert state.arrays["cells"].shape == (2, CHANNELS, 10)
        assert (state.arrays["cell_weights"].sum(2) >= 4).all()
        query, expected = draw_query(1)
        logits = case(support_cells=10).logits(shots, query)
        assert (logits[0].argmax(0) == expected).mean() >= 0.95

    def test_more_shots_may_mean_more_steps(self) -> None:
        own = SrofbSettings(iterations=10, iterations_of_five=100)
        assert [own.iterations_at(n) for n in (1, 2, 5, 9)] == [10, 32, 100, 100]


def test_weights_a_rounding_below_zero_are_none() -> None:
    shots, _ = draw_shots([0])
    foreground = np.where(shots.foreground > 0, shots.foreground, np.float32(-1e-14))
    query, labels = draw_query(1)
    logits = case().logits(dataclasses.replace(shots, foreground=foreground), query)
    assert (logits[0].argmax(0) == labels).mean() >= 0.95


class TestCells:
    @pytest.mark.parametrize("most", [0, 1, 3, 7, 50])
    def test_spread(self, most: int) -> None:
        chosen = np.arange(40) % 5 == 2
        kept = spread(chosen, most)
        assert not (kept & ~chosen).any()
        assert kept.sum() == (8 if most in (0, 50) else most)

    @pytest.mark.parametrize("shown", [0, 1, 3, 40, 60])
    def test_thinned_is_a_choice_of_different_cells(self, shown: int) -> None:
        weights = np.zeros((2, 60), np.float32)
        weights[0, :shown] = 0.7
        weights[1, shown:] = 1.0
        index = thinned(weights, 20)
        assert len(index) == len(set(index.tolist())) == 20
        assert (weights[0, index] > 0).sum() >= min(shown, 10)
        assert len(thinned(weights, 0)) == len(thinned(weights, 60)) == 60


class TestPresenceAndSettings:
    def test_presence_is_that_of_the_match(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, _ = draw_query(2)
        fitted = case().fit(shots)
        rough = Case(PANET, PanetSettings()).fit(shots)
        match = fitted.match(query)
        expected = rough.presence(rough.match(query).logits[0]).scores
        assert np.array_equal(fitted.presence(judged(match)).scores, expected)

    def test_a_bundle_of_panet_hands_its_settings_on(self) -> None:
        own = settings_to_json(PanetSettings(scale=11.0))
        assert SROFB.settings_from("panet", own) == {"panet": own}
        fast = methods.get("srofb-fast")
        made = SrofbSettings(panet=PanetSettings(scale=11.0), hidden=64, match_share=0.0)
        stored = settings_to_json(made)
        kept = settings_from_json(SrofbFastSettings, fast.settings_from("srofb", stored), "s")
        assert kept == SrofbFastSettings(panet=made.panet, hidden=64, match_share=0.0)
        assert PANET.settings_from("srofb", stored) == own

    @pytest.mark.parametrize(
        "wrong",
        [
            {"temperature": 0.0},
            {"foreground_threshold": 1.5},
            {"dropout": 1.0},
            {"length": -1.0},
            {"hidden": 0},
            {"iterations": 0},
            {"momentum": 1.0},
            {"match_share": 1.1},
            {"query_weight": -1.0},
            {"support_cells": -3},
            {"seed": 1 << 33},
        ],
    )
    def test_settings_out_of_range(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            SrofbSettings(**wrong)  # type: ignore[arg-type]

    def test_fast_is_the_same_method_with_other_settings(self) -> None:
        fast = methods.get("srofb-fast")
        assert issubclass(fast.settings_type, SrofbSettings)
        assert SrofbFastSettings().warm_start and SrofbFastSettings().query_cells > 0

    def test_a_state_of_another_method_is_refused(self) -> None:
        shots, _ = draw_shots([0])
        state = case().summarise(shots)
        SROFB.check(state, CHANNELS, GRID)
        for name in ("cells", "cell_weights", "foreground"):
            arrays = {k: v for k, v in state.arrays.items() if k != name}
            with pytest.raises(InputError, match=name):
                SROFB.check(State(state.way, arrays), CHANNELS, GRID)
        odd = {**state.arrays, "cells": state.arrays["cells"][:, :-1]}
        with pytest.raises(InputError, match="cells"):
            SROFB.check(State(state.way, odd), CHANNELS, GRID)
        with pytest.raises(InputError):
            PANET.check(state, CHANNELS, GRID)

    def test_boxes_are_refined_once(self) -> None:
        shots, _ = draw_shots([0])
        boxed = dataclasses.replace(
            shots,
            foreground=np.ones_like(shots.foreground),
            background=np.zeros_like(shots.background),
            possible=np.ones_like(shots.foreground),
            weak=np.ones(1, np.bool_),
        )
        boxed.background[:, :, -1] = 1.0
        boxed.foreground[:, :, -1] = boxed.possible[:, :, -1] = 0.0
        panet = PanetSettings(refine_weak=True)
        state = case(panet=panet).summarise(boxed)
        expected = Case(PANET, panet).summarise(boxed)
        assert np.array_equal(state.arrays["foreground"], expected.arrays["foreground"])
        own = state.arrays["cell_weights"][0, 0].sum()
        assert 0 < own < boxed.foreground.sum()
