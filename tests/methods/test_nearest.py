"""The nearest labelled cell: which cells are rows, the answer against brute force, and siamese,
which does the same in an embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fsseg_sdk import BackendError, InputError, Segmenter, TaskError, methods
from fsseg_sdk.backends import TensorInfo
from fsseg_sdk.methods import Shots, State
from fsseg_sdk.methods.nearest import NearestFitted, NearestSettings
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.rows import Rows, labelled_rows, unit_cells
from fsseg_sdk.methods.siamese import SiameseFitted, SiameseSettings

from .. import opened, tiny
from .harness import CHANNELS, GRID, Case, draw_query, draw_shots, scene
from .standins import NumpyHeadGraph, siamese_graphs

NEAREST, SIAMESE, PANET = (methods.get(name) for name in ("nearest", "siamese", "panet"))
WAYS = [0, 1, 0, 2, 1, 0]


def state_of(
    foreground: list[list[float]],
    background: list[list[float]],
    way: list[int],
    same: bool = False,
) -> State:
    """Shots of a few cells; same: all of one picture. A cell's features say its number."""
    weights = np.stack([foreground, background], axis=1).astype(np.float32)
    shots, _, count = weights.shape
    cells = np.zeros((shots, 2, count), np.float32)
    cells[:, 0] = np.arange(count) + (0 if same else 10 * np.arange(shots)[:, None])
    cells[:, 1] = 1
    return State(np.array(way), {"cells": cells, "cell_weights": weights})


def numbers(rows: Rows, label: int) -> list[int]:
    return sorted(rows.features[rows.member[:, label], 0].astype(int).tolist())


