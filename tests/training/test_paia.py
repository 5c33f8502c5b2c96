"""PAIA's learner: what it is given, what it learns from, and what the runtime is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsseg_sdk.methods import get
from fsseg_sdk.methods.settings import settings_from_json
from tests.training.runs import SMALL, check_resuming
from tests.training.squares import draw_parts
from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint
from training.datasets import IGNORE, Sample
from training.encoders import build_encoder
from training.episodes import EpisodeSettings, EpisodeSource
from training.paia import Paia, PaiaSettings
from training.panet import Panet, PanetSettings
from training.presence import calibrate
from training.trainer import Trainer
from training.validate import validation_iou

PANET = PanetSettings(scale=10.0, dice_weight=0.0)
OWN = PaiaSettings(steps=2, query_steps=1, panet=PANET)
ONE_CLASS = EpisodeSettings(side=64, kinds=(1.0, 0.0, 0.0), several=0.0)
RUN = replace(SMALL, method="paia", own=OWN, episodes=ONE_CLASS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 8).samples


def make(folder: Path, samples: Sequence[Sample], **own: Any) -> Trainer:
    torch.manual_seed(0)
    settings = replace(RUN, own=replace(OWN, **own))
    learner = Paia(build_encoder("mobilenet_v2"), settings.own)
    return Trainer(folder, learner, settings, samples)


def batch(trainer: Trainer) -> list[torch.Tensor]:
    return next(Batches(StepStream(trainer.shares, 0), 0))


class Colours(torch.nn.Module):
    """An encoder whose features are mean colours."""

    mean, std = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 8)


# ---- what it is given ----


def test_auxiliary_pictures_are_other_ones_of_the_class_without_their_masks(
    samples: Sequence[Sample],
) -> None:
    source = EpisodeSource(samples, ONE_CLASS, auxiliary=3)
    drawn = [source.draw(np.random.default_rng(seed)) for seed in range(6)]
    for views in drawn:
        assert len(views) == 5
        assert all(pixels.shape == (64, 64, 3) for pixels, _ in views)
        assert all((mask == 1).any() for _, mask in views[:2])
        assert all(set(np.unique(mask)) <= {0, IGNORE} for _, mask in views[2:])
        assert len({pixels.tobytes() for pixels, _ in views}) == 5
    again = source.draw(np.random.default_rng(2))
    assert all((a[0] == b[0]).all() for a, b in zip(again, drawn[2], strict=True))


def test_a_class_with_few_pictures_has_few_auxiliary_ones(samples: Sequence[Sample]) -> None:
    few = [sample for sample in samples if 1 in sample.classes][:3]
    views = EpisodeSource(few, ONE_CLASS, auxiliary=3).draw(np.random.default_rng(0))
    shown = [bool((mask != IGNORE).any()) for _, mask in views]
    assert shown == [True, True, True, False, False]


def test_an_episode_without_auxiliary_pictures_is_panets(samples: Sequence[Sample]) -> None:
    views = EpisodeSource(samples, ONE_CLASS, 0).draw(np.random.default_rng(5))
    same = EpisodeSource(samples, ONE_CLASS).draw(np.random.default_rng(5))
    assert len(views) == 2
    assert all((a[0] == b[0]).all() for a, b in zip(views, same, strict=True))


@pytest.mark.parametrize("other", [{"kinds": (1.0, 0.0, 0.1)}, {"several": 0.2}])
def test_episodes_of_several_classes_are_refused(
    samples: Sequence[Sample], other: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"kinds, several: .*Set them to"):
        EpisodeSource(samples, replace(ONE_CLASS, **other), auxiliary=1)


# ---- the loss ----


def test_without_fusion_the_loss_is_panets() -> None:
    """Where both pictures count as many pixels: PANet's mean is over those of both directions, this
    one's over directions."""
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(2, 4, 64, 64, dtype=torch.uint8)
    masks[:, 0, 8:40, 16:48], masks[:, 1, 20:60, 4:30] = 1, 1
    off = {"steps": 0, "query_steps": 0, "support_weight": 0.0, "threshold_weight": 0.0}
    learner, panet = Paia(Colours(), replace(OWN, **off)), Panet(Colours(), PANET)
    torch.testing.assert_close(learner(pixels, masks), panet(pixels[:, :2], masks[:, :2]))


def test_the_loss_is_the_weighted_sum_and_one_way_is_half(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path / "a", samples, support_weight=0.5, threshold_weight=2.0)
    pixels, masks = batch(trainer)
    trainer.learner.eval()
    with torch.no_grad():
        loss = trainer.learner(pixels, masks)
        parts = dict(trainer.learner.figures)
        assert list(parts) == ["query", "support", "threshold"]
        total = parts["query"] + 0.5 * parts["support"] + 2 * parts["threshold"]
        torch.testing.assert_close(loss, total)
        there, back = (
            make(tmp_path / str(n), samples, both_ways=False).learner.eval() for n in (0, 1)
        )
        there(pixels, masks)
        back(pixels[:, [1, 0, 2, 3]], masks[:, [1, 0, 2, 3]])
    for name, value in parts.items():
        halves = there.figures[name] + back.figures[name]
        torch.testing.assert_close(value, halves / 2, rtol=1e-4, atol=1e-5)


