"""PANet's loss, and the quick figure that is watched while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.datasets import Dataset, Sample
from training.encoders import build_encoder
from training.losses import segmentation_loss
from training.panet import Panet, PanetSettings
from training.validate import fixed_episodes, validation_iou


@pytest.fixture(scope="module")
def samples(drawn: Path) -> tuple[Sample, ...]:
    return Dataset.open(drawn).samples


class Colours(torch.nn.Module):
    """An encoder whose features are mean colours."""

    mean, std = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 8)


def test_each_picture_is_segmented_by_the_other() -> None:
    """Red on green both times is learnt; red on green, then green on red, cannot be."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:32] = 1
    colours = np.array([[20, 230, 20], [230, 20, 20]], np.uint8)
    one, other = colours[mask], colours[1 - mask]
    masks = torch.from_numpy(np.stack([mask, mask]))[None]
    learner = Panet(Colours(), PanetSettings())
    alike, opposite = (
        float(learner(torch.from_numpy(np.stack(pair))[None], masks))
        for pair in ((one, one), (one, other))
    )
    assert alike < 0.5
    assert opposite > 5


def test_a_batch_in_which_nothing_is_labelled_costs_nothing() -> None:
    learner = Panet(build_encoder("mobilenet_v2"), PanetSettings())
    pixels = torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8)
    loss = learner(pixels, torch.full((1, 2, 64, 64), 255, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0


def test_a_picture_with_nothing_to_learn_from_costs_nothing() -> None:
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    masks = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss = segmentation_loss(logits, masks, torch.tensor([[True, True]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros(1, 2, 4, 4))


def test_the_manifest_has_what_was_trained_with() -> None:
    learner = Panet(Colours(), PanetSettings(scale=10.0, background_parts=2))
    settings = {"scale": 10.0, "background_parts": 2}
    assert learner.runtime() == {"name": "panet", "settings": settings}


@pytest.mark.parametrize("field", ["scale", "background_parts"])
def test_settings_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        PanetSettings(**{field: 0})


def test_watching_is_repeatable_and_needs_two_pictures_of_a_class(
    samples: tuple[Sample, ...],
) -> None:
    first = fixed_episodes(samples, 9, 0.005)
    assert first == fixed_episodes(samples, 9, 0.005)
    assert all(identity in s.classes and identity in q.classes for identity, s, q in first)
    assert all(support is not query for _, support, query in first)
    assert fixed_episodes(samples[:1], 9, 0.005) == []
    learner = Panet(build_encoder("mobilenet_v2"), PanetSettings())
    assert validation_iou(learner, samples[:1], 64) == {}
