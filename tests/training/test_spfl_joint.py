"""Joint training of SPFL: what is learnt, what is kept, and that a run is one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.latents import CLASSES, make_spfl, own, write_latents
from tests.training.runs import changed, make_run
from tests.training.squares import draw_parts
from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint
from training.datasets import Sample
from training.encoders import build_encoder
from training.encoders.base import Encoder
from training.panet import PanetSettings
from training.spfl.decoders import Decoder, at_pixels, pseudo_loss
from training.spfl.learner import Spfl
from training.trainer import Trainer

NONE = (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 6).samples


@pytest.fixture(scope="module")
def root(samples: Sequence[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The latents folder; `parts` in it has labels of all pictures."""
    folder = tmp_path_factory.mktemp("latents")
    write_latents(folder / "parts", samples)
    return folder


# ---- decoders ----


def test_a_decoder_is_two_wide_convolutions_and_a_narrow_one() -> None:
    decoder = Decoder(12, 8, 5)
    assert decoder(torch.zeros(2, 12, 7, 9)).shape == (2, 5, 7, 9)
    names = [type(layer).__name__ for layer in decoder]
    assert names == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d"]
    sizes = [layer.kernel_size for layer in decoder if isinstance(layer, torch.nn.Conv2d)]
    assert sizes == [(3, 3), (3, 3), (1, 1)]
    count = sum(p.numel() for p in decoder.parameters())
    assert count == 12 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 8 * 5 + 5


def test_logits_are_upsampled_bilinearly_at_the_pixels_that_count() -> None:
    logits = torch.randn(2, 3, 5, 7)
    whole = F.interpolate(logits, (40, 50), mode="bilinear", align_corners=False)
    torch.testing.assert_close(at_pixels(logits, (40, 50)), whole)
    torch.testing.assert_close(at_pixels(logits, (40, 50), 4), whole[..., 2::4, 2::4])


def test_the_loss_is_a_mean_over_pixels_with_a_label() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 16, 16), dtype=torch.uint8)
    labels[0, :9] = 255
    whole = F.interpolate(logits, (16, 16), mode="bilinear", align_corners=False)
    chosen = (slice(None), slice(1, None, 3), slice(1, None, 3))
    for step, place in ((1, slice(None)), (3, chosen)):
        got = pseudo_loss(logits, labels, step)
        upsampled = whole if step == 1 else whole[..., 1::3, 1::3]
        expected = F.cross_entropy(upsampled, labels[place].long(), ignore_index=255)
        torch.testing.assert_close(got, expected)
    nothing = pseudo_loss(logits, torch.full_like(labels, 255))
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert float(nothing.detach()) == 0 and not gradient.any()


@pytest.mark.parametrize(
    ("name", "encoder", "printed"),
    [("resnet50_deep", 8_667_072, "9.0"), ("resnet101_deep", 27_659_200, "28.0")],
)
def test_the_parameters_are_those_of_the_paper(name: str, encoder: int, printed: str) -> None:
    """Table I, in millions: the encoder, and a classifier of 1,024 - 300 - 2 that is fitted online.
    Decoders are not counted; a single one of 32 channels would already print another number."""
    with torch.device("meta"):
        built = build_encoder(name)
        classifier = torch.nn.Sequential(torch.nn.Linear(1024, 300), torch.nn.Linear(300, 2))
        decoder = Decoder(1024, 32, 100)
    counts = [sum(p.numel() for p in part.parameters()) for part in (built, classifier, decoder)]
    assert counts[0] == encoder
    assert counts[1] == 1024 * 300 + 300 + 300 * 2 + 2
    assert f"{(counts[0] + counts[1]) / 1e6:.1f}" == printed
    assert f"{sum(counts) / 1e6:.1f}" != printed
    assert not built.layer3[-1].last_relu and not hasattr(built, "layer4")


# ---- the loss ----


def batch(trainer: Trainer) -> list[torch.Tensor]:
    return next(Batches(StepStream(trainer.shares, 0), 0))


def test_the_loss_is_the_weighted_sum_of_pairs_and_levels(
    samples: Sequence[Sample], root: Path, tmp_path: Path
) -> None:
    trainer = make_spfl(tmp_path, samples, root, own(gamma=(0.5, 0.0, 2.0)))
    learner = trainer.learner
    assert isinstance(learner, Spfl)
    assert list(learner.decoders) == ["0", "2"]  # nothing is built for a level of weight 0
    assert [learner.decoders[n][-1].out_channels for n in "02"] == [CLASSES[0], CLASSES[2]]
    loss = learner(*batch(trainer))
    parts = learner.figures
    assert list(parts) == ["pairs", "level1", "level3"]
    torch.testing.assert_close(
        loss.detach(), parts["pairs"] + 0.5 * parts["level1"] + 2 * parts["level3"]
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in learner.decoders.parameters())


def test_without_levels_it_is_panet_bit_for_bit(samples: Sequence[Sample], tmp_path: Path) -> None:
    panet = PanetSettings(scale=10.0, dice_weight=0.3)
    settings = own(gamma=NONE, latents=None, panet=panet)
    joint = make_spfl(tmp_path / "spfl", samples, None, settings)
    plain = make_run(tmp_path / "panet", samples, replace(settings, method="panet", own=panet))
    assert len(joint.shares) == 1
    for trainer in (joint, plain):
        trainer.start()
        trainer.run()
    one, other = (load_checkpoint(t.folder / "checkpoint.safetensors")[0] for t in (joint, plain))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())
    rows = [json.loads(line) for line in (joint.folder / "log.jsonl").open()]
    assert all(row["losses"] == {"pairs": row["loss"]} for row in rows)


@pytest.mark.parametrize("name", ["mobilenet_v2", "vit_tiny_keys", "resnet18"])
def test_pseudo_labels_are_learnt(
    samples: Sequence[Sample], root: Path, tmp_path: Path, name: str
) -> None:
    """One batch over and over: the losses fall, and labels are found that were not."""
    settings = changed(
        own(gamma=(1.0, 1.0, 1.0), width=32, pixel_step=4),
        encoder={"name": name},
        schedule={"kind": "constant", "warmup": 0},
        optimizer={"learning_rate": 1e-3},
    )
    trainer = make_spfl(tmp_path, samples, root, settings)
    learner = trainer.learner
    assert isinstance(learner, Spfl)
    learner.train()
    assert isinstance(learner.encoder, Encoder)
    assert not any(norm.training for norm in learner.encoder.norms())
    assert all(m.training for m in learner.decoders.modules())
    still = [norm.running_mean.clone() for norm in learner.encoder.norms()]
    given = batch(trainer)

    def accuracy() -> list[float]:
        with torch.no_grad():
            features = learner.features(given[2].flatten(0, 1))
            labels = given[3].flatten(0, 1).long()
            values = []
            for level in range(3):
                logits = at_pixels(learner.decoders[str(level)](features), (64, 64))
                known = labels[:, level] != 255
                values.append(float((logits.argmax(1) == labels[:, level])[known].float().mean()))
        return values

    before, first = accuracy(), trainer.step(learner, *given)
    steps = 10
    losses = [first] + [trainer.step(learner, *given) for _ in range(steps)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(new > old for new, old in zip(accuracy(), before, strict=True))
    assert sum(accuracy()) > sum(before) + 0.5
    assert all(
        torch.equal(norm.running_mean, mean)
        for norm, mean in zip(learner.encoder.norms(), still, strict=True)
    )
    assert learner.decoders["0"][1].running_mean.any()