def test_everything_learns_and_the_threshold_from_the_support_alone(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path, samples)
    learner = trainer.learner
    assert isinstance(learner, Paia)
    pixels, masks = batch(trainer)
    learner(pixels, masks).backward()
    assert all(p.grad is not None and p.grad.any() for p in learner.threshold.parameters())
    encoder = learner.encoder.parameters()
    assert any(p.grad is not None and p.grad.any() for p in encoder)
    learner.zero_grad()
    learner.own = replace(learner.own, support_weight=0.0, threshold_weight=1.0)
    features = learner.features(pixels.flatten(0, 1)).reshape(2, 4, -1, 4, 4)
    learner._episode(features[0], masks[0], 0)["threshold"].backward()
    assert all(p.grad is None or not p.grad.any() for p in learner.encoder.parameters())
    assert learner.threshold.output.bias.grad is not None


def test_a_picture_that_is_not_there_has_no_say() -> None:
    """What stands in the place of a missing auxiliary picture does not matter."""
    mask = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    mask[:, :2, 16:48, 16:32] = 1
    pixels = torch.tensor([30, 200, 60], dtype=torch.uint8).repeat(1, 4, 64, 64, 1)
    pixels[:, :, 16:48, 16:32] = torch.tensor([220, 40, 30], dtype=torch.uint8)
    pixels += torch.randint(0, 30, pixels.shape).to(torch.uint8)
    learner = Paia(Colours(), OWN)

    def loss(there: bool, brown: bool) -> float:
        masks, shown = mask.clone(), pixels.clone()
        masks[:, 3] = 0 if there else IGNORE
        if brown:
            shown[:, 3] = torch.tensor([150, 110, 40], dtype=torch.uint8)
        return float(learner(shown, masks).detach())

    assert loss(False, False) == loss(False, True)
    assert abs(loss(True, False) - loss(True, True)) > 1e-3
    masks = mask.clone()
    masks[:, 2:] = IGNORE
    alone = learner(pixels[:, :2], mask[:, :2])
    torch.testing.assert_close(learner(pixels, masks), alone)
    assert float(alone.detach()) < 10


def test_a_batch_in_which_nothing_is_labelled_costs_nothing(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    learner = make(tmp_path, samples).learner
    pixels = torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)
    loss = learner(pixels, torch.full((1, 4, 64, 64), IGNORE, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters())


def test_the_threshold_learns_to_tell_class_from_background(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    """On features that stay as they are: the loss falls, towards what the masks say."""
    learner = make(tmp_path, samples).learner.eval()
    assert isinstance(learner, Paia)
    pixels, masks = batch(make(tmp_path / "b", samples))
    with torch.no_grad():
        features = learner.features(pixels.flatten(0, 1)).reshape(2, 4, -1, 4, 4)
    optimizer = torch.optim.Adam(learner.threshold.parameters(), 0.05)
    losses = []
    for _ in range(40):
        loss = sum(learner._episode(features[n], masks[n], 0)["threshold"] for n in (0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_the_watched_figure_is_of_what_the_query_sharpens(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    learner = make(tmp_path, samples, distilled=False).learner
    assert isinstance(learner, Paia)
    given = torch.randn(1, 6, 5, 5), torch.randn(1, 1, 6), torch.randn(1, 1, 6)
    with torch.no_grad():
        fused = learner.sharpened(*given)
        assert fused.shape == given[2].shape
        assert not torch.equal(fused, given[2])
        learner.own = replace(learner.own, query_steps=0)
        assert torch.equal(learner.sharpened(*given), given[2])
    figures = validation_iou(learner, samples, 64, 4)
    assert list(figures) == ["parts"] and figures["parts"] > 0


# ---- what the runtime is told, and a run ----


def test_the_runtime_takes_what_was_trained(samples: Sequence[Sample], tmp_path: Path) -> None:
    for own in ({}, {"distilled": False}):
        learner = make(tmp_path, samples, **own).learner
        told = learner.runtime()
        assert told["name"] == "paia"
        settings = settings_from_json(get("paia").settings_type, told["settings"], "settings")
        assert (settings.steps, settings.query_steps) == (2, 1)
        assert settings.panet.scale == 10.0
        assert settings.panet.background == "pool-of-pixels"
        assert settings.distilled is (not own)
        assert (settings.threshold is None) is bool(own)


def test_presence_is_fitted_to_the_match_that_paia_begins_with(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path, samples)
    trainer.save()
    file = tmp_path / "checkpoint.safetensors"
    assert "AUROC" in calibrate(file, samples, 64, 3, True)
    own = load_checkpoint(file)[1]["method"]["settings"]
    settings = settings_from_json(get("paia").settings_type, own, "settings")
    assert settings.panet.presence is not None
    assert (settings.panet.background_parts, settings.panet.refine_weak) == (3, True)


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> Trainer:
        return make(tmp_path / ("cut" if name == "again" else name), samples)

    whole = check_resuming(made, tmp_path, monkeypatch)
    tensors, header = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert all(name.startswith("encoder.") for name in tensors)
    learner, average = whole.learner, whole.average
    assert isinstance(learner, Paia) and isinstance(average, Paia)
    shipped = header["method"]["settings"]["threshold"]
    assert shipped == average.threshold.numbers()  # as the weights that are shipped beside it
    assert shipped != learner.threshold.numbers()


@pytest.mark.parametrize(("field", "value"), [("steps", -1), ("auxiliary", -1), ("softness", 0.0)])
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        PaiaSettings(**{field: value})
