"""OSLSM: what its conditioner sees, the OR over shots, and what several planes of a class mean to
everything behind the match."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fsseg_sdk import (
    BackendError,
    Box,
    BundleError,
    InputError,
    Result,
    Scribble,
    Segmenter,
    TaskError,
    methods,
)
from fsseg_sdk.backends import TensorInfo
from fsseg_sdk.image import read_image
from fsseg_sdk.methods import State
from fsseg_sdk.methods.oslsm import OslsmFitted, OslsmSettings
from fsseg_sdk.methods.presence import PresenceModel
from fsseg_sdk.preprocess import masked, plan, preprocess
from fsseg_sdk.support import read_support
from fsseg_sdk.taskfile import read_task_info
from training.evaluation.predictor import SdkPredictor

from .. import opened, tiny
from .harness import CHANNELS, draw_query, draw_shots

OSLSM = methods.get("oslsm")


class Conditioner:
    """Divides the mean colour of what is shown from the mean colour of all pictures, in the tiny
    encoder's features."""

    backend, device, precision = "numpy", "cpu", "fp32"
    inputs = (TensorInfo("image", "float32", (-1, 3, *tiny.SIZE)),)
    outputs = (TensorInfo("parameters", "float32", (-1, tiny.CHANNELS + 1)),)

    def __init__(self) -> None:
        self.seen: list[NDArray[np.float32]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        image = feeds["image"]
        self.seen.append(image)
        shown = (np.abs(image) > 0.01).any(axis=1)
        mean = (image * shown[:, None]).sum(axis=(2, 3)) / np.maximum(shown.sum((1, 2)), 1)[:, None]
        plain = np.broadcast_to(mean[..., None, None], image.shape)
        own, empty = (tiny.tiny_features(x)[:, :, 0, 0] for x in (plain, np.zeros_like(image)))
        weight = 12 * (own - empty) / np.linalg.norm(own - empty, axis=1, keepdims=True)
        bias = -(weight * (0.6 * own + 0.4 * empty)).sum(axis=1, keepdims=True)
        return {"parameters": np.concatenate([weight, bias], axis=1).astype(np.float32)}


def segmenter(
    geometry: str = "squash", conditioner: Conditioner | None = None, **settings: Any
) -> tuple[Segmenter, opened.NumpyGraph, Conditioner]:
    encoder, own = opened.NumpyGraph(), conditioner or Conditioner()
    description = opened.settings(geometry=geometry)
    description["method"] = {"name": "oslsm", "settings": settings}
    graphs = {"encoder": encoder, "oslsm_conditioner": own}
    return Segmenter(graphs, description, threads=1), encoder, own


def by_threshold_and_or(result: Result) -> NDArray[np.uint8]:
    """Section 4.4 as it stands: each classifier's map upsampled, a mask from 0.5 on, the OR of the
    masks; of several classes that of the most probable pixel. Pictures squashed into the input."""
    planes = result.planes
    assert planes is not None
    best = np.full(result.size, 0.0)
    found = np.zeros(result.size, np.uint8)
    for logits, label in zip(result.logits[1:], planes[1:], strict=True):
        own = torch.from_numpy(logits.astype(np.float64))[None, None]
        wide = F.interpolate(own, result.size, mode="bilinear", align_corners=False)[0, 0].numpy()
        mask = 1 / (1 + np.exp(-wide)) > 0.5
        found = np.where(mask & (wide > best), label, found).astype(np.uint8)
        best = np.maximum(best, wide)
    return found


class TestWhatIsSeen:
    @pytest.mark.parametrize("geometry", ["squash", "fit"])
    def test_the_class_alone(self, geometry: str) -> None:
        own, _, conditioner = segmenter(geometry)
        picture, mask = tiny.tiny_scene((48, 90))
        own.prepare({"a": [(picture, mask)]})
        (seen,) = conditioner.seen
        hidden = np.where(mask[..., None] > 0, picture, np.array([124, 116, 104], np.uint8))
        shown = read_image(hidden)
        how = plan(geometry, (48, 90), tiny.SIZE)  # type: ignore[arg-type]
        assert np.array_equal(seen, preprocess(shown, how, tiny.MEAN, tiny.STD))
        assert seen.shape == (1, 3, *tiny.SIZE)
        far = seen[0, :, 50:, :5] if geometry == "squash" else seen[0, :, how.content[0] :]
        assert np.abs(far).max() <= 0.01 and np.abs(seen).max() > 1

    def test_a_box_shows_its_inside_and_a_scribble_its_surroundings(self) -> None:
        own, _, conditioner = segmenter()
        picture, _ = tiny.tiny_scene()
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[4:30, 8:50] = 1
        own.prepare({"a": [(picture, mask), (picture, Box(8, 4, 50, 30))]})
        assert np.array_equal(*conditioner.seen)
        support = read_support({"a": [(picture, Scribble([(20, 20), (30, 20)]))]})
        own.prepare(support)
        (shot,) = support
        assert shot.possible.sum() > 2 * shot.foreground.sum()
        shown = masked(shot.picture, shot.possible, tiny.MEAN)
        how = plan("squash", shot.picture.size, tiny.SIZE)
        assert np.array_equal(conditioner.seen[2], preprocess(shown, how, tiny.MEAN, tiny.STD))

    def test_once_a_shot_and_never_for_a_query(self) -> None:
        own, encoder, conditioner = segmenter()
        task = own.prepare(opened.support())  # 3 classes in the same 2 pictures
        assert len(conditioner.seen) == 6 and encoder.calls == [1, 1]
        task.segment(opened.query().pixels)
        assert len(conditioner.seen) == 6 and encoder.calls == [1, 1, 1]

    def test_other_methods_get_no_such_pictures(self) -> None:
        shots, _ = draw_shots([0])
        assert shots.masked is None
        with pytest.raises(InputError, match=r"shots\.masked"):
            OSLSM.summarise(shots, OslsmSettings(), {})

    def test_masked(self) -> None:
        picture = read_image(np.full((3, 4, 3), 9, np.uint8))
        keep = np.zeros((3, 4), np.uint8)
        keep[1, 2] = 1
        found = masked(picture, keep, (0.5, -1.0, 2.0)).pixels
        assert found[1, 2].tolist() == [9, 9, 9]
        assert found[0, 0].tolist() == [128, 0, 255] and found.dtype == np.uint8


class TestAnswers:
    @pytest.mark.parametrize("shots", [1, 2, 5])
    def test_the_or_of_the_shots(self, shots: int) -> None:
        own, _, _ = segmenter()
        task = own.prepare(opened.support(shots))
        result = task.segment(opened.query().pixels)
        assert result.planes is not None
        assert result.planes.tolist() == [0, *np.repeat([1, 2, 3], shots)]
        assert result.logits.shape == (1 + 3 * shots, *tiny.GRID)
        expected = by_threshold_and_or(result)
        assert (result.raw_labels == expected).mean() >= 0.999
        assert len(np.unique(expected)) >= 3
        scores = result.scores
        assert scores.shape == (4, *result.size)
        assert (scores.argmax(axis=0) == expected).mean() >= 0.999

    def test_more_shots_never_take_pixels_away(self) -> None:
        """Of one class: each shot's mask is in the OR."""
        own, _, _ = segmenter()
        shots = [each[0] for each in opened.support(1).values()]
        query = opened.query().pixels
        each = [own.prepare({"a": [shot]}).segment(query).raw_labels > 0 for shot in shots]
        together = own.prepare({"a": shots}).segment(query).raw_labels > 0
        assert np.array_equal(together, np.logical_or.reduce(each))
        assert together.sum() > max(one.sum() for one in each)

    def test_finds_the_object(self) -> None:
        own, _, _ = segmenter()
        query, truth = tiny.tiny_scene((96, 128), (64, 40, 112, 80))
        assert opened.iou(own.segment(*tiny.tiny_scene(), query).mask, truth) >= 0.7

    def test_shots_in_any_order(self) -> None:
        own, _, _ = segmenter()
        task = own.prepare({"a": [tiny.tiny_scene()], "b": [tiny.tiny_scene(colour=(20, 200, 40))]})
        more = task.add("a", [tiny.tiny_scene((70, 50), (10, 20, 40, 60))])
        result = more.segment(opened.query().pixels)
        assert result.planes is not None and result.planes.tolist() == [0, 1, 1, 2]
        assert more.state.way.tolist() == [0, 1, 0]
        before = task.segment(opened.query().pixels).logits
        assert np.array_equal(result.logits[[0, 1, 3]], before)

    def test_tiles(self) -> None:
        own, _, _ = segmenter()
        task = own.prepare(opened.support(2))
        result = task.segment(opened.query(size=(150, 200)).pixels, tile=True)
        assert (
            len(result.logits) == 7
            and len(result.evidence if result.evidence is not None else ()) == 4
        )
        assert (result.raw_labels == by_threshold_and_or(result)).mean() >= 0.999

    def test_more_classifiers_than_labels(self) -> None:
        own, _, _ = segmenter()
        picture, mask = tiny.tiny_scene()
        other = tiny.tiny_scene(colour=(20, 200, 40))
        task = own.prepare({"a": [(picture, mask)] * 150, "b": [other] * 150})
        result = task.segment(picture)
        plain = own.prepare({"a": [(picture, mask)], "b": [other]}).segment(picture)
        assert len(result.logits) == 301
        assert np.array_equal(result.raw_labels, plain.raw_labels)
        assert np.array_equal(result.scores, plain.scores)

    def test_at_other_sizes(self) -> None:
        """Evaluation scores the same answer at the sizes of its ground truth."""
        own, encoder, _ = segmenter()
        predictor = SdkPredictor(own, encoder, {})  # type: ignore[arg-type]
        support = opened.support(2)
        rows = [[predictor.summarise(p, [m])[0] for p, m in shots] for shots in support.values()]
        pixels = opened.query().pixels
        labels, small = predictor.segment(pixels, rows, [(96, 128), (48, 64)])
        result = own.prepare(support).segment(pixels)
        assert np.array_equal(labels, result.raw_labels)
        expected = by_threshold_and_or(
            dataclasses.replace(
                result,
                raw_labels=small,
                geometry=dataclasses.replace(result.geometry, image_size=(48, 64)),
            )
        )
        assert (small == expected).mean() >= 0.999 and len(np.unique(small)) >= 3


class TestPresence:
    def test_by_its_own_scores(self) -> None:
        own, _, _ = segmenter()
        task = own.prepare({"a": [tiny.tiny_scene(), tiny.tiny_scene((70, 50), (10, 20, 40, 60))]})
        there = task.segment(tiny.tiny_scene()[0])
        without, _ = tiny.tiny_scene(square=(0, 0, 0, 0))
        gone = task.segment(without)
        assert there.present["a"] > 0.9 and gone.present["a"] < 0.3
        assert not there.calibrated and there.found == gone.found == ("a",)
        top = there.logits[1:].max(axis=0)
        assert there.evidence is not None and np.array_equal(there.evidence[1], top)
        assert there.present["a"] == pytest.approx(1 / (1 + np.exp(-top.max())), abs=1e-3)

    def test_calibrated(self) -> None:
        model = PresenceModel(("top_margin",), (0.0,), (1.0,), (1.0,), 0.0, 0.5)
        own, _, _ = segmenter(presence=dataclasses.asdict(model))
        task = own.prepare({"a": [tiny.tiny_scene()]})
        gone = task.segment(tiny.tiny_scene(square=(0, 0, 0, 0))[0])
        assert gone.calibrated and gone.found == () and not gone.labels.any()
        assert task.describe(gone).shape[0] == 1


class TestFiles:
    def test_a_task_holds_a_classifier_a_shot(self, tmp_path: Path) -> None:
        own, _, _ = segmenter()
        task = own.prepare(opened.support(2))
        path = tmp_path / "x.task"
        task.save(path)
        info = read_task_info(path)
        assert info["bytes"] == 6 * (8 + 4 * (tiny.CHANNELS + 1))
        query = opened.query().pixels
        assert opened.same(own.load_task(path).segment(query), task.segment(query))
        with pytest.raises(TaskError, match=r"method\.name"):
            opened.numpy_segmenter().load_task(path)

    def test_a_state_of_another_encoder(self) -> None:
        state = State(np.zeros(1, np.int64), {"parameters": np.zeros((1, CHANNELS), np.float32)})
        with pytest.raises(InputError, match="parameters"):
            OSLSM.check(state, CHANNELS, (9, 11))

    def test_without_its_graph(self) -> None:
        with pytest.raises(BundleError, match="lacks oslsm_conditioner"):
            Segmenter.load("default", method="oslsm")

    def test_a_graph_that_does_not_fit(self) -> None:
        class Wrong(Conditioner):
            def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                return {"parameters": super().run(feeds)["parameters"][:, 1:]}

        own, _, _ = segmenter(conditioner=Wrong())
        with pytest.raises(BackendError, match=r"oslsm_conditioner.* expected float32 \[1, 17\]"):
            own.prepare({"a": [tiny.tiny_scene()]})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: p * np.float32(np.nan), "expected finite numbers"),
            (lambda p: p / np.float32(0), "expected finite numbers"),
            (lambda p: p.astype(np.float64), r"got float64 \[1, 17\]"),
        ],
    )
    def test_a_graph_that_gives_no_numbers(
        self, change: Callable[[Any], Any], message: str
    ) -> None:
        class Wrong(Conditioner):
            def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                return {"parameters": change(super().run(feeds)["parameters"])}

        own, _, _ = segmenter(conditioner=Wrong())
        with np.errstate(all="ignore"), pytest.raises(BackendError, match=message) as found:
            own.prepare({"a": [tiny.tiny_scene()]})
        assert "oslsm_conditioner" in found.value.argument

    def test_more_shots_than_planes(self) -> None:
        most = 65_534
        rows = np.zeros((most + 1, CHANNELS + 1), np.float32)
        state = State(np.zeros(most + 1, np.int64), {"parameters": rows})
        for call in (
            lambda: OSLSM.check(state, CHANNELS, (9, 11)),
            lambda: OSLSM.fit(state, 1, OslsmSettings(), {}),
        ):
            with pytest.raises(InputError, match=r"at most 65534 .* fewer shots"):
                call()
        fewer = state.select(np.arange(most))
        OSLSM.check(fewer, CHANNELS, (9, 11))
        fitted = OSLSM.fit(fewer, 1, OslsmSettings(), {})
        assert fitted.planes is not None and len(fitted.planes) == most + 1
        fewer.arrays["parameters"][3, 4] = np.nan
        with pytest.raises(InputError, match="finite"):
            OSLSM.check(fewer, CHANNELS, (9, 11))

    def test_settings(self) -> None:
        assert OSLSM.settings_from("panet", {"scale": 5.0, "presence": {}}) == {}


def test_one_shot_a_class_needs_no_second_map() -> None:
    query, _ = draw_query(2)
    state = State(
        np.array([1, 0]),
        {"parameters": np.random.default_rng(0).normal(size=(2, CHANNELS + 1)).astype(np.float32)},
    )
    fitted = OSLSM.fit(state, 2, OslsmSettings(), {})
    assert isinstance(fitted, OslsmFitted) and fitted.planes.tolist() == [0, 1, 2]
    match = fitted.match(query)
    assert match.evidence is None
    own = state.arrays["parameters"].astype(np.float64)[::-1]
    expected = np.einsum("kc,bchw->bkhw", own[:, :-1], query) + own[:, -1:, None]
    assert np.abs(match.logits[:, 1:] - expected).max() < 1e-4
