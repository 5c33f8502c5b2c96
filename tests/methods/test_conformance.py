"""What every method must do. Parametrised over the registry: a new method is tested unasked."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest

from fsseg_sdk import InputError, methods
from fsseg_sdk.methods import Shots, State, combine
from fsseg_sdk.methods.base import PROPERTIES
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json

from .harness import (
    CHANNELS,
    GRID,
    Auxiliary,
    Case,
    cases,
    draw_auxiliary,
    draw_query,
    draw_shots,
    flip,
    judged,
    matched,
    scene,
    take,
)

WAYS = [0, 1, 0, 2, 1, 0]  # unequal numbers of shots
AUXILIARY = [1, 0, 2, 1]
TOLERANCE = 2e-4  # logits at scale 20; sums in another order


def close(got: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    return got.shape == expected.shape and bool(np.abs(got - expected).max() <= tolerance)


def one_way(shots: Shots) -> Shots:
    return dataclasses.replace(shots, way=np.zeros_like(shots.way))


@pytest.mark.parametrize("case", cases())
class TestEveryMethod:
    def test_declarations(self, case: Case) -> None:
        method = case.method
        assert methods.get(method.name) is method
        assert method.properties <= set(PROPERTIES)
        assert "encoder" not in method.graphs
        for name in ("summarise_auxiliary", "kept"):
            assert hasattr(method, name) == ("auxiliary" in method.properties)
        assert dataclasses.is_dataclass(method.settings_type)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(case.settings, dataclasses.fields(case.settings)[0].name, 0)

    def test_settings_travel_as_json(self, case: Case) -> None:
        text = json.dumps(settings_to_json(case.settings), allow_nan=False)
        again = settings_from_json(case.method.settings_type, json.loads(text), "settings")
        assert again == case.settings
        with pytest.raises(InputError, match=r"settings\.no_such_setting"):
            settings_from_json(case.method.settings_type, {"no_such_setting": 1}, "settings")

    def test_shapes_and_types(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        fitted = case.fit(shots)
        match = fitted.match(np.concatenate([query, query]))
        assert match.logits.dtype == np.float32
        planes = fitted.planes
        assert match.logits.shape == (2, 4 if planes is None else len(planes), *GRID)
        assert judged(match).shape == (4, *GRID)
        assert fitted.n_ways == 3
        if planes is not None:
            assert planes.dtype == np.uint8 and (np.diff(planes.astype(int)) >= 0).all()
            assert sorted(set(planes.tolist())) == [0, 1, 2, 3] and planes[1] == 1
        if fitted.activation == "sigmoid":
            assert not match.logits[:, 0].any()
        presence = fitted.presence(judged(match))
        assert presence.scores.shape == (3,)
        assert ((presence.scores >= 0) & (presence.scores <= 1)).all()
        assert np.isfinite(fitted.describe(judged(match))).all()
        assert fitted.describe(judged(match)).shape[0] == 3

    def test_finds_the_classes(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, labels = draw_query(3)
        assert (case.logits(shots, query)[0].argmax(0) == labels).mean() >= 0.95

    def test_presence_ranks_pictures(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        fitted = case.fit(shots)
        for absent in range(3):
            query, labels = draw_query(3)
            without = scene(np.where(labels == absent + 1, 0, labels), np.random.default_rng(3))
            with_all = fitted.presence(judged(fitted.match(query))).scores
            with_less = fitted.presence(judged(fitted.match(without))).scores
            assert with_less[absent] < with_all[absent]
            others = [way for way in range(3) if way != absent]
            assert with_less[absent] < with_less[others].min()

    def test_order_of_shots_is_free(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        shuffled = take(shots, [4, 2, 5, 0, 3, 1])
        assert close(case.logits(shuffled, query), case.logits(shots, query))

    def test_order_of_ways_is_free(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        new = np.array([2, 0, 1])
        renamed = dataclasses.replace(shots, way=new[shots.way])
        before, after = case.fit(shots), case.fit(renamed)
        first, second = matched(before, query), matched(after, query)
        assert close(second[0, 1 + new], first[0, 1:])
        assert close(second[0, :1], first[0, :1])
        scores = before.presence(judged(before.match(query))).scores
        assert close(after.presence(judged(after.match(query))).scores[new], scores, 1e-4)

    def test_rows_depend_on_their_own_picture(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        together = case.summarise(shots)
        apart = combine(
            [
                case.summarise(
                    dataclasses.replace(
                        take(shots, [row]),
                        features=shots.features[row : row + 1],
                        picture=np.zeros(1, int),
                    )
                )
                for row in range(len(WAYS))
            ]
        )
        assert_same_state(apart, together)

    def test_state_survives_storage(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        state = case.summarise(shots)
        stored = {}
        for name, array in state.arrays.items():
            assert array.dtype in (np.float32, np.int64), name
            file = io.BytesIO()
            np.save(file, array, allow_pickle=False)
            file.seek(0)
            stored[name] = np.load(file, allow_pickle=False)
        again = State(state.way.copy(), stored)
        assert np.array_equal(case.logits(again, query), case.logits(state, query))
        assert_same_state(state.select(np.arange(len(state))), state)

    def test_a_batch_equals_one_by_one(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        queries = np.concatenate([draw_query(3, seed)[0] for seed in (1, 2, 3)])
        fitted = case.fit(shots)
        batch = fitted.match(queries).logits
        for index in range(3):
            assert np.array_equal(fitted.match(queries[index : index + 1]).logits[0], batch[index])

    def test_features_of_zero(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        fitted = case.fit(shots)
        nothing = fitted.match(np.zeros_like(query))
        assert np.isfinite(nothing.logits).all()
        assert np.isfinite(fitted.presence(judged(nothing)).scores).all()
        blank = dataclasses.replace(shots, features=np.zeros_like(shots.features))
        assert np.isfinite(case.logits(blank, query)).all()
        one_dead_cell = query.copy()
        one_dead_cell[..., 2, 3] = 0
        assert np.isfinite(fitted.match(one_dead_cell).logits).all()

    def test_a_mask_of_one_pixel(self, case: Case) -> None:
        shots, labels = draw_shots([0])
        weight = np.zeros_like(shots.foreground)
        row, column = np.argwhere(labels[0] > 0)[0]
        weight[0, row, column] = 4e-5  # one pixel of a picture of 60 million, in cells
        tiny = dataclasses.replace(shots, foreground=weight, possible=weight)
        query, expected = draw_query(1)
        logits = case.logits(tiny, query)
        assert np.isfinite(logits).all()
        assert (logits[0].argmax(0) == expected).mean() >= 0.95

    def test_no_background_anywhere(self, case: Case) -> None:
        shots, _ = draw_shots([0, 0])
        full = dataclasses.replace(
            shots,
            features=np.concatenate(
                [scene(np.ones(GRID, int), np.random.default_rng(s)) for s in (1, 2)]
            ),
            foreground=np.ones_like(shots.foreground),
            background=np.zeros_like(shots.background),
            possible=np.ones_like(shots.possible),
        )
        query, labels = draw_query(1)
        fitted = case.fit(full)
        match = fitted.match(query)
        logits = match.logits
        assert np.isfinite(logits).all()
        assert np.isfinite(fitted.presence(judged(match)).scores).all()
        assert (logits[0].argmax(0)[labels == 1] == 1).all()

    def test_as_many_ways_as_labels_hold(self, case: Case) -> None:
        ways = list(range(254))
        shots, _ = draw_shots(ways, noise=0.01)
        query = shots.features[[7, 200]]
        fitted = case.quick().fit(shots)
        match = fitted.match(query)
        assert match.logits.shape == (2, 255, *GRID)
        assert np.isfinite(fitted.presence(judged(match)).scores).all()

    def test_inputs_are_left_alone(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        parts = (getattr(shots, field.name) for field in dataclasses.fields(shots))
        arrays = [query, *(array for array in parts if array is not None)]
        before = [array.copy() for array in arrays]
        for array in arrays:
            array.flags.writeable = False
        state = case.summarise(shots)
        rows = {name: array.copy() for name, array in state.arrays.items()}
        fitted = case.fit(state)
        evidence = judged(fitted.match(query))
        evidence.flags.writeable = False
        fitted.presence(evidence)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
        assert all(np.array_equal(state.arrays[name], rows[name]) for name in rows)


@pytest.mark.parametrize("case", cases("deterministic"))
def test_deterministic(case: Case) -> None:
    shots, _ = draw_shots(WAYS)
    query, _ = draw_query(3)
    first = case.summarise(shots, threads=1)
    for threads in (1, 2, 3, None):
        again = case.summarise(shots, threads=threads)
        assert_same_state(again, first)
        assert np.array_equal(matched(case.fit(again), query, threads), case.logits(first, query))


@pytest.mark.parametrize("case", cases("mean_prototype"))
def test_every_shot_twice_changes_nothing(case: Case) -> None:
    shots, _ = draw_shots(WAYS)
    query, _ = draw_query(3)
    expected = case.logits(shots, query)
    twice = list(range(len(WAYS))) * 2
    assert close(case.logits(take(shots, twice), query), expected)
    again = case.summarise(shots)
    assert close(case.logits(combine([again, again]), query), expected)


@pytest.mark.parametrize("case", cases("mean_prototype"))
def test_the_only_shot_of_a_way_twice_changes_nothing(case: Case) -> None:
    shots, _ = draw_shots([0, 1, 0])
    query, _ = draw_query(2)
    expected = case.logits(shots, query)
    assert close(case.logits(take(shots, [0, 1, 2, 1]), query), expected)
    assert not close(case.logits(take(shots, [0, 1, 2, 0]), query), expected)  # the test can fail


@pytest.mark.parametrize("case", cases("pointwise"))
def test_mirrored_pictures_give_the_mirrored_answer(case: Case) -> None:
    shots, _ = draw_shots(WAYS)
    query, _ = draw_query(3)
    mirrored = case.logits(flip(shots), np.ascontiguousarray(query[..., ::-1]))
    assert close(mirrored[..., ::-1], case.logits(shots, query))


@pytest.mark.parametrize("case", cases("pointwise"))
def test_cells_in_any_order(case: Case) -> None:
    shots, _ = draw_shots(WAYS)
    query, _ = draw_query(3)
    order = np.random.default_rng(2).permutation(GRID[0] * GRID[1])
    mixed = np.ascontiguousarray(query.reshape(1, CHANNELS, -1)[..., order]).reshape(query.shape)
    got = case.logits(shots, mixed).reshape(4, -1)
    assert close(got, case.logits(shots, query).reshape(4, -1)[:, order])


@pytest.mark.parametrize("case", cases("self_segmenting"))
def test_a_support_segments_itself(case: Case) -> None:
    shots, labels = draw_shots([0])
    found = case.logits(shots, shots.features)[0].argmax(0)
    assert np.array_equal(found, labels[0])


@pytest.mark.parametrize("case", cases("auxiliary"))
class TestAuxiliary:
    """Of pictures of which only the class is known."""

    def test_they_have_a_say(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, labels = draw_query(3)
        with_them = case.logits(case.with_auxiliary(shots, draw_auxiliary(AUXILIARY)[0]), query)
        assert (with_them[0].argmax(0) == labels).mean() >= 0.95
        assert np.abs(with_them - case.logits(shots, query)).max() > 0.02

    def test_rows_depend_on_their_own_picture(self, case: Case) -> None:
        pictures, _ = draw_auxiliary(AUXILIARY)
        rows = range(len(AUXILIARY))
        apart = [case.summarise_auxiliary(pictures, slice(row, row + 1)) for row in rows]
        assert_same_state(combine(apart), case.summarise_auxiliary(pictures))

    def test_order_of_pictures_and_ways_is_free(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        pictures, _ = draw_auxiliary(AUXILIARY)
        query, _ = draw_query(3)
        expected = case.logits(case.with_auxiliary(shots, pictures), query)
        order, new = [2, 0, 3, 1], np.array([2, 0, 1])
        shuffled = Auxiliary(pictures.features[order], pictures.ways[order])
        assert close(case.logits(case.with_auxiliary(shots, shuffled), query), expected)
        renamed = dataclasses.replace(shots, way=new[shots.way])
        moved = Auxiliary(pictures.features, new[pictures.ways])
        got = case.logits(case.with_auxiliary(renamed, moved), query)
        assert close(got[0, 1 + new], expected[0, 1:])

    def test_they_survive_storage_and_joining(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        pictures, _ = draw_auxiliary(AUXILIARY)
        state = case.with_auxiliary(shots, pictures)
        assert state.auxiliary is not None
        assert {array.dtype.name for array in state.auxiliary.arrays.values()} <= {
            "float32",
            "int64",
        }
        case.method.check(state, CHANNELS, GRID)
        halves = [case.summarise_auxiliary(pictures, rows) for rows in (slice(2), slice(2, 4))]
        first, rest = np.arange(2), np.arange(2, len(WAYS))
        joined = combine(
            [
                case.summarise(shots).select(first).with_auxiliary(halves[0]),
                case.summarise(shots).select(rest).with_auxiliary(halves[1]),
            ]
        )
        grown = case.summarise(shots).with_auxiliary(halves[0]).with_auxiliary(halves[1])
        for other in (joined, grown):
            assert_same_state(other, state)
            assert other.auxiliary is not None
            assert_same_state(other.auxiliary, state.auxiliary)
        kept = state.select(np.arange(len(WAYS))[::-1]).auxiliary
        assert kept is state.auxiliary

    def test_what_lies_beside_a_picture_has_no_say(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        pictures, _ = draw_auxiliary(AUXILIARY)
        query, _ = draw_query(3)
        extents = [(9.0, 11.0), (6.5, 11.0), (9.0, 7.25), (9.0, 3.0)]
        clean = dataclasses.replace(pictures, extents=extents)
        spoilt = pictures.features.copy()
        for index, (rows, columns) in enumerate(extents):
            garbage = scene(np.full(GRID, 1 + AUXILIARY[index]), np.random.default_rng(0))[0]
            beside = np.ones(GRID, bool)
            beside[: int(np.ceil(rows)), : int(np.ceil(columns))] = False
            spoilt[index, :, beside] = garbage[:, beside].T
        dirty = dataclasses.replace(clean, features=spoilt)
        expected = case.logits(case.with_auxiliary(shots, clean), query)
        assert np.array_equal(case.logits(case.with_auxiliary(shots, dirty), query), expected)
        everywhere = Auxiliary(spoilt, pictures.ways)  # the test can fail
        assert not close(case.logits(case.with_auxiliary(shots, everywhere), query), expected)

    def test_deterministic_and_inputs_are_left_alone(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        pictures, _ = draw_auxiliary(AUXILIARY)
        before = pictures.features.copy()
        pictures.features.flags.writeable = pictures.ways.flags.writeable = False
        query, _ = draw_query(3)
        state = case.with_auxiliary(shots, pictures)
        settings, graphs = case.settings, case.graphs
        found = [
            case.method.fit(state, 3, settings, graphs, threads=n).match(query, threads=n)
            for n in (1, 2, 3)
        ]
        assert all(np.array_equal(found[0].logits, other.logits) for other in found)
        assert np.array_equal(pictures.features, before)

    def test_features_of_zero(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        query, _ = draw_query(3)
        pictures, _ = draw_auxiliary(AUXILIARY)
        nothing = dataclasses.replace(pictures, features=np.zeros_like(pictures.features))
        fitted = case.fit(case.with_auxiliary(shots, nothing))
        assert close(fitted.match(query).logits, case.logits(shots, query))
        assert len(fitted.warnings) == 3  # nothing was found for any class
        blank = dataclasses.replace(shots, features=np.zeros_like(shots.features))
        assert np.isfinite(case.logits(case.with_auxiliary(blank, pictures), query)).all()

    def test_what_was_kept(self, case: Case) -> None:
        shots, _ = draw_shots(WAYS)
        pictures, labels = draw_auxiliary(AUXILIARY)
        state = case.with_auxiliary(shots, pictures)
        kept = case.method.kept(state, 3, case.settings)
        assert kept.shape[1:] == (len(AUXILIARY), *GRID)
        assert ((kept >= 0) & (kept <= 1)).all()
        assert kept[-1][labels > 0].mean() > 0.5 > 0.01 > kept[-1][labels == 0].mean()
        assert case.method.kept(case.summarise(shots), 3, case.settings).shape[1] == 0


def assert_same_state(got: State, expected: State) -> None:
    assert np.array_equal(got.way, expected.way)
    assert list(got.arrays) == list(expected.arrays)
    for name in expected.arrays:
        assert got.arrays[name].dtype == expected.arrays[name].dtype, name
        assert np.array_equal(got.arrays[name], expected.arrays[name]), name


def test_names_and_unknown_names() -> None:
    assert methods.names() == tuple(sorted(methods.names()))
    with pytest.raises(InputError, match="panet"):
        methods.get("pannet")


def test_states_of_different_methods_do_not_mix() -> None:
    way = np.zeros(1, np.int64)
    with pytest.raises(InputError, match="one method"):
        combine([State(way, {"a": np.zeros((1, 2))}), State(way, {"b": np.zeros((1, 2))})])
    with pytest.raises(InputError, match="one a shot"):
        State(way, {"a": np.zeros((2, 2))})
