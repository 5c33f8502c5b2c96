"""OSLSM's learner: hash, conditioner, likelihood, and a run that is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.runs import SGD, SMALL, changed, check_resuming
from tests.training.squares import draw_parts
from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint
from training.datasets import IGNORE, Sample
from training.encoders import build_encoder
from training.encoders.weights import StateDictError
from training.episodes import EpisodeSettings
from training.learner import Example
from training.methods import METHODS
from training.optimization import make_optimizer
from training.oslsm.conditioner import (
    Classifier,
    Conditioner,
    Pooled,
    Standard,
    load_conditioner,
    masked,
)
from training.oslsm.hash import Hash
from training.oslsm.learner import Oslsm, classified
from training.oslsm.settings import OslsmSettings
from training.panet import PanetSettings
from training.run import some_images
from training.trainer import Trainer
from training.validate import validation_iou

OWN = OslsmSettings(side=32, hashed=64)
ONE_CLASS = EpisodeSettings(side=64, kinds=(1.0, 0.0, 0.0), several=0.0)
RUN = changed(
    replace(SMALL, method="oslsm", own=OWN, episodes=ONE_CLASS),
    optimizer={"clip": 0.0},
    trainer={"iterations": 4, "watch": 2},
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 8).samples


def make(folder: Path, samples: Sequence[Sample], settings: Any = RUN, **own: Any) -> Trainer:
    torch.manual_seed(0)
    settings = replace(settings, own=replace(settings.own, **own))
    encoder = build_encoder(settings.encoder.name, settings.encoder.settings)
    setup = METHODS["oslsm"].setup(encoder, settings, samples, None)
    setup.learner.start(None, lambda: some_images(encoder, samples, settings.episodes, 0, count=4))
    return Trainer(folder, setup.learner, settings, samples, samples)


def batch(trainer: Trainer) -> list[Tensor]:
    return next(Batches(StepStream(trainer.shares, 0), 0))


@pytest.fixture(scope="module")
def trainer(samples: Sequence[Sample], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """For tests that only look at its batches."""
    return make(tmp_path_factory.mktemp("trainer"), samples)


class Colours(torch.nn.Module):
    """An encoder whose features are the pixels' colours, averaged over 8 x 8."""

    mean, std, channels, multiple = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 3, 8

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * F.avg_pool2d(image, 8)


# ---- the hash ----


def test_the_hash_is_a_product_with_one_sign_in_each_row() -> None:
    hashing = Hash(10, 25, seed=3)
    z = torch.randn(2, 10)
    dense = torch.zeros(25, 10)
    for row in range(25):
        dense[row, hashing.index[row]] = hashing.sign[row]
    assert torch.equal(hashing(z), z @ dense.T)
    assert set(hashing.sign.tolist()) == {-1.0, 1.0} and len(hashing.index.unique()) > 5
    assert sorted(hashing.state_dict()) == ["index", "sign"]
    same, other = Hash(10, 25, seed=3), Hash(10, 25, seed=4)
    assert torch.equal(same.index, hashing.index) and torch.equal(same.sign, hashing.sign)
    assert not torch.equal(other.index, hashing.index)
    # numbers whose places are shared come back as their mean
    theta = torch.randn(1, 25)
    back = theta @ hashing.mean_transpose().T
    for place in range(10):
        mine = hashing.index == place
        expected = (theta[0] * hashing.sign)[mine].mean() if mine.any() else torch.tensor(0.0)
        assert back[0, place] == pytest.approx(float(expected), abs=1e-6)


# ---- the conditioner ----


def test_what_is_not_the_class_has_the_mean_colour() -> None:
    pixels = torch.randint(256, (1, 4, 4, 3), dtype=torch.uint8)
    shown = torch.zeros(1, 4, 4, dtype=torch.bool)
    shown[0, 1, 2] = True
    found = masked(pixels, shown, (0.485, 0.456, 0.406))
    assert found[0, 1, 2].tolist() == pixels[0, 1, 2].tolist()
    assert found[~shown].unique(dim=0).tolist() == [[124, 116, 104]]
    assert found.dtype == torch.uint8


def test_the_visible_cells_alone_are_pooled() -> None:
    learner = Oslsm(Colours(), OWN)
    head = learner.conditioner.head
    assert isinstance(head, Pooled)
    pixels = torch.randint(140, 256, (1, 32, 32, 3), dtype=torch.uint8)
    shown = torch.zeros(1, 32, 32, dtype=torch.bool)
    shown[:, 8:24, 16:24] = (
        True  # two cells of 8 x 8, and what of it bilinear weights give to others
    )
    image = learner.normalised(masked(pixels, shown, learner.encoder.mean))
    features = learner.encoder(image)
    found = head.pooled(features, image)
    whole = Pooled(Colours(), replace(OWN, pooling="all")).pooled(features, image)
    assert torch.allclose(whole, features.mean((2, 3)))
    inside = features[:, :, 1:3, 2].mean(2)
    assert (found / inside).min() > 0.6 and (whole / inside).max() < 0.2