class TestRows:
    def test_the_larger_weight_decides(self) -> None:
        rows = labelled_rows(state_of([[0.6, 0.4, 0.5, 0, 1]], [[0.4, 0.6, 0.5, 1, 0]], [0]), 1)
        assert numbers(rows, 1) == [0, 4] and numbers(rows, 0) == [1, 3]
        assert len(rows.features) == 4  # half and half is neither

    def test_what_is_of_neither_is_left_out(self) -> None:
        rows = labelled_rows(state_of([[1, 0, 0]], [[0, 0, 1]], [0]), 1)
        assert numbers(rows, 1) == [0] and numbers(rows, 0) == [2]

    def test_an_object_within_a_cell(self) -> None:
        rows = labelled_rows(state_of([[0.1, 0.3, 0]], [[0.9, 0.7, 1]], [0]), 1)
        assert numbers(rows, 1) == [1] and numbers(rows, 0) == [0, 2]

    def test_background_within_a_cell_and_none(self) -> None:
        rows = labelled_rows(state_of([[0.9, 0.7, 1]], [[0.1, 0.3, 0]], [0]), 1)
        assert numbers(rows, 1) == [0, 1, 2] and numbers(rows, 0) == [1]
        assert numbers(labelled_rows(state_of([[1, 1]], [[0, 0]], [0]), 1), 0) == []

    def test_a_picture_with_two_classes_is_there_once(self) -> None:
        """A cell that shows mostly the other class is no background, and overlaps are of both."""
        shown = [[1, 0.9, 0, 0, 0], [0, 0.9, 0.8, 0, 0]]
        scene = [[0, 0.1, 0.2, 1, 0]] * 2
        rows = labelled_rows(state_of(shown, scene, [0, 1], same=True), 2)
        assert (numbers(rows, 0), numbers(rows, 1), numbers(rows, 2)) == ([3], [0, 1], [1, 2])
        assert len(rows.features) == 4
        apart = labelled_rows(state_of(shown, scene, [0, 1]), 2)
        assert numbers(apart, 0) == [2, 3, 13]

    @pytest.mark.parametrize("ways", [[0, 1], [1, 0]])
    def test_classes_that_abut(self, ways: list[int]) -> None:
        """Without any background a cell is of the class that shows most of it, and of no other."""
        shown = [[1, 0.6, 0.05, 0, 0.2], [0, 0.4, 0.95, 1, 0.2000001]]
        rows = labelled_rows(state_of(shown, [[0, 0, 0, 0, 0]] * 2, ways, same=True), 2)
        assert numbers(rows, 1 + ways[0]) == [0, 1, 4]
        assert numbers(rows, 1 + ways[1]) == [2, 3, 4]  # as much of both, but for rounding

    @pytest.mark.parametrize("ways", [[0, 1], [1, 0]])
    def test_a_class_within_a_cell_of_another(self, ways: list[int]) -> None:
        shown = [[1, 1, 0.7, 0.9], [0, 0, 0.3, 0.1]]
        rows = labelled_rows(state_of(shown, [[0, 0, 0, 0]] * 2, ways, same=True), 2)
        assert numbers(rows, 1 + ways[0]) == [0, 1, 2, 3] and numbers(rows, 1 + ways[1]) == [2]

    def test_groups(self) -> None:
        rows = Rows(np.eye(3, dtype=np.float32), np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]], bool))
        features, group = rows.grouped()
        assert group.tolist() == [0, 1, 2, 2]
        assert features.argmax(axis=1).tolist() == [1, 0, 0, 2]

    def test_a_share_is_the_same_wherever_rows_stand(self) -> None:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(101, 5)).astype(np.float32)
        member = np.zeros((101, 2), bool)
        member[:40, 0] = member[40:, 1] = True
        rows, order = Rows(features, member), rng.permutation(101)
        kept, group = rows.grouped(0.3, 7)
        assert np.bincount(group).tolist() == [12, 19]
        again, _ = Rows(features[order], member[order]).grouped(0.3, 7)
        assert set(map(bytes, kept)) == set(map(bytes, again))
        other, _ = rows.grouped(0.3, 8)
        assert not np.array_equal(kept, other)
        assert np.bincount(rows.grouped(0.001, 7)[1]).tolist() == [1, 1]
        places = [np.flatnonzero((features == row).all(axis=1))[0] for row in kept[12:]]
        assert 50 < np.mean(places) < 90  # all over the class

    def test_at_most_so_many(self) -> None:
        rng = np.random.default_rng(0)
        member = np.zeros((1000, 3), bool)
        member[:900, 0] = member[900:, 1] = member[990:, 2] = True
        rows, order = Rows(rng.normal(size=(1000, 5)).astype(np.float32), member), np.arange(1000)
        assert rows.thinned(1000, 1) is rows
        few = rows.thinned(100, 1)
        assert few.member[:, :2].sum(axis=0).tolist() == [90, 10 + few.member[:, 2].sum() - 1]
        order = rng.permutation(1000)
        again = Rows(rows.features[order], member[order]).thinned(100, 1)
        assert set(map(bytes, few.features)) == set(map(bytes, again.features))
        assert (rows.thinned(1, 1).member.sum(axis=0) >= 1).all()

    @pytest.mark.parametrize("factor", [1.0, 1e20, 1e-24, 1e-38])
    def test_unit_cells(self, factor: float) -> None:
        cells = np.array([[[3, 0], [4, 0]]], np.float32) * np.float32(factor)
        found = unit_cells(cells)
        assert found.dtype == np.float32
        assert found[0].T.tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]


@pytest.mark.parametrize("name", ["nearest", "logreg"])
def test_abutting_classes_in_both_orders(name: str) -> None:
    """Two classes share a picture between them, their border inside a column of cells."""
    labels = np.repeat((np.arange(GRID[1]) > 5)[None], GRID[0], axis=0).astype(np.int64)
    features = scene(labels, np.random.default_rng(0))
    left = np.clip(5.8 - np.arange(GRID[1]), 0, 1)  # column 5 shows 0.8 of it, and is drawn so
    shown = np.broadcast_to(np.stack([left, 1 - left])[:, None], (2, *GRID)).astype(np.float32)
    method = methods.get(name)
    for ways in ([0, 1], [1, 0]):
        shots = Shots(
            features=features,
            picture=np.zeros(2, np.int64),
            foreground=shown,
            background=np.zeros_like(shown),
            possible=shown,
            way=np.array(ways),
            weak=np.zeros(2, np.bool_),
        )
        logits = Case(method, method.settings_type()).logits(shots, features)[0]
        assert np.array_equal(logits.argmax(axis=0), 1 + np.array(ways)[labels])


