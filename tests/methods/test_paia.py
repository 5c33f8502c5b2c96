"""PAIA against its equations, and what it does where there is nothing to learn from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fsseg_sdk import InputError, methods
from fsseg_sdk.methods import Shots, State
from fsseg_sdk.methods.extents import coverage
from fsseg_sdk.methods.paia import Paia, PaiaFitted
from fsseg_sdk.methods.paia_settings import PaiaSettings, PaiaThreshold
from fsseg_sdk.methods.panet import PanetFitted, PanetSettings
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json

from . import naive_paia
from .harness import (
    CHANNELS,
    GRID,
    Auxiliary,
    Case,
    draw_auxiliary,
    draw_query,
    draw_shots,
    draw_threshold,
    judged,
    scene,
)

PAIA, PANET = Paia(), methods.get("panet")
POOL = PanetSettings(background="pool-of-pixels")
JUMP = 1e-5  # an indicator that is no closer to its jump cannot turn by rounding


def case(**changes: object) -> Case:
    return Case(PAIA, PaiaSettings(**changes))  # type: ignore[arg-type]


def fitted(own: Case, shots: Shots | State) -> PaiaFitted:
    found = own.fit(shots)
    assert isinstance(found, PaiaFitted)
    return found


def panet(shots: Shots, settings: PanetSettings = POOL) -> PanetFitted:
    found = Case(PANET, settings).fit(shots)
    assert isinstance(found, PanetFitted)
    return found


VARIED = [
    ([0], [0], {}),
    ([0], [0], {"steps": 3, "query_steps": 3, "radius": 1.0}),
    ([0], [0, 0, 0], {"steps": 5, "query_steps": 2}),
    ([0, 0, 1], [1, 0], {"radius": 0.6, "query_steps": 1}),
    ([0, 1, 2], [2, 2, 1, 0], {"distilled": False, "radius": 0.2}),
    ([0, 1], [0, 1, 1], {"threshold": draw_threshold(), "steps": 2}),
    ([0, 1], [1], {"panet": PanetSettings(scale=10.0, background_parts=3)}),
    ([0, 1], [0, 1], {"threshold": draw_threshold(3, bias=0.7), "query_steps": 0}),
]


class TestEquations:
    @pytest.mark.parametrize(("ways", "unlabelled", "changes"), VARIED)
    def test_follows_them(
        self, ways: list[int], unlabelled: list[int], changes: dict[str, object]
    ) -> None:
        own = case(**changes)
        shots, _ = draw_shots(ways, noise=0.6)
        pictures, _ = draw_auxiliary(unlabelled, noise=0.6, classes=max(ways) + 2)
        extents = [(9.0 - 0.6 * (n % 3), 11.0 - 1.5 * (n % 2)) for n in range(len(unlabelled))]
        pictures = dataclasses.replace(pictures, extents=extents)
        state = own.with_auxiliary(shots, pictures)
        query, _ = draw_query(max(ways) + 1, noise=0.6)
        extent = (8.3, 9.75)
        match = fitted(own, state).match(query, [extent])

        plain = panet(shots, own.settings.panet)
        covered = np.stack([naive_coverage(*each) for each in extents])
        counts = np.bincount(ways).astype(np.float64)
        start = plain.prototypes.astype(np.float64), counts, plain.parts
        fused, total, found = naive_paia.fuse(
            pictures.features, covered, unlabelled, *start, own.settings.steps, own.settings
        )
        last, _, asked = naive_paia.fuse(
            query,
            naive_coverage(*extent)[None],
            [-1],
            *(fused, total, plain.parts, own.settings.query_steps, own.settings),
        )
        assert min(step.closest for step in [*found, *asked]) > JUMP
        assert (total > counts).any()  # something was learned
        before = np.abs(judged(match) - naive_scores(query, fused, plain.parts, own))
        after = np.abs(match.logits[0] - naive_scores(query, last, plain.parts, own))
        assert max(before.max(), after.max()) <= 2e-4
        kept = PAIA.kept(state, max(ways) + 1, own.settings)
        cells = np.arange(len(unlabelled)), unlabelled
        expected = np.stack([step.kept[cells].reshape(-1, *GRID) for step in found])
        assert np.abs(kept - expected).max() <= 2e-4

    def test_where_nothing_is_fused_it_is_panet(self) -> None:
        for ways in ([0], [0, 1, 1]):
            shots, _ = draw_shots(ways)
            query, _ = draw_query(max(ways) + 1)
            match = case(query_steps=0).fit(shots).match(query)
            expected = panet(shots).match(query)
            assert np.array_equal(match.logits, expected.logits)
            assert np.array_equal(judged(match), judged(expected))
        shots, _ = draw_shots([0])  # of one shot the rule for the background says nothing
        paper = Case(PANET, PanetSettings()).logits(shots, query)
        assert np.abs(case(query_steps=0).logits(shots, query) - paper).max() <= 1e-4

    def test_what_lies_beside_a_query_has_no_say(self) -> None:
        own = case(query_steps=3)
        fit = own.fit(draw_shots([0, 1])[0])
        query, _ = draw_query(2, noise=0.5)
        spoilt = query.copy()
        spoilt[..., 9:] = scene(np.ones(GRID, int), np.random.default_rng(0), 1.0)[..., 9:]
        clean, dirty, everywhere = (
            fit.match(features, extents).logits[..., :9]
            for features, extents in (
                (query, [(9.0, 9.0)]),
                (spoilt, [(9.0, 9.0)]),
                (spoilt, None),
            )
        )
        assert np.abs(dirty - clean).max() <= 1e-5
        assert np.abs(everywhere - clean).max() > 0.01

    def test_no_steps_leave_the_pictures_out(self) -> None:
        own = case(steps=0, query_steps=0)
        shots, _ = draw_shots([0])
        query, _ = draw_query(1)
        state = own.with_auxiliary(shots, draw_auxiliary([0, 0])[0])
        assert np.array_equal(own.logits(state, query), own.logits(shots, query))
        assert own.fit(state).warnings == ()

    def test_a_biased_prototype_gets_better(self) -> None:
        """One shot shows one side of a class; other pictures show the rest of it."""
        rng = np.random.default_rng(4)
        shots, labels = draw_shots([0])
        pictures, marks = draw_auxiliary([0] * 6)
        side = rng.normal(size=CHANNELS).astype(np.float32) * 0.9
        shots.features[0][:, labels[0] > 0] += side[:, None]
        own = case(query_steps=0)
        alone = panet(shots).prototypes[1]
        found = fitted(own, own.with_auxiliary(shots, pictures)).rough.prototypes[1]
        truth = pictures.features.transpose(0, 2, 3, 1)[marks > 0].mean(axis=0)
        assert np.linalg.norm(found - truth) < 0.5 * np.linalg.norm(alone - truth)


class TestPresence:
    def test_a_query_does_not_vote_for_itself(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, _ = draw_query(2, noise=0.5)
        with_query, without = case(query_steps=3), case(query_steps=0)
        match, expected = (own.fit(shots).match(query) for own in (with_query, without))
        assert np.array_equal(judged(match), judged(expected))
        assert np.abs(match.logits - expected.logits).max() > 0.01

    def test_facts_are_those_of_the_fused_prototypes(self) -> None:
        own = case()
        shots, _ = draw_shots([0, 1])
        found = fitted(own, own.with_auxiliary(shots, draw_auxiliary([0, 1])[0]))
        mine, plain = found.rough.facts, panet(shots).facts
        unit = found.rough.prototypes / np.linalg.norm(found.rough.prototypes, axis=1)[:, None]
        region = shots.features[0][:, shots.foreground[0] > 0]
        cosines = unit[1] @ (region / np.linalg.norm(region, axis=0))
        assert abs(float(mine.self_cosine[0]) - cosines.mean()) <= 1e-5
        assert abs(float(mine.self_cosine[0]) - float(plain.self_cosine[0])) > 1e-5


class TestNothingToLearnFrom:
    def test_a_picture_without_the_class_warns_by_label(self) -> None:
        own = case(query_steps=0)
        shots, _ = draw_shots([0, 1])
        scenery = scene(np.zeros(GRID, np.int64), np.random.default_rng(3))
        pictures, _ = draw_auxiliary([0])
        both = Auxiliary(np.concatenate([pictures.features, scenery]), np.array([0, 1]))
        found = fitted(own, own.with_auxiliary(shots, both))
        assert [text.split(":")[0] for text in found.warnings] == ["label 2"]
        expected = panet(shots).prototypes
        assert np.array_equal(found.rough.prototypes[[0, 2]], expected[[0, 2]])
        assert not np.array_equal(found.rough.prototypes[1], expected[1])

    def test_distances_that_are_all_zero(self) -> None:
        """A picture of nothing but the prototype: its normalised distances are 0 and pass."""
        shots, _ = draw_shots([0], noise=0.0)
        own = case(query_steps=0)
        prototype = panet(shots).prototypes[1]
        same = np.tile(prototype[:, None, None], (1, *GRID))[None].astype(np.float32)
        for radius, counted in ((0.5, 2), (0.0, 1)):
            chosen = case(query_steps=0, radius=radius)
            found = fitted(chosen, chosen.with_auxiliary(shots, Auxiliary(same, np.zeros(1, int))))
            assert found.start.counts.tolist() == [counted]
            assert np.abs(found.rough.prototypes[1] - prototype).max() <= 1e-6
        kept = PAIA.kept(
            own.with_auxiliary(shots, Auxiliary(same, np.zeros(1, int))), 1, own.settings
        )
        assert (kept > 0.9).all()

    def test_constant_distances_pass_or_fail_together(self) -> None:
        shots, _ = draw_shots([0], noise=0.0)
        off = panet(shots).prototypes[1] * 2 + 0.3
        same = np.tile(off[:, None, None], (1, *GRID))[None].astype(np.float32)
        for radius, counted in ((1.5, 2), (1.0, 1), (0.9, 1)):
            own = case(query_steps=0, radius=radius)
            state = own.with_auxiliary(shots, Auxiliary(same, np.zeros(1, int)))
            assert fitted(own, state).start.counts.tolist() == [counted]

    @hypothesis_settings(deadline=None, max_examples=30)
    @given(
        seed=st.integers(0, 2**16),
        grid=st.sampled_from([(1, 1), (1, 5), (3, 2)]),
        pictures=st.integers(0, 3),
        ways=st.integers(1, 3),
        steps=st.integers(0, 3),
        power=st.integers(-3, 3),
        dead=st.booleans(),
        distilled=st.booleans(),
    )
    def test_any_input_gives_numbers(
        self,
        seed: int,
        grid: tuple[int, int],
        pictures: int,
        ways: int,
        steps: int,
        power: int,
        dead: bool,
        distilled: bool,
    ) -> None:
        rng = np.random.default_rng(seed)

        def draw(count: int) -> np.ndarray:
            cells = rng.normal(size=(count, 4, *grid)) * 10.0**power
            if dead:
                cells *= rng.uniform(size=(count, 1, *grid)) < 0.5
            return cells.astype(np.float32)

        own = case(steps=steps, query_steps=steps, distilled=distilled)
        foreground = rng.uniform(size=(ways, *grid)).astype(np.float32)
        shots = Shots(
            features=draw(ways),
            picture=np.arange(ways),
            foreground=foreground,
            background=1 - foreground,
            possible=foreground,
            way=np.arange(ways),
            weak=np.zeros(ways, np.bool_),
        )
        state = own.summarise(shots)
        if pictures:
            extents = [(grid[0] * 0.7, float(grid[1]))] * pictures
            some = Auxiliary(draw(pictures), rng.integers(0, ways, pictures), extents)
            state = state.with_auxiliary(own.summarise_auxiliary(some))
        found = fitted(own, state)
        match = found.match(draw(2))
        assert np.isfinite(match.logits).all()
        assert np.abs(match.logits).max() <= own.settings.panet.scale * 1.001
        assert (found.start.counts >= 1).all()
        assert found.start.counts.sum() <= ways + pictures
        scores = found.presence(judged(match)).scores
        assert ((scores >= 0) & (scores <= 1)).all()


class TestSettings:
    def test_a_network_travels_as_json(self) -> None:
        own = PaiaSettings(threshold=draw_threshold())
        values = settings_to_json(own)
        assert len(values["threshold"]["hidden_weight"]) == 20
        assert settings_from_json(PaiaSettings, values, "s") == own

    def test_what_carries_over(self) -> None:
        own = {"scale": 10.0, "background_parts": 3}
        pooled = {**own, "background": "pool-of-pixels"}
        assert PAIA.settings_from("panet", own) == {"panet": pooled}
        assert PAIA.settings_from("srofb", {"panet": own, "hidden": 3}) == {"panet": pooled}
        assert PANET.settings_from("paia", {"panet": pooled, "steps": 1}) == pooled
        assert PaiaSettings().panet.background == "pool-of-pixels"
        # a table that names one setting leaves the others as they were
        given = settings_from_json(PaiaSettings, {"panet": {"scale": 10.0}}, "s")
        assert given.panet == dataclasses.replace(POOL, scale=10.0)

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            ({"steps": -1}, "steps"),
            ({"query_steps": 101}, "query_steps"),
            ({"radius": -0.1}, "radius"),
            ({"threshold": {"hidden_weight": [[1.0]]}}, "s.threshold.hidden_bias"),
        ],
    )
    def test_refused_by_name(self, values: dict[str, object], name: str) -> None:
        with pytest.raises(InputError, match=f"^{name}: expected"):
            settings_from_json(PaiaSettings, values, "s")

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"hidden_weight": ()}, "hidden_weight, rows"),
            ({"hidden_weight": ((1.0, 2.0),) * 2}, "hidden_weight, row"),
            ({"hidden_bias": (0.0,)}, "hidden_bias"),
            ({"output_weight": (0.0,) * 3}, "output_weight"),
            ({"output_bias": float("nan")}, "output_bias"),
        ],
    )
    def test_networks_that_are_none(self, changes: dict[str, object], name: str) -> None:
        good = {
            "hidden_weight": ((0.0,) * 5,) * 2,
            "hidden_bias": (0.0, 0.0),
            "output_weight": (0.0, 0.0),
            "output_bias": 1.0,
        }
        PaiaThreshold(**good)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"^threshold.{name}: expected"):
            PaiaThreshold(**{**good, **changes})  # type: ignore[arg-type]


def test_states_that_are_none_of_its_own() -> None:
    own = case()
    shots, _ = draw_shots([0])
    state = own.with_auxiliary(shots, draw_auxiliary([0])[0])
    PAIA.check(state, CHANNELS, GRID)
    assert state.auxiliary is not None
    for word, arrays in (
        ("features", {"features": state.auxiliary.arrays["features"][:, :3]}),
        ("features", {"features": state.auxiliary.arrays["features"][..., :2]}),
        ("coverage", {"coverage": state.auxiliary.arrays["coverage"] - 2}),
        ("coverage", {"coverage": state.auxiliary.arrays["coverage"][:, 0]}),
        ("more", {"more": state.auxiliary.arrays["coverage"]}),
    ):
        wrong = State(state.auxiliary.way, {**state.auxiliary.arrays, **arrays})
        with pytest.raises(InputError, match=word):
            PAIA.check(dataclasses.replace(state, auxiliary=wrong), CHANNELS, GRID)


def test_coverage() -> None:
    expected = [[1, 1, 0.25, 0], [0.5, 0.5, 0.125, 0], [0, 0, 0, 0]]
    assert np.array_equal(coverage((1.5, 2.25), (3, 4)), np.array(expected, np.float32))
    assert (coverage((3.0, 4.0), (3, 4)) == 1).all()


def naive_coverage(rows: float, columns: float) -> np.ndarray:
    """Share of each cell's area, by counting a fine raster."""
    fine = np.zeros((GRID[0] * 20, GRID[1] * 20))
    fine[: round(rows * 20), : round(columns * 20)] = 1
    return fine.reshape(GRID[0], 20, GRID[1], 20).mean(axis=(1, 3)).astype(np.float32)


def naive_scores(query: np.ndarray, prototypes: np.ndarray, parts: int, own: Case) -> np.ndarray:
    """[N + 1, h, w]."""
    cells = naive_paia.unit(query[0].astype(np.float64).reshape(CHANNELS, -1).T)
    cosines = naive_paia.unit(prototypes) @ cells.T
    scene_of = cosines[:parts].max(0, keepdims=True)
    scores = own.settings.panet.scale * np.concatenate([scene_of, cosines[parts:]])
    return scores.reshape(-1, *GRID)
