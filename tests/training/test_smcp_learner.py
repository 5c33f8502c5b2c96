"""SMCP's learner: its losses, the watched answer, what the runtime is told, and a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsseg_sdk.methods import get
from fsseg_sdk.methods.settings import settings_from_json
from tests.training.runs import SGD, SMALL, changed, check_resuming
from tests.training.squares import draw_parts
from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint, section
from training.datasets import IGNORE, Sample
from training.encoders import build_encoder
from training.episodes import EpisodeSettings
from training.methods import METHODS
from training.presence import calibrate
from training.prototypes import grid_weights, pool
from training.smcp.head import HeadSettings, load_head
from training.smcp.learner import Smcp
from training.smcp.settings import SmcpSettings
from training.trainer import Trainer
from training.validate import validation_iou

OWN = SmcpSettings(HeadSettings(width=16), multi_class_weight=0.5)
ONE_CLASS = EpisodeSettings(side=64, kinds=(1.0, 0.0, 0.0), several=0.0)
RUN = changed(replace(SMALL, method="smcp", own=OWN, episodes=ONE_CLASS), optimizer={"clip": 0.0})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 8).samples


def make(
    folder: Path, samples: Sequence[Sample], settings: Any = RUN, workers: int = 0, **own: Any
) -> Trainer:
    torch.manual_seed(0)
    settings = replace(settings, own=replace(settings.own, **own))
    encoder = build_encoder("mobilenet_v2")
    setup = METHODS["smcp"].setup(encoder, settings, samples, None)
    return Trainer(folder, setup.learner, settings, samples, samples, workers=workers)


def batch(trainer: Trainer) -> list[Tensor]:
    return next(Batches(StepStream(trainer.shares, 0), 0))


# ---- the loss ----


def expected_losses(learner: Smcp, pixels: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Eq. 1 to 4 as they stand: features upsampled to be pooled, prototypes tiled."""
    size = pixels.shape[2:4]
    features = learner.features(pixels.flatten(0, 1)).unflatten(0, (len(pixels), 2))
    ways, labels = (masks[:, :, n].long() for n in (0, 1))
    logits: dict[str, list[Tensor]] = {"query": [], "support": []}
    for index in range(len(pixels)):
        mask = (ways[index, 0] == 1).float()
        upsampled = F.interpolate(features[index, :1], size, mode="bilinear")[0]
        prototype = (upsampled * mask).sum((1, 2)) / (mask.sum() + 1e-5)
        for name, place in (("support", 0), ("query", 1)):
            logits[name].append(learner.head(features[index, place][None], prototype[None]))

    def entropy(small: Tensor, target: Tensor) -> Tensor:
        large = F.interpolate(small, size, mode="bilinear")
        return F.cross_entropy(large, target, ignore_index=IGNORE)

    classes = [
        entropy(learner.base_classes(features[:, place]), labels[:, place]) for place in (0, 1)
    ]
    return {
        "query": entropy(torch.cat(logits["query"]), ways[:, 1]),
        "support": entropy(torch.cat(logits["support"]), ways[:, 0]),
        "classes": classes[0] + classes[1],
    }


class Colours(torch.nn.Module):
    """An encoder whose features differ from picture to picture: a fresh network's hardly do."""

    mean, std, channels = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 12

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 12, 8, 8)
        torch.nn.init.normal_(self.patches.weight, std=0.5)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.patches(image)
        return found


def test_the_loss_is_that_of_equation_five(samples: Sequence[Sample], tmp_path: Path) -> None:
    trainer = make(tmp_path, samples)
    assert trainer.learner.classes == (1, 2, 3)
    learner = Smcp(Colours(), OWN, trainer.learner.classes)
    for part in (*learner.head.classifier.parts, *learner.base_classes.parts):
        torch.nn.init.normal_(part.weight, std=0.05)
    pixels, masks = batch(trainer)
    assert masks.shape == (2, 2, 2, 64, 64)
    with torch.no_grad():
        loss = float(learner(pixels, masks))
        expected = {k: float(v) for k, v in expected_losses(learner, pixels, masks).items()}
    parts = {name: float(value) for name, value in learner.figures.items()}
    assert parts == pytest.approx(expected, rel=1e-4)
    total = expected["query"] + expected["support"] + 0.5 * expected["classes"]
    assert loss == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("own", "names"),
    [
        ({"multi_class_weight": 0.0}, ["query", "support"]),
        ({"self_prototype": False}, ["query", "classes"]),
        ({"multi_class_weight": 0.0, "self_prototype": False}, ["query"]),
    ],
)
def test_parts_of_the_loss_can_be_left_out(
    samples: Sequence[Sample], tmp_path: Path, own: dict[str, Any], names: list[str]
) -> None:
    """The paper's Table V; what is left is what it was."""
    whole, less = make(tmp_path, samples), make(tmp_path, samples, **own)
    less.learner.load_state_dict(whole.learner.state_dict(), strict=False)
    pixels, masks = batch(whole)
    given = batch(less)
    assert torch.equal(given[0], pixels)
    found = []
    for trainer, shown in ((whole, masks), (less, given[1])):
        trainer.learner.eval()
        with torch.no_grad():
            loss = float(trainer.learner(pixels, shown))
        found.append((loss, {k: float(v) for k, v in trainer.learner.figures.items()}))
    (_, parts), (loss, left) = found
    assert list(left) == names
    assert left == pytest.approx({name: parts[name] for name in names})
    weights = {"query": 1, "support": 1, "classes": 0.5}
    assert loss == pytest.approx(sum(weights[name] * left[name] for name in names))
    assert hasattr(less.learner, "base_classes") is ("classes" in names)