def brute_force(shots: Shots, query: NDArray[np.float32], ways: int) -> NDArray[np.float64]:
    """[N+1, h, w] best cosines in double; masks cover whole cells, one picture a shot."""
    features = shots.features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    asked = query[0].astype(np.float64)
    asked /= np.linalg.norm(asked, axis=0)
    best = np.full((ways + 1, *asked.shape[1:]), -1.0)
    for shot, picture in enumerate(shots.picture):
        for own, label in ((shots.foreground, shots.way[shot] + 1), (shots.background, 0)):
            rows = features[picture][:, own[shot] > 0.5]
            cosines = np.einsum("cm,chw->mhw", rows, asked)
            best[label] = np.maximum(best[label], cosines.max(axis=0))
    return best


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 2e-5), ("bf16", 0.15)])
def test_against_brute_force(precision: str, allowed: float) -> None:
    shots, _ = draw_shots(WAYS, noise=0.6)
    query, _ = draw_query(3, noise=0.6)
    case = Case(NEAREST, NearestSettings(precision=precision, scale=20.0))  # type: ignore[arg-type]
    logits = case.logits(shots, query)[0]
    assert np.abs(logits - 20 * brute_force(shots, query, 3)).max() <= allowed


def test_presence_is_panets() -> None:
    shots, _ = draw_shots(WAYS)
    query, _ = draw_query(3)
    settings = PanetSettings(background_parts=2)
    for method, own in ((NEAREST, NearestSettings(settings)), (SIAMESE, SiameseSettings(settings))):
        match = Case(method, own).fit(shots).match(query)
        assert match.evidence is not None
        assert np.array_equal(match.evidence, Case(PANET, settings).logits(shots, query))


def test_nothing_marked_as_background() -> None:
    shots, _ = draw_shots([0])
    bare = dataclasses.replace(shots, background=np.zeros_like(shots.background))
    logits = Case(NEAREST, NearestSettings()).logits(bare, draw_query(1)[0])
    assert (logits[:, 0] == -20).all() and (logits[:, 1] > -20).all()


def test_boxes_are_refined_if_asked_for() -> None:
    shots, labels = draw_shots([0])
    box = np.zeros_like(shots.foreground)
    rows, columns = (np.flatnonzero((labels[0] > 0).any(axis)) for axis in (1, 0))
    box[0, max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2] = 1
    weak = dataclasses.replace(
        shots, foreground=box, background=1 - box, possible=box, weak=np.ones(1, bool)
    )
    query, truth = draw_query(1)
    found = [
        Case(NEAREST, NearestSettings(PanetSettings(refine_weak=rule))).logits(weak, query)[0]
        for rule in (False, True)
    ]
    assert (found[1].argmax(0) == truth).mean() > max(0.95, (found[0].argmax(0) == truth).mean())


