"""Schedules, learning rates by group."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import SCENES, changed, make_run
from training.encoders import build_encoder
from training.optimization import freeze, make_optimizer, rate
from training.panet import Panet, PanetSettings
from training.settings import OptimizerSettings, ScheduleSettings


def rates(settings: ScheduleSettings, iterations: int) -> list[float]:
    return [rate(settings, i, iterations) for i in range(iterations + 1)]


def test_cosine_warms_up_and_falls_to_its_floor() -> None:
    factors = rates(ScheduleSettings("cosine", warmup=4, floor=0.02), 12)
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[8] == pytest.approx(0.51)
    assert factors[12] == pytest.approx(0.02)
    assert sorted(factors[4:], reverse=True) == factors[4:]


def test_poly_step_and_constant() -> None:
    poly = rates(ScheduleSettings("poly", warmup=0, power=0.9), 10)
    assert poly[0] == 1 and poly[10] == 0
    assert poly[5] == pytest.approx(0.5**0.9)
    step = rates(ScheduleSettings("step", warmup=0, milestones=(1 / 3, 2 / 3), factor=0.1), 6)
    assert step == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert rates(ScheduleSettings("constant", warmup=0), 3) == [1, 1, 1, 1]


def test_the_pretrained_part_has_its_own_learning_rate() -> None:
    learner = Panet(build_encoder("vit_tiny_detail"), PanetSettings())
    settings = OptimizerSettings(learning_rate=1e-3, pretrained_learning_rate=5e-5)
    groups = make_optimizer(learner, settings).param_groups
    assert [group["lr"] for group in groups] == [5e-5, 1e-3]
    vit = {id(p) for p in learner.encoder.vit.parameters()}
    assert {id(p) for p in groups[0]["params"]} == vit
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))


def test_what_begins_as_noise_is_not_pretrained() -> None:
    learner = Panet(build_encoder("vgg16_smcp"), PanetSettings())
    settings = OptimizerSettings(learning_rate=1e-3, pretrained_learning_rate=5e-5)
    pretrained, new = make_optimizer(learner, settings).param_groups
    assert len(new["params"]) == 4  # weights and biases of fc6 and fc7
    assert new["lr"] == 1e-3 and pretrained["lr"] == 5e-5
    with pytest.raises(ValueError, match="got one kind alone"):
        make_optimizer(Panet(build_encoder("mobilenet_v2"), PanetSettings()), settings)


def test_frozen_norms_stand_still() -> None:
    encoder = build_encoder("resnet18", {"batch_norm": "trained"})
    freeze(encoder, ("bn1",))
    encoder.train()
    before = encoder.bn1.running_mean.clone(), encoder.layer1[0].bn1.running_mean.clone()
    encoder(torch.rand(1, 3, 64, 64))
    assert torch.equal(encoder.bn1.running_mean, before[0])
    assert not torch.equal(encoder.layer1[0].bn1.running_mean, before[1])


def test_something_must_be_left_to_train() -> None:
    encoder = build_encoder("mobilenet_v2")
    freeze(encoder, ("features",))
    with pytest.raises(ValueError, match="everything frozen"):
        make_optimizer(Panet(encoder, PanetSettings()), OptimizerSettings())


def test_a_step_takes_the_scheduled_rate(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.training.runs import SMALL
    from tests.training.test_trainer import one_episode

    settings = changed(
        replace(SMALL, episodes=SCENES),
        optimizer={"learning_rate": 1e-3},
        schedule={"warmup": 4},
    )
    trainer = make_run(tmp_path, (), settings)
    trainer.iteration = 1
    trainer.step(trainer.learner, *one_episode(trainer))
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-3 * 0.5]
