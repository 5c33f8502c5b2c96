"""The presence score: descriptors against naive loops, the model against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fsseg_sdk import InputError, methods
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.presence import (
    DESCRIPTORS,
    NEUTRAL,
    PresenceModel,
    SupportFacts,
    presence_descriptors,
    presence_of,
)
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json

from .harness import Case, draw_query, draw_shots

JSON = {
    "names": ["top_margin_to_self", "won_fraction"],
    "mean": [0.5, -1.0],
    "scale": [0.25, 2.0],
    "weights": [1.5, -0.5],
    "bias": 0.1,
    "threshold": 0.4,
}
MODEL = settings_from_json(PresenceModel, JSON, "presence")


def facts(ways: int, seed: int = 0) -> SupportFacts:
    rng = np.random.default_rng(seed)
    values = [rng.uniform(0.2, 0.9, ways).astype(np.float32) for _ in range(6)]
    return SupportFacts(*values, shots=np.arange(1, ways + 1).astype(np.float32))


def naive(cosines: np.ndarray, of: SupportFacts, way: int) -> dict[str, float]:
    """One class, in plain Python."""
    flat = cosines.astype(float).reshape(len(cosines), -1)
    mine = flat[way + 1].tolist()
    margins = [
        flat[way + 1, c] - max(flat[p, c] for p in range(len(flat)) if p != way + 1)
        for c in range(flat.shape[1])
    ]
    top = min(max(len(mine) // 100, 1), 36)
    won = [c for c, margin in enumerate(margins) if margin > 0]
    lost = [c for c, margin in enumerate(margins) if not margin > 0]
    top_cosine = float(np.mean(sorted(mine)[-top:]))
    top_margin = float(np.mean(sorted(margins)[-top:]))
    won_cosine = float(np.mean([mine[c] for c in won])) if won else top_cosine
    scene = float(np.mean([flat[0, c] for c in lost])) if lost else float(of.background_cosine[way])
    return {
        "top_cosine": top_cosine,
        "top_margin": top_margin,
        "top_cosine_to_self": top_cosine - of.self_cosine[way],
        "top_margin_to_self": min(max(top_margin / of.self_margin[way], -3), 3),
        "won_fraction": math.log10((len(won) + 0.5) / len(mine)),
        "won_margin": float(np.mean([margins[c] for c in won])) if won else 0.0,
        "won_cosine_to_self": won_cosine - of.self_cosine[way],
        "contrast": (top_cosine - np.mean(mine)) / max(np.std(mine), 1e-9),
        "scene_to_self": scene - of.background_cosine[way],
        "mean_cosine_to_self": np.mean(mine) - of.mean_cosine[way],
        "explained_to_self": float(np.mean(np.max(flat, axis=0))) - of.explained[way],
        "prototype_cosine": of.prototype_cosine[way],
        "self_cosine": of.self_cosine[way],
        "self_margin": of.self_margin[way],
        "log_shots": math.log2(of.shots[way]),
    }


@pytest.mark.parametrize(
    ("ways", "grid"), [(1, (28, 28)), (3, (13, 9)), (2, (60, 70)), (1, (1, 1))]
)
def test_descriptors_are_what_they_say(ways: int, grid: tuple[int, int]) -> None:
    cosines = np.random.default_rng(1).uniform(-1, 1, (ways + 1, *grid)).astype(np.float32)
    cosines[-1] -= 0.6  # a class that wins little
    if ways > 2:
        cosines[1] -= 3  # one that wins nowhere
    of = facts(ways)
    got = presence_descriptors(cosines, of)
    assert got.shape == (ways, len(DESCRIPTORS))
    for way in range(ways):
        expected = naive(cosines, of, way)
        assert list(expected) == list(DESCRIPTORS)
        for column, (name, value) in enumerate(expected.items()):
            if name == "contrast" and grid == (1, 1):
                continue  # one cell has no spread
            assert got[way, column] == pytest.approx(value, abs=2e-4), name


def test_columns_come_alone_and_in_the_order_asked_for() -> None:
    cosines = np.random.default_rng(2).uniform(-1, 1, (3, 8, 9)).astype(np.float32)
    all_of_them = presence_descriptors(cosines, facts(2))
    names = list(DESCRIPTORS)
    for wanted in ([name] for name in names):
        column = presence_descriptors(cosines, facts(2), wanted)[:, 0]
        np.testing.assert_array_equal(column, all_of_them[:, names.index(wanted[0])])
    backwards = presence_descriptors(cosines, facts(2), names[::-1])
    np.testing.assert_array_equal(backwards, all_of_them[:, ::-1])


def test_a_class_that_wins_nowhere_or_everywhere() -> None:
    cosines = np.full((2, 6, 6), 0.5, np.float32)
    for value in (0.1, 0.9):
        cosines[1] = value
        assert np.isfinite(presence_descriptors(cosines, facts(1))).all()


def test_the_model_is_its_formula() -> None:
    rows = np.random.default_rng(0).normal(size=(4, len(DESCRIPTORS))).astype(np.float32)
    names = list(DESCRIPTORS)
    for row, score in zip(rows, MODEL.score(rows), strict=True):
        margin = row[names.index("top_margin_to_self")]
        fraction = row[names.index("won_fraction")]
        z = 0.1 + 1.5 * (margin - 0.5) / 0.25 - 0.5 * (fraction + 1.0) / 2.0
        assert score == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-5)
    assert MODEL.score(np.full((1, len(DESCRIPTORS)), 1e30, np.float32))[0] in (0.0, 1.0)


def test_calibrated_or_not_is_said() -> None:
    cosines = np.random.default_rng(1).uniform(-1, 1, (2, 9, 9)).astype(np.float32)
    neutral = presence_of(cosines, facts(1), None)
    assert not neutral.calibrated
    assert neutral.threshold == 0.0
    assert "not calibrated" in neutral.warnings[0]
    calibrated = presence_of(cosines, facts(1), MODEL)
    assert (calibrated.calibrated, calibrated.threshold, calibrated.warnings) == (True, 0.4, ())
    described = presence_descriptors(cosines, facts(1))
    assert calibrated.scores == MODEL.score(described)
    margin = described[0, list(DESCRIPTORS).index("top_margin")]
    assert neutral.scores[0] == pytest.approx(1 / (1 + math.exp(-margin / 0.05)), abs=1e-5)
    assert NEUTRAL.threshold == 0


def test_coefficients_travel_in_the_settings() -> None:
    settings = settings_from_json(PanetSettings, {"presence": JSON}, "settings")
    assert settings.presence == MODEL
    assert settings_to_json(settings)["presence"] == JSON
    shots, _ = draw_shots([0])
    query, _ = draw_query(1)
    fitted = Case(methods.get("panet"), settings).fit(shots)
    assert fitted.presence(fitted.match(query).logits[0]).calibrated


def test_what_the_support_scores_itself() -> None:
    """Facts come from pooled unit features; here from the cosine map of the support itself."""
    shots, labels = draw_shots([0, 0, 1], noise=0.5)
    fitted = Case(methods.get("panet"), PanetSettings()).fit(shots)
    cosines = fitted.match(shots.features).logits.astype(float) / 20
    of = fitted.facts  # type: ignore[attr-defined]
    for way, rows in ((0, [0, 1]), (1, [2])):
        own = np.mean([cosines[r, way + 1][labels[r] > 0].mean() for r in rows])
        others = [
            np.mean([cosines[r, p][labels[r] > 0].mean() for r in rows])
            for p in range(3)
            if p != way + 1
        ]
        scene = np.mean([cosines[r, 0][labels[r] == 0].mean() for r in rows])
        assert of.self_cosine[way] == pytest.approx(own, abs=1e-5)
        assert of.self_margin[way] == pytest.approx(own - max(others), abs=1e-5)
        assert of.background_cosine[way] == pytest.approx(scene, abs=1e-5)
        whole = np.mean([cosines[r, way + 1].mean() for r in rows])
        best = np.where(labels > 0, cosines[:, way + 1], cosines[:, 0])
        assert of.mean_cosine[way] == pytest.approx(whole, abs=1e-5)
        assert of.explained[way] == pytest.approx(np.mean([best[r].mean() for r in rows]), abs=1e-5)
        unit = fitted.prototypes / np.linalg.norm(fitted.prototypes, axis=1, keepdims=True)  # type: ignore[attr-defined]
        assert of.prototype_cosine[way] == pytest.approx(unit[0] @ unit[way + 1], abs=1e-5)
        assert of.shots[way] == len(rows)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"names": ["top_margin", "no_such"]}, "names"),
        ({"names": ["top_margin", "top_margin"]}, "names"),
        ({"names": []}, "names"),
        ({"mean": [1.0]}, "mean"),
        ({"scale": [1.0, 0.0]}, "scale"),
        ({"weights": [1.0, float("inf")]}, "weights"),
        ({"bias": None}, "bias"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
    ],
)
def test_bad_coefficients_are_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=f"presence.*{name}|{name}"):
        settings_from_json(PresenceModel, {**JSON, **change}, "presence")