class TestSiamese:
    def fitted(self, shots: Shots, graphs: Any = None, **changes: Any) -> SiameseFitted:
        graphs = graphs or siamese_graphs()
        settings = SiameseSettings(**changes)
        state = SIAMESE.summarise(shots, settings, graphs)
        SIAMESE.check(state, CHANNELS, GRID)
        found = SIAMESE.fit(state, int(shots.way.max()) + 1, settings, graphs)
        assert isinstance(found, SiameseFitted)
        return found

    def test_it_is_nearest_in_the_embedding(self) -> None:
        """An embedding that only turns features changes no cosine; one that drops some does."""
        shots, _ = draw_shots(WAYS, noise=0.6)
        query, _ = draw_query(3, noise=0.6)
        plain = Case(NEAREST, NearestSettings()).logits(shots, query)
        assert np.abs(self.fitted(shots).match(query).logits - plain).max() < 1e-4
        graphs = siamese_graphs()
        graphs["siamese_embedding"].compute = lambda feeds: feeds["features"][:, 3:11]
        cut, asked = dataclasses.replace(shots, features=shots.features[:, 3:11]), query[:, 3:11]
        own = self.fitted(shots, graphs)
        expected = Case(NEAREST, NearestSettings()).logits(cut, asked)
        assert np.abs(own.match(query).logits - expected).max() < 1e-4
        assert own.known.channels == 8

    def test_once_a_picture_and_once_a_query(self) -> None:
        shots, _ = draw_shots([0, 1])
        graphs = siamese_graphs()
        own = self.fitted(shots, graphs)
        assert len(graphs["siamese_embedding"].calls) == 1
        own.match(np.concatenate([draw_query(2)[0]] * 3))
        assert [len(call["features"]) for call in graphs["siamese_embedding"].calls] == [2, 3]

    def test_from_five_shots_on_a_share_is_kept(self) -> None:
        shots, _ = draw_shots([0] * 5)
        all_of_it = 5 * GRID[0] * GRID[1]
        four = self.fitted(draw_shots([0] * 4)[0]).known
        five = self.fitted(shots).known
        assert four.count == all_of_it * 4 // 5
        assert all_of_it * 0.3 <= five.count <= all_of_it * 0.3 + 2
        assert self.fitted(shots, share_of_five=1.0).known.count == all_of_it
        plain = Case(NEAREST, NearestSettings()).fit(shots)
        assert isinstance(plain, NearestFitted) and plain.known.count == all_of_it
        uneven = self.fitted(draw_shots([0] * 9 + [1])[0]).known  # five on average, not of each
        assert uneven.count == 2 * all_of_it

    def test_a_state_of_another_embedding(self) -> None:
        shots, _ = draw_shots([0])
        graphs = siamese_graphs()
        state = SIAMESE.summarise(shots, SiameseSettings(), graphs)
        own: Any = graphs["siamese_embedding"]
        for width in (-1, CHANNELS, 7):
            own.outputs = (TensorInfo("embedding", "float32", (-1, width, *GRID)),)
            if width != 7:
                SIAMESE.fit(state, 1, SiameseSettings(), graphs)
        with pytest.raises(InputError, match=r"expected 7 numbers a cell.* got 24"):
            SIAMESE.fit(state, 1, SiameseSettings(), graphs)

    def test_a_graph_that_does_not_fit(self) -> None:
        shots, _ = draw_shots([0])
        graphs = siamese_graphs()
        own = self.fitted(shots, graphs)
        right = graphs["siamese_embedding"].compute
        graphs["siamese_embedding"].compute = lambda feeds: right(feeds)[:, 1:]
        with pytest.raises(BackendError, match=r"siamese_embedding.*float32 \[1, 24, 9, 11\]"):
            own.match(draw_query(1)[0])
        graphs["siamese_embedding"].compute = lambda feeds: right(feeds)[..., 1:]
        with pytest.raises(BackendError, match="siamese_embedding"):
            self.fitted(shots, graphs)


def test_a_state_of_another_encoder() -> None:
    shots, _ = draw_shots([0])
    state = NEAREST.summarise(shots, NearestSettings(), {})
    NEAREST.check(state, CHANNELS, GRID)
    for name in ("cells", "cell_weights", "foreground"):
        lacking = {n: array for n, array in state.arrays.items() if n != name}
        with pytest.raises(InputError, match=name):
            NEAREST.check(State(state.way, lacking), CHANNELS, GRID)
    with pytest.raises(InputError, match="cells"):
        NEAREST.check(state, CHANNELS + 1, GRID)


