"""Small runs for the tests of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.datasets import Sample
from training.encoders import build_encoder
from training.episodes import EpisodeSettings
from training.panet import Panet, PanetSettings
from training.settings import (
    EncoderChoice,
    OptimizerSettings,
    RunSettings,
    ScheduleSettings,
    TrainerSettings,
)
from training.trainer import Trainer

SMALL = RunSettings(
    "panet",
    PanetSettings(),
    encoder=EncoderChoice("mobilenet_v2"),
    episodes=EpisodeSettings(side=64, kinds=(1.0, 1.0, 1.0)),
    schedule=ScheduleSettings(warmup=2),
    trainer=TrainerSettings(iterations=6, batch=2, save_every=2, precision="fp32", watch=9),
)
SCENES = EpisodeSettings(side=64, kinds=(0.0, 0.0, 1.0), several=0.0)


def changed(settings: RunSettings[Any] = SMALL, **parts: dict[str, Any]) -> RunSettings[Any]:
    """Settings with other fields in some of their parts: ``changed(trainer={"seed": 1})``."""
    made = {name: replace(getattr(settings, name), **values) for name, values in parts.items()}
    return replace(settings, **made)


def make_run(
    folder: Path,
    samples: Sequence[Sample],
    settings: RunSettings[Any] = SMALL,
    watched: Sequence[Sample] = (),
    workers: int = 0,
) -> Trainer:
    """A trainer on fresh weights; it neither started nor resumed."""
    torch.manual_seed(settings.trainer.seed)
    learner = Panet(build_encoder(settings.encoder.name), settings.own)
    pictures = {"pictures": len(samples)}
    return Trainer(folder, learner, settings, samples, watched, pictures, None, workers)


SGD = OptimizerSettings(name="sgd", learning_rate=1e-2)