def moved(trainer: Trainer, *given: Tensor) -> set[str]:
    trainer.learner.zero_grad()
    trainer.learner(*given).backward()
    named = trainer.learner.named_parameters()
    return {n for n, p in named if p.grad is not None and float(p.grad.abs().max()) > 0}


def test_everything_learns_from_what_it_should(samples: Sequence[Sample], tmp_path: Path) -> None:
    trainer = make(tmp_path, samples, multi_class_weight=1.0)
    every = {name for name, p in trainer.learner.named_parameters()}
    assert moved(trainer, *batch(trainer)) == every
    # nothing but labels of classes: the head has no share in them
    pixels, masks = batch(trainer)
    masks[:, :, 0] = IGNORE
    found = moved(trainer, pixels, masks)
    assert not any(name.startswith("head.") for name in found)
    assert any(name.startswith("encoder.") for name in found)
    assert any(name.startswith("base_classes.") for name in found)


def test_a_support_that_does_not_show_the_class_teaches_nothing_of_it(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path, samples)
    pixels, masks = batch(trainer)
    masks[:, 0, 0][masks[:, 0, 0] == 1] = 0
    with torch.no_grad():
        loss = float(trainer.learner(pixels, masks))
        masks[:, 1, 0][masks[:, 1, 0] == 1] = IGNORE
        assert float(trainer.learner(pixels, masks)) == pytest.approx(loss)
    masks[:] = IGNORE
    assert float(trainer.learner(pixels, masks).detach()) == 0.0


def test_one_batch_seen_over_and_over_is_learnt(samples: Sequence[Sample], tmp_path: Path) -> None:
    settings = changed(
        RUN,
        schedule={"warmup": 1},
        trainer={"iterations": 1000},
        optimizer={"learning_rate": 2e-3, "clip": 1.0},
    )
    trainer = make(tmp_path, samples, settings)
    given = batch(trainer)
    losses = []
    for _ in range(15):
        trainer.step(trainer.learner, *given)
        losses.append({name: float(v) for name, v in trainer.learner.figures.items()})
    for name in ("query", "support", "classes"):
        assert losses[-1][name] < 0.8 * losses[0][name], name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_the_same_loss(
    samples: Sequence[Sample], tmp_path: Path, precision: str
) -> None:
    trainer = make(tmp_path, samples)
    trainer.learner.eval()
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    given = batch(trainer)
    with torch.no_grad():
        expected = float(trainer.learner(*given))
        with torch.autocast("cpu", kind):
            found = trainer.learner(*given)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=0.03)


# ---- the watched answer ----


@torch.no_grad()
def two_passes(learner: Smcp, asked: Tensor, shown: Tensor, size: tuple[int, int]) -> Tensor:
    """Section III-G by its words, for one class: ``[2, h, w]``."""
    first = learner.head(asked, shown)
    mask = F.interpolate(first, size, mode="bilinear").argmax(1)[0] == 1
    if not mask.any():
        return first[0]
    upsampled = F.interpolate(asked, size, mode="bilinear")[0]
    pseudo = upsampled[:, mask].mean(1)
    found: Tensor = learner.head(asked, (shown + pseudo) / 2)[0]
    return found


def test_the_answer_is_that_of_the_second_pass() -> None:
    torch.manual_seed(2)
    learner = Smcp(build_encoder("mobilenet_v2"), OWN, (1,)).eval()
    channels = learner.encoder.channels
    for part in learner.head.classifier.parts:
        torch.nn.init.normal_(part.weight, std=0.1)
    asked, shown = torch.randn(1, channels, 7, 9), torch.randn(1, 3, channels)
    scene = torch.zeros(1, 1, channels)
    with torch.no_grad():
        # the third class is found nowhere: its first answer stands
        bias = learner.head.classifier.parts[0].bias
        for shift, empty in ((0.0, False), (1e3, True)):
            bias.copy_(torch.tensor([shift, 0.0]))
            found = learner.answer(asked, scene, shown, (56, 72))
            assert found.shape == (1, 4, 7, 9) and float(found[0, 0].abs().max()) == 0
            for way in range(3):
                expected = two_passes(learner, asked, shown[:, way], (56, 72))
                scores = expected[1] - expected[0]
                torch.testing.assert_close(found[0, 1 + way], scores, rtol=1e-4, atol=1e-4)
                once = learner.head(asked, shown[:, way])[0]
                same = torch.allclose(scores, once[1] - once[0], atol=1e-3)
                assert same is empty


