"""panet against its equations, written down naively in double precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from fsseg_sdk import InputError, methods, ops
from fsseg_sdk.methods import Shots, State
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.settings import settings_from_json

from .harness import GRID, Case, draw_query, draw_shots, scene, take

PANET = methods.get("panet")
POOL = PanetSettings(background="pool-of-pixels")


def naive_logits(shots: Shots, query: NDArray[np.float32], rule: str) -> NDArray[np.float64]:
    """Eq. 1 to 3 of the paper, shot by shot, pixel by pixel."""
    features = shots.features.astype(np.float64)
    ways = int(shots.way.max()) + 1
    foreground: list[list[NDArray[np.float64]]] = [[] for _ in range(ways)]
    background: list[list[NDArray[np.float64]]] = [[] for _ in range(ways)]
    total, mass = np.zeros(features.shape[1]), 0.0
    for row, way in enumerate(shots.way):
        picture = features[shots.picture[row]]
        for maps, kept in ((shots.foreground, foreground), (shots.background, background)):
            weights = maps[row].astype(np.float64)
            if weights.sum() > 0:
                kept[way].append((picture * weights).sum((1, 2)) / weights.sum())
        total += (picture * shots.background[row]).sum((1, 2))
        mass += float(shots.background[row].sum())
    prototypes = [np.mean(vectors, axis=0) for vectors in foreground]
    if rule == "pool-of-pixels":
        prototypes.insert(0, total / mass)
    else:
        prototypes.insert(0, np.mean([np.mean(v, axis=0) for v in background if v], axis=0))
    result = np.zeros((1, ways + 1, *query.shape[2:]))
    for index, prototype in enumerate(prototypes):
        for y, x in np.ndindex(query.shape[2:]):
            cell = query[0, :, y, x].astype(np.float64)
            norms = np.linalg.norm(cell) * np.linalg.norm(prototype)
            result[0, index, y, x] = 20 * cell @ prototype / norms
    return result


@pytest.mark.parametrize("rule", ["mean-of-shots", "pool-of-pixels"])
def test_follows_the_equations(rule: str) -> None:
    rng = np.random.default_rng(0)
    shots, _ = draw_shots([0, 1, 0, 1, 1])
    soft = rng.uniform(size=shots.foreground.shape).astype(np.float32)
    shots = dataclasses.replace(
        shots, foreground=shots.foreground * soft, background=(1 - soft) ** 3
    )
    shots.background[2] = 0  # a mask over the whole picture
    query, _ = draw_query(2)
    case = Case(PANET, settings_from_json(PanetSettings, {"background": rule}, "settings"))
    difference = np.abs(case.logits(shots, query) - naive_logits(shots, query, rule)).max()
    assert difference <= 1e-3
    other = "mean-of-shots" if rule == "pool-of-pixels" else "pool-of-pixels"
    assert np.abs(naive_logits(shots, query, other) - naive_logits(shots, query, rule)).max() > 0.05


def test_equals_pooling_upsampled_features() -> None:
    """What the published code does: features upsampled to the mask's size, multiplied, averaged."""
    rng = np.random.default_rng(4)
    size = (61, 47)
    features = scene(np.zeros(GRID, np.int64), rng, noise=1.0)
    mask = np.zeros(size, np.uint8)
    mask[17:40, 9:33] = 1
    planes = np.stack([mask, 1 - mask])
    weights = ops.grid_weights(planes, GRID)
    shots, _ = draw_shots([0])
    shots = dataclasses.replace(
        shots, features=features, foreground=weights[:1], background=weights[1:]
    )
    state = PANET.summarise(shots, PanetSettings(), {})
    state.arrays["background"].shape = (1, -1)
    upsampled = _upsample(features[0].astype(np.float64), size)
    for name, plane in (("foreground", mask), ("background", 1 - mask)):
        expected = (upsampled * plane).sum((1, 2)) / plane.sum()
        assert np.abs(state.arrays[name][0] - expected).max() <= 1e-5 * np.abs(expected).max()