HOSTILE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("cell_weights", lambda a: a * 0, "some foreground"),
    ("cell_weights", lambda a: a * np.float32([[0], [1]]), "some foreground"),
    ("cell_weights", lambda a: a * np.nan, "numbers from 0 to 99"),
    ("cell_weights", lambda a: -a, "numbers from 0 to 99"),
    ("cell_weights", lambda a: a * np.float32(3e38), "numbers from 0 to 99"),
    ("cells", lambda a: a[:, :, :0], "cells"),
    ("cells", lambda a: np.concatenate([a] * 9, axis=2), "cells"),
    ("cells", lambda a: a[:, :0], "cells"),
    ("cells", lambda a: a * np.float32(1e20), "length 1"),
    ("cells", lambda a: a * np.nan, "length 1"),
]


@pytest.mark.parametrize(
    ("name", "array", "change", "message"),
    [
        (name, *how)
        for name in ("nearest", "logreg", "siamese", "srofb")
        for how in HOSTILE
        if name != "srofb" or how[2] != "length 1"  # its cells are as the encoder gives them
    ],
)
def test_a_state_that_nothing_makes(
    name: str, array: str, change: Callable[[Any], Any], message: str
) -> None:
    case = Case(methods.get(name), methods.get(name).settings_type())
    state = case.summarise(draw_shots([0, 0])[0])
    case.method.check(state, CHANNELS, GRID)
    arrays = {**state.arrays, array: change(state.arrays[array])}
    if arrays["cells"].shape[2] != state.arrays["cells"].shape[2]:
        weights, count = arrays["cell_weights"], arrays["cells"].shape[2]
        arrays["cell_weights"] = np.resize(weights, (*weights.shape[:2], count))
    with pytest.raises(InputError, match=message):
        case.method.check(State(state.way, arrays), CHANNELS, GRID)


def test_a_hostile_task_file(tmp_path: Path) -> None:
    """Also what only shows once the method is fitted to it."""
    description = opened.settings()
    description["method"] = {"name": "siamese", "settings": {}}
    embedding: Any = NumpyHeadGraph("embedding", lambda feeds: feeds["features"][:, :5])
    embedding.backend, embedding.device, embedding.precision = "numpy", "cpu", "fp32"
    embedding.inputs, embedding.outputs, embedding.warnings = (), (), ()
    graphs = {"encoder": opened.NumpyGraph(), "siamese_embedding": embedding}
    own = Segmenter(graphs, description, threads=1)
    path = tmp_path / "x.task"
    task = own.prepare({"a": [tiny.tiny_scene()]})
    task.save(path)
    assert own.load_task(path).classes == ("a",)
    embedding.outputs = (TensorInfo("embedding", "float32", (-1, 6, *tiny.GRID)),)
    with pytest.raises(TaskError, match=r"task 'x\.task', state array 'cells': expected 6 numbers"):
        own.load_task(path)
    arrays = {**task.state.arrays, "cell_weights": task.state.arrays["cell_weights"] * 0}
    replace(task, state=State(task.state.way, arrays)).save(path)
    with pytest.raises(TaskError, match="some foreground in every shot"):
        own.load_task(path)


def test_settings() -> None:
    for method in (NEAREST, SIAMESE, methods.get("logreg")):
        assert method.settings_from("panet", {"scale": 5.0}) == {"panet": {"scale": 5.0}}
        carried = method.settings_from("nearest", {"panet": {"scale": 5.0}, "share": 0.5})
        assert carried == {"panet": {"scale": 5.0}}
    for wrong in ({"share": 0.0}, {"share": 1.1}, {"scale": 0.0}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            NearestSettings(**wrong)
    with pytest.raises(InputError, match="share_of_five"):
        SiameseSettings(share_of_five=0.0)