def test_the_watched_figure_is_of_that_answer(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(tmp_path, samples).learner
    calls = []

    def all_of_it(asked: Tensor, scene: Tensor, shown: Tensor, size: tuple[int, int]) -> Tensor:
        calls.append(size)
        logits = torch.zeros(1, 2, *asked.shape[-2:])
        logits[:, 1] = 1
        return logits

    monkeypatch.setattr(learner, "answer", all_of_it)
    figures = validation_iou(learner, samples, 64, 4)
    assert list(figures) == ["parts"] and 0 < figures["parts"] < 30
    assert calls == [(64, 64)] * 4


# ---- what the runtime is told, and a run ----


def test_the_runtime_takes_what_was_trained(samples: Sequence[Sample], tmp_path: Path) -> None:
    trainer = make(tmp_path, samples, fusion="shots")
    trainer.save()
    tensors, header = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"encoder", "head"}
    told = header["method"]
    assert told["name"] == "smcp"
    settings = settings_from_json(get("smcp").settings_type, told["settings"], "settings")
    assert (settings.passes, settings.guide, settings.fusion) == (2, "fused", "shots")
    settings_from_json(HeadSettings, header["settings"]["smcp"]["head"], "head")
    head = load_head(tensors)
    own = trainer.average.head.state_dict()
    assert all(torch.equal(own[name], t) for name, t in head.state_dict().items())


def test_presence_is_fitted_to_the_match_of_the_prototypes(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    make(tmp_path, samples).save()
    file = tmp_path / "checkpoint.safetensors"
    assert "AUROC" in calibrate(file, samples, 64, 3, True)
    method = load_checkpoint(file)[1]["method"]
    assert method["name"] == "smcp"
    settings = settings_from_json(get("smcp").settings_type, method["settings"], "settings")
    assert settings.panet.presence is not None
    assert (settings.panet.background_parts, settings.panet.refine_weak) == (3, True)


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(replace(RUN, optimizer=SGD), trainer={"iterations": 4})

    def made(name: str) -> Trainer:
        folder = tmp_path / ("cut" if name == "again" else name)
        return make(folder, samples, settings, workers=int(name == "again"))

    check_resuming(made, tmp_path, monkeypatch)
    state = load_checkpoint(tmp_path / "cut" / "resume.safetensors")[0]
    assert {n.split(".")[0] for n in section(state, "learner")} == {
        "encoder",
        "head",
        "base_classes",
    }


def test_a_frozen_encoder_leaves_the_head_to_learn(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    settings = changed(
        RUN,
        encoder={"freeze": ("features",)},
        optimizer={"pretrained_learning_rate": 1e-5},
    )
    trainer = make(tmp_path, samples, settings, multi_class_weight=0.0)
    before = {n: p.detach().clone() for n, p in trainer.learner.named_parameters()}
    trainer.step(trainer.learner, *batch(trainer))
    for name, parameter in trainer.learner.named_parameters():
        assert torch.equal(parameter, before[name]) is name.startswith("encoder."), name
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [
        SMALL.optimizer.learning_rate / 2
    ]


def test_what_does_not_fit_is_refused(samples: Sequence[Sample], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"several: expected episodes of one class, .*Set it to 0"):
        make(tmp_path, samples, changed(RUN, episodes={"several": 0.4}))
    with pytest.raises(ValueError, match="multi_class_weight: expected classes to tell apart"):
        Smcp(build_encoder("mobilenet_v2"), OWN)
    with pytest.raises(ValueError, match="multi_class_weight: expected 0 or more, got -1"):
        SmcpSettings(multi_class_weight=-1.0)
    with pytest.raises(ValueError, match="multi_class_weight: expected 0 or more, got nan"):
        SmcpSettings(multi_class_weight=float("nan"))


def test_prototypes_are_pooled_where_the_mask_is_one(samples: Sequence[Sample]) -> None:
    learner = Smcp(build_encoder("mobilenet_v2"), replace(OWN, multi_class_weight=0.0))
    features = torch.randn(2, 5, 4, 4)
    masks = torch.full((2, 32, 32), IGNORE, dtype=torch.uint8)
    masks[0, :8, :8] = 1
    masks[1, 8:, :] = 0
    found = learner._prototypes(features, masks)
    expected = pool(features[:1], grid_weights((masks[:1] == 1).float(), (4, 4))[:, None])[0]
    torch.testing.assert_close(found[:1], expected)
    assert float(found[1].abs().max()) == 0