def _upsample(features: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear, align_corners=False."""
    for axis, pixels in ((1, size[0]), (2, size[1])):
        cells = features.shape[axis]
        place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        low = place.astype(int)
        high = np.minimum(low + 1, cells - 1)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        features = features.take(low, axis) * (1 - share) + features.take(high, axis) * share
    return features


def test_a_picture_given_twice_counts_once_in_the_pool() -> None:
    shots, _ = draw_shots([0, 1])
    query, _ = draw_query(2)
    case = Case(PANET, POOL)
    expected = case.logits(shots, query)
    assert np.abs(case.logits(take(shots, [0, 1, 0, 0]), query) - expected).max() <= 2e-4
    other_picture = dataclasses.replace(
        take(shots, [0, 1, 0]),
        features=shots.features[[0, 1, 0]],
        picture=np.arange(3),
    )
    assert np.abs(case.logits(other_picture, query) - expected).max() > 0.01


def test_the_scale_only_scales() -> None:
    shots, _ = draw_shots([0, 1])
    query, _ = draw_query(2)
    twenty = Case(PANET, PanetSettings()).logits(shots, query)
    five = Case(PANET, PanetSettings(scale=5.0)).fit(shots)
    logits = five.match(query).logits
    assert np.abs(logits * 4 - twenty).max() <= 1e-4
    expected = Case(PANET, PanetSettings()).fit(shots).presence(twenty[0])
    assert np.abs(five.presence(logits[0]).scores - expected.scores).max() <= 1e-5


class TestWeakShots:
    """A box with an object in its middle: the corners of the box show background."""

    def shots(self, weak: bool = True) -> tuple[Shots, NDArray[np.bool_]]:
        shots, _ = draw_shots([0])
        labels = np.zeros(GRID, np.int64)
        labels[3:6, 4:7] = 1
        box = np.zeros((1, *GRID), np.float32)
        box[0, 2:7, 3:8] = 1
        return (
            dataclasses.replace(
                shots,
                features=scene(labels, np.random.default_rng(0)),
                foreground=box,
                background=1 - box,
                possible=box,
                weak=np.array([weak]),
            ),
            labels > 0,
        )

    def prototype(self, shots: Shots, refine: bool) -> NDArray[np.float32]:
        return PANET.summarise(shots, PanetSettings(refine_weak=refine), {}).arrays["foreground"][0]

    def test_refining_finds_the_object_in_the_box(self) -> None:
        shots, inside = self.shots()
        exact = shots.features[0][:, inside].mean(axis=1)
        plain, refined = self.prototype(shots, False), self.prototype(shots, True)
        assert np.abs(refined - exact).max() <= 1e-5
        assert np.abs(plain - exact).max() > 0.3

    def test_masks_are_left_alone(self) -> None:
        shots, _ = self.shots(weak=False)
        assert np.array_equal(self.prototype(shots, True), self.prototype(shots, False))

    def test_a_mask_beside_a_box_in_one_picture(self) -> None:
        shots, _ = self.shots()
        both = dataclasses.replace(take(shots, [0, 0]), weak=np.array([True, False]))
        rows = PANET.summarise(both, PanetSettings(refine_weak=True), {}).arrays["foreground"]
        assert np.abs(rows[0] - self.prototype(shots, True)).max() <= 1e-6
        assert np.abs(rows[1] - self.prototype(shots, False)).max() <= 1e-6

    def test_nothing_outside_what_is_possible(self) -> None:
        shots, inside = self.shots()
        shots.possible[0, 4:, :] = 0
        upper = inside.copy()
        upper[4:] = False
        exact = shots.features[0][:, upper].mean(axis=1)
        assert np.abs(self.prototype(shots, True) - exact).max() <= 1e-5

    def test_nothing_found_leaves_the_box(self) -> None:
        shots, _ = self.shots()
        same = dataclasses.replace(shots, features=np.ones_like(shots.features))
        assert np.array_equal(self.prototype(same, True), self.prototype(same, False))

    def test_a_scribble_grows_over_the_object(self) -> None:
        shots, inside = self.shots()
        stroke = np.zeros_like(shots.foreground)
        stroke[0, 4, 5] = 1
        scribble = dataclasses.replace(shots, foreground=stroke)
        exact = shots.features[0][:, inside].mean(axis=1)
        assert np.abs(self.prototype(scribble, True) - exact).max() <= 1e-5


class TestBackgroundParts:
    """Background of two kinds, A and B; the class lies between them."""

    def shots(self) -> tuple[Shots, NDArray[np.int64], NDArray[np.float32]]:
        labels = np.zeros(GRID, np.int64)
        labels[:, 4:] = 1
        labels[3:6, 3:7] = 2
        rng = np.random.default_rng(0)
        kinds = rng.normal(size=(3, 24)).astype(np.float32)
        kinds[2] = kinds[0] + kinds[1] + rng.normal(size=24) * 0.4
        features = np.ascontiguousarray(kinds[labels].transpose(2, 0, 1)[None])
        mask = (labels == 2).astype(np.float32)[None]
        shots, _ = draw_shots([0])
        fields = {"foreground": mask, "background": 1 - mask, "possible": mask}
        return dataclasses.replace(shots, features=features, **fields), labels, kinds

    def labels(self, shots: Shots, parts: int) -> NDArray[np.intp]:
        case = Case(PANET, PanetSettings(background_parts=parts))
        found: NDArray[np.intp] = case.logits(shots, shots.features)[0].argmax(axis=0)
        return found

    def test_parts_find_the_kinds(self) -> None:
        shots, labels, kinds = self.shots()
        state = PANET.summarise(shots, PanetSettings(background_parts=2), {})
        parts = state.arrays["background"][0]
        order = np.argsort(-parts @ kinds[0])
        assert np.abs(parts[order] - kinds[:2]).max() <= 1e-5
        mass = state.arrays["background_mass"][0][order]
        assert np.abs(mass - [(labels == 0).sum(), (labels == 1).sum()]).max() <= 1e-4

    def test_an_object_like_the_mean_of_its_surroundings_is_found(self) -> None:
        shots, labels, _ = self.shots()
        right = (labels == 2).astype(int)
        assert (self.labels(shots, 2) == right).all()

    def test_more_parts_than_kinds_change_nothing(self) -> None:
        shots, labels, _ = self.shots()
        right = (labels == 2).astype(int)
        assert (self.labels(shots, 7) == right).all()

    def test_shots_together(self) -> None:
        """Two shots, one with each kind: the parts are theirs, whatever their order."""
        shots, _, kinds = self.shots()
        background = shots.background.copy()
        background[:, :, 4:] = 0
        left = dataclasses.replace(shots, background=background)
        right = dataclasses.replace(shots, background=shots.background - background)
        settings = PanetSettings(background_parts=2)
        states = [PANET.summarise(s, settings, {}) for s in (left, right)]
        for both in (states, states[::-1]):
            fitted = PANET.fit(methods.combine(both), 1, settings, {})
            found = fitted.prototypes[:2]
            order = np.argsort(-found @ kinds[0])
            assert np.abs(found[order] - kinds[:2]).max() <= 1e-5

    def test_no_background_at_all(self) -> None:
        shots, _, _ = self.shots()
        whole = dataclasses.replace(
            shots, foreground=np.ones_like(shots.foreground), background=shots.background * 0
        )
        case = Case(PANET, PanetSettings(background_parts=3))
        assert (case.logits(whole, shots.features)[0, 0] == 0).all()

    def test_equals_the_differentiable_twin(self) -> None:
        torch = pytest.importorskip("torch")
        from training.prototypes import background_parts, panet_logits, pool

        rng = np.random.default_rng(3)
        shots, _ = draw_shots([0], noise=0.6)
        query, _ = draw_query(1)
        weights = rng.uniform(size=(1, 2, *GRID)).astype(np.float32)
        shots = dataclasses.replace(
            shots, foreground=weights[:, 1], background=weights[:, 0], possible=weights[:, 1]
        )
        logits = Case(PANET, PanetSettings(background_parts=3)).logits(shots, query)
        support, planes = torch.from_numpy(shots.features), torch.from_numpy(weights)
        twin = panet_logits(
            torch.from_numpy(query),
            background_parts(support, planes[:, 0], 3),
            pool(support, planes[:, 1:]),
        )
        assert np.abs(twin.numpy() - logits).max() <= 2e-3


class TestSettings:
    def test_defaults_are_the_paper(self) -> None:
        assert PanetSettings() == PanetSettings(20.0, "mean-of-shots", 1, False, None)

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            ({"scale": 0}, "scale"),
            ({"scale": float("nan")}, "scale"),
            ({"scale": "20"}, "scale"),
            ({"scale": True}, "scale"),
            ({"scale": 10**400}, "scale"),
            ({"background": "mean"}, "background"),
            ({"background": 3}, "background"),
            ({"background_parts": 0}, "background_parts"),
            ({"background_parts": 17}, "background_parts"),
            ({"background_parts": 1.5}, "background_parts"),
            ({"refine_weak": 1}, "refine_weak"),
            ({"presence": []}, "presence"),
            ({"presence": {"names": ["top_cosine"]}}, "presence"),
            ({"typo": 1}, "typo"),
        ],
    )
    def test_bad_values_are_named(self, values: dict[str, object], name: str) -> None:
        with pytest.raises(InputError, match=name):
            settings_from_json(PanetSettings, values, "method.settings")


def test_a_state_of_other_channels_is_refused() -> None:
    shots, _ = draw_shots([0])
    state = PANET.summarise(shots, PanetSettings(), {})
    PANET.check(state, shots.features.shape[1], GRID)
    with pytest.raises(InputError, match=r"'foreground': expected float32 \[S, 3\]"):
        PANET.check(state, 3, GRID)
    less = {name: array for name, array in state.arrays.items() if name != "foreground"}
    with pytest.raises(InputError, match=r"'foreground'.*got none"):
        PANET.check(State(state.way, less), shots.features.shape[1], GRID)
    more = {**state.arrays, "extra": state.way}
    with pytest.raises(InputError, match=r"'extra': expected none"):
        PANET.check(State(state.way, more), shots.features.shape[1], GRID)