def test_an_object_of_the_mean_colour_is_pooled_over_all_cells() -> None:
    """Nothing tells it from what is hidden. The other picture of the batch is as it was alone."""
    head = Pooled(Colours(), OWN)
    seen = torch.zeros(3, 32, 32)
    seen[:, 8:16, 8:16] = 1.5
    hidden = torch.full_like(seen, 0.005)  # what 8 bits leave of the mean colour
    image = torch.stack([hidden, seen])
    features = torch.randn(2, 3, 4, 4)
    found = head.pooled(features, image)
    assert torch.allclose(found[0], features[0].mean((1, 2)))
    assert torch.allclose(found[1:], head.pooled(features[1:], image[1:]))
    assert not torch.allclose(found[1], features[1].mean((1, 2)), atol=0.01)


def test_the_parameters_are_for_the_features_as_they_are() -> None:
    torch.manual_seed(1)
    standard, features = Standard(6), 3 * torch.randn(2, 6, 5, 5) + torch.arange(6.0)[:, None, None]
    standard.update(features)
    plain = (features - features.mean((0, 2, 3))[:, None, None]) / features.transpose(0, 1).flatten(
        1
    ).std(1, correction=0)[:, None, None]
    theta = torch.randn(2, 7)
    expected = torch.einsum("bchw,bc->bhw", plain, theta[:, :-1]) + theta[:, -1, None, None]
    found = classified(features, standard.fold(theta))
    assert not found[:, 0].any()
    assert torch.allclose(found[:, 1], expected, atol=2e-3)
    for _ in range(400):  # it follows, slowly
        standard.update(features + 1)
    assert torch.allclose(standard.mean, features.mean((0, 2, 3)) + 1, atol=2e-2)


def test_it_begins_with_the_classifier_of_a_prototype() -> None:
    """As far as the hash can hold it: here every weight has a number to itself."""
    torch.manual_seed(0)
    conditioner = Conditioner(Colours(), replace(OWN, hashed=5000, sharpness=6.0, bias=-1.5))
    assert len(conditioner.hash.index.unique()) == 4
    image = torch.randn(2, 3, 32, 32)
    head = conditioner.head
    assert isinstance(head, Pooled)
    for standard in (head.standard, conditioner.standard):
        standard.update(2 * torch.randn(1, 3, 9, 9) + 0.5)
    prototype = head.standard(head.pooled(head.trunk(image), image))
    expected = conditioner.standard.fold(F.pad(prototype * 6.0 / 3, (0, 1), value=-1.5))
    assert torch.allclose(conditioner(image), expected, atol=1e-5)
    noise = Conditioner(Colours(), replace(OWN, start="noise"))
    assert noise.head.last.weight.count_nonzero() == noise.head.last.weight.numel()
    # any size of picture is taken
    assert conditioner(F.interpolate(image, (64, 64))).shape == (2, 4)


# ---- the loss ----


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_the_mean_log_likelihood_of_the_query(
    trainer: Trainer, both_ways: bool, balanced: bool
) -> None:
    torch.manual_seed(0)
    own = replace(OWN, both_ways=both_ways, balanced=balanced, standardise=False, start="noise")
    learner = Oslsm(Colours(), own)
    pixels, masks = batch(trainer)
    assert masks.shape == (2, 2, 64, 64) and bool((masks == IGNORE).any())
    pairs = [(b, s) for b in range(2) for s in ((0, 1) if both_ways else (0,))]
    logs, sides = [], list[Tensor]()
    for b, s in pairs:
        picture = pixels[b, s].clone()
        colour = torch.tensor([round(255 * v) for v in learner.encoder.mean], dtype=torch.uint8)
        picture[masks[b, s] != 1] = colour
        theta = learner.conditioner(learner.normalised(picture[None]))[0]
        query = learner.features(pixels[b, 1 - s][None])[0]
        score = (query * theta[:-1, None, None]).sum(0) + theta[-1]
        large = F.interpolate(score[None, None], (64, 64), mode="bilinear")[0, 0]
        probability, truth = torch.sigmoid(large.double()), masks[b, 1 - s]
        logs += [probability[truth == 1].log(), (1 - probability)[truth == 0].log()]
        sides += [-part.mean() if len(part) else torch.tensor(0.0) for part in logs[-2:]]
    expected = torch.stack(sides).mean() if balanced else -torch.cat(logs).mean()
    found = learner.eval()(pixels, masks).detach()
    assert float(found) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_support_without_the_class_teaches_nothing(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path, samples, both_ways=False)
    pixels, masks = batch(trainer)
    masks[:, 0] = 0
    for own in (trainer.learner, Oslsm(Colours(), replace(OWN, both_ways=False, balanced=True))):
        loss = own(pixels, masks)
        loss.backward()
        assert float(loss.detach()) == 0
        assert all(p.grad is None or not p.grad.any() for p in own.parameters())


