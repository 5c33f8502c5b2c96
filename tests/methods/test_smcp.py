"""SMCP: the two passes against the paper's formulas, what is computed once, and what happens where
nothing is found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fsseg_sdk import BackendError, InputError, methods
from fsseg_sdk.methods import Shots
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.smcp import SmcpFitted
from fsseg_sdk.methods.smcp_settings import SmcpSettings
from training.smcp.head import Head, HeadSettings
from training.smcp.split import torch_graphs

from . import torch_smcp
from .harness import CHANNELS, GRID, draw_query, draw_shots, scene, take
from .standins import NumpyHeadGraph, smcp_graphs

SMCP, PANET = methods.get("smcp"), methods.get("panet")
SHOTS = [0, 1, 0, 2, 1, 0]


def fitted(shots: Shots, graphs: Any = None, **changes: Any) -> SmcpFitted:
    settings, graphs = SmcpSettings(**changes), smcp_graphs() if graphs is None else graphs
    state = SMCP.summarise(shots, settings, graphs)
    SMCP.check(state, CHANNELS, GRID)
    found = SMCP.fit(state, int(shots.way.max()) + 1, settings, graphs)
    assert isinstance(found, SmcpFitted)
    return found


def random_head(form: HeadSettings) -> Head:
    torch.manual_seed(4)
    head = Head(CHANNELS, form).eval()
    with torch.no_grad():
        head.classifier.parts[0].bias[0] += 0.02  # so that pseudo-masks are neither full nor empty
    return head


class TestAgainstThePaper:
    @pytest.mark.parametrize(
        ("form", "changes"),
        [
            (HeadSettings("paper", width=32), {}),
            (HeadSettings("official", width=24), {"fusion": "shots"}),
            (HeadSettings(pyramid=False, width=16), {"guide": "pseudo", "pixels_per_cell": 5}),
            (HeadSettings("paper", width=16), {"guide": "support"}),
            (HeadSettings("paper", width=16), {"passes": 1}),
        ],
    )
    def test_scores(self, form: HeadSettings, changes: dict[str, Any]) -> None:
        shots, _ = draw_shots(SHOTS, noise=0.5)
        query, _ = draw_query(3, noise=0.5)
        head = random_head(form)
        own = fitted(shots, torch_graphs(head, GRID), **changes)
        head = Head(CHANNELS, form).double().eval()
        head.load_state_dict(random_head(form).state_dict())
        for extent in (GRID, (7, 9)):
            logits = own.match(query, [extent]).logits[0]
            expected = torch_smcp.scores(head, shots, query, own.settings, extent)
            assert not logits[0].any()
            scale = np.abs(expected).max()
            assert np.abs(logits[1:] - expected).max() <= 1e-5 * scale

    def test_the_second_pass_is_another(self) -> None:
        """Else the tests above would compare one pass with one."""
        shots, _ = draw_shots(SHOTS, noise=0.5)
        query, _ = draw_query(3, noise=0.5)
        graphs = torch_graphs(random_head(HeadSettings("paper", width=32)), GRID)
        answers = [
            fitted(shots, graphs, **changes).match(query, [extent]).logits
            for changes in ({}, {"fusion": "shots"}, {"guide": "pseudo"}, {"passes": 1})
            for extent in (GRID, (7, 9))
        ]
        scale = np.abs(answers[0]).max()
        pairs = [(0, 2), (0, 4), (0, 6), (2, 4), (0, 1)]
        for first, second in pairs:
            assert np.abs(answers[first] - answers[second]).max() > 1e-3 * scale
        assert np.array_equal(answers[6], answers[7])  # of one pass, nothing is pooled


class TestFusion:
    def test_one_shot_is_the_same_by_both_rules(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, _ = draw_query(2)
        half, count = (fitted(shots, fusion=rule).match(query) for rule in ("half", "shots"))
        assert np.array_equal(half.logits, count.logits)

    def test_every_shot_twice(self) -> None:
        shots, _ = draw_shots(SHOTS, noise=0.5)
        query, _ = draw_query(3, noise=0.5)
        twice = take(shots, list(range(len(SHOTS))) * 2)
        for rule, same in (("half", True), ("shots", False)):
            once, again = (fitted(s, fusion=rule).match(query).logits for s in (shots, twice))
            assert bool(np.abs(once - again).max() < 1e-5) == same

    def test_nothing_found_is_the_first_pass(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, _ = draw_query(2)
        without = scene(np.zeros(GRID, int), np.random.default_rng(3))
        for guide in ("fused", "pseudo"):
            graphs = smcp_graphs()
            got = fitted(shots, graphs, guide=guide).match(without)
            first = fitted(shots, passes=1).match(without)
            assert np.array_equal(got.logits, first.logits) and (got.logits[:, 1:] < 0).all()
            assert len(graphs["smcp_head"].calls) == 1
            assert np.isfinite(fitted(shots, guide=guide).match(query).logits).all()

    def test_only_what_was_found_is_asked_again(self) -> None:
        shots, _ = draw_shots([0, 1, 2])
        query, _ = draw_query(1)  # the others are not in it
        graphs = smcp_graphs()
        got = fitted(shots, graphs).match(query).logits
        first = fitted(shots, passes=1).match(query).logits
        assert [len(call["shares"]) for call in graphs["smcp_head"].calls] == [3, 1]
        assert np.array_equal(got[:, 2:], first[:, 2:])
        assert not np.array_equal(got[:, 1], first[:, 1])


class TestCost:
    def test_what_runs_how_often(self) -> None:
        shots, _ = draw_shots(SHOTS)
        queries = np.concatenate([draw_query(3, seed)[0] for seed in (1, 2)])
        graphs = smcp_graphs()
        own = fitted(shots, graphs)
        assert [len(graph.calls) for graph in graphs.values()] == [0, 1, 0]
        own.match(queries)
        assert [len(graph.calls) for graph in graphs.values()] == [2, 3, 4]
        own = dataclasses.replace(own, settings=SmcpSettings(passes=1))
        own.match(queries)
        assert [len(graph.calls) for graph in graphs.values()] == [4, 3, 6]

    def test_many_classes_are_asked_a_few_at_a_time(self) -> None:
        ways = list(range(19))
        shots, _ = draw_shots(ways, noise=0.01)
        graphs = smcp_graphs()
        match = fitted(shots, graphs, passes=1).match(shots.features[[7]])
        assert [len(call["shares"]) for call in graphs["smcp_head"].calls] == [8, 8, 3]
        zero = np.zeros(1, np.int64)
        last = dataclasses.replace(
            take(shots, [18]), features=shots.features[18:], picture=zero, way=zero
        )
        one = fitted(last, passes=1)
        assert np.allclose(match.logits[0, 19], one.match(shots.features[[7]]).logits[0, 1])


class TestAnswers:
    def test_presence_is_panets(self) -> None:
        shots, _ = draw_shots(SHOTS)
        query, _ = draw_query(3)
        settings = PanetSettings(background_parts=2)
        own = fitted(shots, panet=settings)
        state = PANET.summarise(shots, settings, {})
        plain = PANET.fit(state, 3, settings, {})
        evidence = own.match(query).evidence
        assert evidence is not None
        assert np.array_equal(evidence, plain.match(query).logits)
        assert np.array_equal(own.presence(evidence[0]).scores, plain.presence(evidence[0]).scores)

    def test_background_is_where_every_class_is_unlikely(self) -> None:
        shots, _ = draw_shots([0, 1])
        query, labels = draw_query(2)
        own = fitted(shots)
        assert own.activation == "sigmoid"
        logits = own.match(query).logits[0]
        assert ((logits[1:] > 0).any(axis=0) == (labels > 0)).mean() > 0.95
        assert not logits[0].any()

    @pytest.mark.parametrize("name", list(SMCP.graphs))
    def test_graphs_that_do_not_fit(self, name: str) -> None:
        shots, _ = draw_shots([0])
        query, _ = draw_query(1)
        for wrong in (lambda array: array[..., :-1], lambda array: array[0]):
            graphs = smcp_graphs()
            right = graphs[name].compute
            graphs[name].compute = lambda feeds, wrong=wrong, right=right: wrong(right(feeds))
            with pytest.raises(BackendError, match=f"graph '{name}', output .* expected float32"):
                fitted(shots, graphs).match(query)
        graphs = smcp_graphs()
        right = graphs[name].compute
        graphs[name].compute = lambda feeds: right(feeds) * np.nan
        with pytest.raises(BackendError, match=f"graph '{name}', output .* finite numbers"):
            fitted(shots, graphs).match(query)
        graphs = smcp_graphs()
        graphs[name] = NumpyHeadGraph("other", graphs[name].compute)
        with pytest.raises(BackendError, match="got none"):
            fitted(shots, graphs).match(query)


def test_settings() -> None:
    assert SMCP.settings_from("panet", {"scale": 5.0}) == {"panet": {"scale": 5.0}}
    carried = SMCP.settings_from("srofb", {"panet": {"scale": 5.0}, "hidden": 3})
    assert carried == {"panet": {"scale": 5.0}}
    for wrong in ({"passes": 0}, {"passes": 3}, {"pixels_per_cell": 0}, {"pixels_per_cell": 65}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SmcpSettings(**wrong)
