"""Training runs of a few iterations: they learn, can be interrupted, and keep to what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.training.conftest import WriteSet, row
from training.__main__ import main
from training.checkpoint import load_checkpoint
from training.datasets import Dataset, Sample
from training.encoders import build_encoder
from training.episodes import EpisodeSettings
from training.losses import segmentation_loss
from training.panet import PanetRun, PanetSettings, episode_loss, parameter_groups
from training.torch_graph import trained_encoder
from training.validate import fixed_episodes, validation_iou

SETTINGS = PanetSettings(
    encoder="mobilenet_v2",
    iterations=6,
    pairs=2,
    save_every=2,
    warmup=2,
    bfloat16=False,
    episodes=EpisodeSettings(side=64, kinds=(1.0, 1.0, 1.0)),
)


@pytest.fixture(scope="module")
def samples(drawn: Path) -> tuple[Sample, ...]:
    return Dataset.open(drawn).samples


def interrupt(run: PanetRun, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until `after` steps are done and the next one is cut off."""
    whole = run.step

    def step(pixels: torch.Tensor, masks: torch.Tensor) -> float:
        if run.iteration == after:
            raise KeyboardInterrupt
        return whole(pixels, masks)

    monkeypatch.setattr(run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        run.run()


@pytest.mark.parametrize(
    ("encoder", "workers"), [("mobilenet_v2", 0), ("mobilenet_v2", 2), ("vit_tiny_detail", 0)]
)
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    samples: tuple[Sample, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    workers: int,
) -> None:
    settings = dataclasses.replace(SETTINGS, encoder=encoder)
    PanetRun(tmp_path / "whole", samples, settings, workers=0).run()
    interrupt(PanetRun(tmp_path / "cut", samples, settings, workers=workers), 3, monkeypatch)
    resumed = PanetRun(tmp_path / "cut", samples, settings, resume=True, workers=workers)
    assert resumed.iteration == 2  # the last one saved; the third is done again
    resumed.run()
    for name in ("checkpoint.safetensors", "resume.safetensors"):
        expected, header = load_checkpoint(tmp_path / "whole" / name)
        got, other = load_checkpoint(tmp_path / "cut" / name)
        assert header == other
        assert expected.keys() == got.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(got[key], tensor, rtol=0, atol=1e-6, msg=key)


def test_resuming_with_other_settings_or_pictures_is_refused(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    run = PanetRun(tmp_path, samples, dataclasses.replace(SETTINGS, iterations=2))
    run.run()
    with pytest.raises(ValueError, match=r"other settings.*'iterations': 2"):
        PanetRun(tmp_path, samples, SETTINGS, resume=True)
    with pytest.raises(ValueError, match=r"other pictures.*'parts': 8"):
        PanetRun(tmp_path, samples[:-1], run.settings, resume=True)
    with pytest.raises(FileNotFoundError, match="resume"):
        PanetRun(tmp_path / "other", samples, SETTINGS, resume=True)


def test_training_starts_from_the_weights_and_remembers_their_name(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    torch.manual_seed(7)
    start = build_encoder("mobilenet_v2").state_dict()
    save_file(start, str(tmp_path / "start.safetensors"))
    settings = dataclasses.replace(SETTINGS, iterations=2)
    run = PanetRun(tmp_path / "run", samples, settings, tmp_path / "start.safetensors")
    for name, tensor in run.encoder.state_dict().items():
        assert torch.equal(tensor, start[name])
    run.run()
    resumed = PanetRun(tmp_path / "run", samples, settings, resume=True)
    assert resumed.initial == "start.safetensors"


def test_the_checkpoint_says_where_it_comes_from(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    run = PanetRun(tmp_path, samples, SETTINGS, validation=samples)
    run.run()
    encoder, header = trained_encoder(tmp_path / "checkpoint.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, run.average.state_dict()[name])
    assert header["settings"] == json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
    assert header["iteration"] == 6
    assert header["pictures"] == {"parts": 8}
    assert samples[0].licence and header["sources"] == [["parts", samples[0].licence]]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in log] == [2, 4, 6]
    assert all(0 <= line["validation"]["parts"] <= 100 for line in log)
    with pytest.raises(ValueError, match=r"resume\.safetensors.*mobilenet_v2.*checkpoint"):
        trained_encoder(tmp_path / "resume.safetensors")


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "vit_tiny_detail"])
def test_the_loss_falls_on_what_is_seen_over_and_over(tmp_path: Path, encoder: str) -> None:
    settings = dataclasses.replace(
        SETTINGS,
        encoder=encoder,
        warmup=1,
        iterations=1000,
        learning_rate=2e-3,
        backbone_learning_rate=2e-3,
        episodes=EpisodeSettings(side=64, kinds=(0.0, 0.0, 1.0), several=0.0),
    )
    run = PanetRun(tmp_path, (), settings)
    pixels, masks = (
        torch.from_numpy(np.stack(part))[None]
        for part in zip(*run.source.draw(np.random.default_rng(0)), strict=True)
    )
    losses = [run.step(pixels, masks) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


def test_frozen_blocks_stay_and_the_rest_moves(tmp_path: Path) -> None:
    scenes = EpisodeSettings(side=64, kinds=(0.0, 0.0, 1.0))
    settings = dataclasses.replace(SETTINGS, encoder="vit_tiny_detail", episodes=scenes)
    run = PanetRun(tmp_path, (), settings)
    before = {name: tensor.clone() for name, tensor in run.encoder.state_dict().items()}
    run.run()
    moved = {n for n, t in run.encoder.state_dict().items() if not torch.equal(t, before[n])}
    still = ("vit.cls_token", "vit.pos_embed", "vit.patch_embed.")
    still += tuple(f"vit.blocks.{index}." for index in range(settings.frozen_blocks))
    assert moved == {name for name in before if not name.startswith(still)}


def test_the_pretrained_part_has_its_own_learning_rate() -> None:
    groups = parameter_groups(build_encoder("vit_tiny_detail"), SETTINGS)
    rates = [SETTINGS.backbone_learning_rate, SETTINGS.learning_rate]
    assert [group["lr"] for group in groups] == rates
    assert all(group["params"] for group in groups)


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
    plain = dataclasses.replace(SETTINGS, background_parts=1)
    alike, opposite = (
        float(episode_loss(Colours(), torch.from_numpy(np.stack(pair))[None], masks, plain))
        for pair in ((one, one), (one, other))
    )
    assert alike < 0.5
    assert opposite > 5


def test_the_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    scenes = EpisodeSettings(side=64, kinds=(0.0, 0.0, 1.0))
    settings = dataclasses.replace(SETTINGS, warmup=4, iterations=12, episodes=scenes)
    run = PanetRun(tmp_path, (), settings)
    factors = []
    for run.iteration in range(13):
        factors.append(run.rate())
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[8] == pytest.approx(0.51)
    assert factors[12] == pytest.approx(0.02)
    assert sorted(factors[4:], reverse=True) == factors[4:]
    run.iteration = 1
    pixels, masks = zip(*run.source.draw(np.random.default_rng(0)), strict=True)
    run.step(torch.from_numpy(np.stack(pixels))[None], torch.from_numpy(np.stack(masks))[None])
    rates = [group["lr"] for group in run.optimizer.param_groups]
    assert rates == [settings.backbone_learning_rate * 0.5]


def test_a_picture_with_nothing_to_learn_from_costs_nothing() -> None:
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    masks = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss = segmentation_loss(logits, masks, torch.tensor([[True, True]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros(1, 2, 4, 4))


def test_the_command_line_keeps_restricted_pictures_out(
    write_set: WriteSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfree = "Attribution-NonCommercial License"
    folder = write_set(row(1), row(2), *(row(n, image_licence=unfree) for n in (3, 4)))
    options = ["--data", str(folder), "--encoder", "mobilenet_v2", "--iterations", "1"]
    options += ["--side", "64", "--workers", "0", "--threads", "1", "--no-bfloat16"]
    for name, more, count in (("free", [], 2), ("all", ["--include-restricted"], 4)):
        out = tmp_path / name
        assert main(["panet", *options, *more, "--out", str(out)]) == 0
        _, header = load_checkpoint(out / "checkpoint.safetensors")
        assert header["pictures"] == {"dots": count}
        assert (unfree in str(header["sources"])) is bool(more)
        assert f"{count} pictures to train on, {4 - count} to watch" in capsys.readouterr().out
    assert main(["panet", *options, "--resume", "--out", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("training: ")


def test_watching_is_repeatable_and_needs_two_pictures_of_a_class(
    samples: tuple[Sample, ...],
) -> None:
    first = fixed_episodes(samples, 9, 0.005)
    assert first == fixed_episodes(samples, 9, 0.005)
    assert all(identity in s.classes and identity in q.classes for identity, s, q in first)
    assert all(support is not query for _, support, query in first)
    assert fixed_episodes(samples[:1], 9, 0.005) == []
    assert validation_iou(build_encoder("mobilenet_v2"), samples[:1], 64, parts=1) == {}


@pytest.mark.parametrize(
    ("field", "value"), [("iterations", 0), ("pairs", 0), ("learning_rate", 0.0), ("average", 1.0)]
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        PanetSettings(**{field: value})  # type: ignore[arg-type]