def test_the_conditioner_learns_at_a_tenth(trainer: Trainer) -> None:
    learner: Any = trainer.learner
    groups = make_optimizer(learner, replace(SGD, learning_rate=1e-2)).param_groups
    rates = {id(p): group["base"] for group in groups for p in group["params"]}
    of = {name: rates[id(p)] for name, p in learner.named_parameters()}
    trunk = {n: r for n, r in of.items() if n.startswith("conditioner.head.trunk.")}
    assert len(trunk) > 20 and set(trunk.values()) == {1e-2 * 0.1}
    assert {r for n, r in of.items() if n not in trunk} == {1e-2}
    assert of["conditioner.head.last.weight"] == 1e-2


# ---- runs ----


def test_a_run_that_was_cut_off_has_the_bits_of_an_unbroken_one(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> Trainer:
        return make(tmp_path / ("cut" if name == "again" else name), samples)

    whole: Any = check_resuming(made, tmp_path, monkeypatch)
    # the checkpoint holds the conditioner, its draw with it, and the twin is the trained one
    tensors, header = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert header["method"] == {"name": "oslsm", "settings": {}}
    assert torch.equal(tensors["conditioner.hash.index"], whole.learner.conditioner.hash.index)
    twin, image = (
        load_conditioner(tmp_path / "whole" / "checkpoint.safetensors"),
        torch.randn(1, 3, 64, 64),
    )
    trained: Any = whole.average
    assert torch.equal(twin(image), trained.conditioner.eval()(image))
    assert not twin.training and twin(image).shape == (1, trained.encoder.channels + 1)


def test_a_run_learns(trainer: Trainer) -> None:
    """Squares are told by their colour alone."""
    torch.manual_seed(0)
    learner = Oslsm(Colours(), replace(OWN, standardise=True, start="noise"))
    optimizer = torch.optim.Adam(learner.parameters(), 0.05)
    losses = []
    for _, (pixels, masks) in zip(range(60), endless(trainer), strict=False):
        loss = learner(pixels, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def endless(trainer: Trainer) -> Any:
    batches = Batches(StepStream(trainer.shares, 0), 0)
    while True:
        yield next(batches)


def test_the_watched_figure_is_of_the_methods_own_answer(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner: Any = Oslsm(Colours(), OWN)
    seen = []

    def respond(asked: Tensor, example: Example) -> Tensor:
        seen.append(example)
        picture = example.pixels.clone()
        picture[0][example.masks[0, 1] == 0] = torch.tensor([128, 102, 76], dtype=torch.uint8)
        expected = classified(asked, learner.conditioner(learner.normalised(picture)))
        found = Oslsm.respond(learner, asked, example)
        assert torch.equal(found, expected)
        return found

    monkeypatch.setattr(learner, "respond", respond)
    assert 0 <= validation_iou(learner, samples, 64, 3)["parts"] <= 100
    assert len(seen) == 3 and seen[0].masks.shape == (1, 2, 64, 64)


# ---- VGG-16's own classifier, and what is refused ----


@pytest.mark.parametrize(
    ("parts", "own", "message"),
    [
        ({"episodes": {"several": 0.5}}, {}, "several: expected episodes of one class"),
        ({"encoder": {"name": "vit_tiny_keys"}}, {"side": 40}, "oslsm.side: expected a multiple"),
        (
            {},
            {"head": "classifier", "side": 224, "hashed": 1000},
            "oslsm.head: 'classifier' expects an encoder that is a VGG-16",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(
    samples: Sequence[Sample],
    tmp_path: Path,
    parts: dict[str, Any],
    own: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, samples, changed(RUN, **parts), **own)
    wrongs: list[dict[str, Any]] = [{"sharpness": 0.0}, {"hash_seed": -1}]
    wrongs += [{"head": "classifier", "side": 64}, {"bias": float("nan")}]
    wrongs += [{name: float("inf")} for name in ("sharpness", "bias", "conditioner_rate")]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OslsmSettings(**wrong)


def test_checkpoints_of_other_methods_have_no_conditioner(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make(tmp_path, samples)
    trainer.settings = replace(RUN, method="panet", own=PanetSettings())
    trainer.save()
    with pytest.raises(ValueError, match="expected a checkpoint of method oslsm"):
        load_conditioner(tmp_path / "checkpoint.safetensors")


def test_vgg_runs_to_the_outputs_of_its_classifier() -> None:
    torch.manual_seed(0)
    head = Classifier().eval()
    state = {f"classifier.6.{kind}": t.clone() for kind, t in head.last.state_dict().items()}
    for name, tensor in head.trunk.state_dict().items():
        matrix = name.startswith("classifier") and tensor.dim() == 4
        state[name] = tensor.flatten(1) if matrix else tensor
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        x = head.trunk.features(image).flatten(1)
        x = F.relu(F.linear(x, state["classifier.0.weight"], state["classifier.0.bias"]))
        x = F.relu(F.linear(x, state["classifier.3.weight"], state["classifier.3.bias"]))
        expected = F.linear(x, state["classifier.6.weight"], state["classifier.6.bias"])
        assert torch.allclose(head(image), expected, atol=1e-4)
        torch.nn.init.zeros_(head.last.weight)
        head.load(state)
        assert torch.allclose(head(image), expected, atol=1e-4)
    del state["classifier.6.weight"]
    with pytest.raises(StateDictError, match=r"classifier\.6 with 1,000 outputs"):
        head.load(state)
