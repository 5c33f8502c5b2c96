"""Small runs for the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import load_checkpoint
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


def cut_off(trainer: Trainer, name: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until `after` steps are done and the next call of `name` is interrupted."""
    whole = getattr(trainer, name)

    def call(*arguments: Any) -> Any:
        if trainer.iteration == after:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(trainer, name, call)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def check_resuming(
    made: Callable[[str], Trainer],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, int] = ("step", 3),
) -> Trainer:
    """A run that is cut off at `place` and resumed has the bits of an unbroken one. The unbroken
    trainer.

    made: a new trainer of the run in ``folder / name``; names are "whole", "cut" and, for the one
        that resumes in the folder "cut", "again".
    """
    whole, broken = made("whole"), made("cut")
    whole.start()
    whole.run()
    broken.start()
    cut_off(broken, *place, monkeypatch)
    resumed = made("again")
    for parameter in resumed.learner.parameters():
        torch.nn.init.zeros_(parameter)  # nothing of the start matters
    resumed.resume()
    assert resumed.iteration == 2  # the last one saved; what came after is done again
    resumed.run()
    for name in ("checkpoint.safetensors", "resume.safetensors"):
        expected, header = load_checkpoint(folder / "whole" / name)
        got, other = load_checkpoint(folder / "cut" / name)
        assert header == other and expected.keys() == got.keys()
        assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())
    return whole


SGD = OptimizerSettings(name="sgd", learning_rate=1e-2)
