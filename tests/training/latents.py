"""A small folder of pseudo labels, and a run of SPFL on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsseg_sdk.methods.settings import settings_to_json
from tests.training.runs import SMALL
from training.datasets import Sample
from training.encoders import build_encoder
from training.episodes import EpisodeSettings
from training.settings import DataSettings, RunSettings
from training.spfl.joint import set_up_spfl
from training.spfl.latents import label_file, write_header, write_labels
from training.spfl.learner import SpflSettings
from training.trainer import Trainer

LEVELS = ((4, 3), (2, 2), (1, 1))
CLASSES = (7, 4, 2)
COLOURS = np.array(
    [(20, 30, 40), (220, 40, 30), (40, 200, 60), (30, 60, 220), (230, 220, 60), (200, 90, 210)],
    np.uint8,
)


def labels_of(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``[3, H, W]`` labels that colours tell: which of the mask's classes, and how bright the
    background is; the mask's unknown pixels are unknown."""
    bright = np.digitize(pixels.mean(2), [100, 140])
    fine = np.where(mask > 0, np.minimum(mask, 4) - 1, 4 + bright)
    middle = np.where(mask > 0, fine // 2, 2 + (bright > 1))
    coarse = np.where(mask > 0, 0, 1)
    labels = np.stack([fine, middle, coarse]).astype(np.uint8)
    labels[:, mask == 255] = 255
    return labels


def write_latents(
    folder: Path,
    samples: Sequence[Sample],
    mirrored: bool = False,
    data: DataSettings | None = None,
) -> Path:
    """Pseudo labels of three levels for these pictures. mirrored: wrong ones. data: of the encoder
    that made them."""
    pictures = {}
    for sample in samples:
        pixels, mask = sample.read()
        file = label_file(folder, sample.key)
        file.parent.mkdir(parents=True, exist_ok=True)
        labels = labels_of(pixels, mask)
        write_labels(file, labels[..., ::-1] if mirrored else labels)
        pictures[sample.key] = mask.shape
    made = {"data": settings_to_json(data or DataSettings())}
    write_header(folder, LEVELS, pictures, made)
    return folder


SPFL = replace(
    SMALL,
    method="spfl",
    own=SpflSettings("parts", extra=2, width=16, pixel_step=2),
    episodes=EpisodeSettings(64, (1.0, 0.0, 0.0)),
)


def own(settings: RunSettings[Any] = SPFL, **values: Any) -> RunSettings[Any]:
    """Settings with other fields of SPFL's own."""
    return replace(settings, own=replace(settings.own, **values))


def make_spfl(
    folder: Path,
    samples: Sequence[Sample],
    latents_root: Path | None,
    settings: RunSettings[Any] = SPFL,
    watched: Sequence[Sample] = (),
    workers: int = 0,
) -> Trainer:
    """A trainer on fresh weights; it neither started nor resumed."""
    torch.manual_seed(settings.trainer.seed)
    encoder = build_encoder(settings.encoder.name)
    setup = set_up_spfl(encoder, settings, samples, latents_root)
    provenance = {"pictures": len(samples), **setup.provenance}
    return Trainer(
        folder, setup.learner, settings, samples, watched, provenance, None, workers, setup.extra
    )
