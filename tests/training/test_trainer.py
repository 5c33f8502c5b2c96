"""The trainer core: runs learn, can be cut off and resumed, and keep to what they say."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.checkpoint
from tests.data import REPOSITORY
from tests.training import runs
from tests.training.runs import SCENES, SGD, SMALL, changed, check_resuming, make_run
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import Dataset, Sample
from training.encoders import build_encoder, encoder_record
from training.panet import Panet
from training.runlog import RunLog, read_log
from training.settings import OptimizerSettings, RunSettings
from training.torch_graph import trained_encoder
from training.trainer import Trainer, TrainingError


@pytest.fixture(scope="module")
def samples(drawn: Path) -> tuple[Sample, ...]:
    return Dataset.open(drawn).samples


class Forgetful(Panet):
    """A learner that draws lots of its own while training."""

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout2d(super().features(pixels), 0.2, self.training)


@pytest.mark.parametrize(
    ("optimizer", "encoder", "workers", "place"),
    [
        (SMALL.optimizer, "mobilenet_v2", 0, ("step", 3)),
        (SGD, "mobilenet_v2", 2, ("save_state", 4)),
        (OptimizerSettings(pretrained_learning_rate=5e-5), "vit_tiny_detail", 0, ("step", 3)),
    ],
)
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(
    samples: tuple[Sample, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: OptimizerSettings,
    encoder: str,
    workers: int,
    place: tuple[str, int],
) -> None:
    settings = changed(replace(SMALL, optimizer=optimizer), encoder={"name": encoder})
    monkeypatch.setattr(runs, "Panet", Forgetful)

    def made(name: str) -> Trainer:
        again = name == "again"  # whose settings and weights do not matter
        own = changed(settings, trainer={"seed": 0}) if again else settings
        folder = tmp_path / ("cut" if again else name)
        return make_run(folder, samples, own, samples, 0 if name == "whole" else workers)

    check_resuming(made, tmp_path, monkeypatch, place)
    logs = [
        [(r["iteration"], r["loss"], r["watched"]) for r in map(json.loads, path.open())]
        for path in (tmp_path / "whole" / "log.jsonl", tmp_path / "cut" / "log.jsonl")
    ]
    assert logs[0] == logs[1] and [row[0] for row in logs[0]] == [2, 4, 6]


def test_resuming_with_other_settings_or_pictures_says_what_differs(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    short = changed(trainer={"iterations": 2})
    trainer = make_run(tmp_path, samples, short)
    trainer.start()
    trainer.run()
    longer = changed(trainer={"iterations": 4}, optimizer={"clip": 2.0})
    differs = r"optimizer\.clip: 1\.0, now 2\.0; settings\.trainer\.iterations: 2, now 4"
    with pytest.raises(ValueError, match=differs):
        make_run(tmp_path, samples, longer).resume()
    with pytest.raises(ValueError, match="pictures: 8, now 7"):
        make_run(tmp_path, samples[:-1], short).resume()
    with pytest.raises(FileNotFoundError, match="got no run to resume"):
        make_run(tmp_path / "other", samples, short).resume()
    with pytest.raises(ValueError, match="holds a run"):
        make_run(tmp_path, samples, short).start()


def test_the_checkpoint_says_where_it_comes_from(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    trainer = make_run(tmp_path, samples, SMALL, watched=samples)
    trainer.start()
    trainer.run()
    encoder, header = trained_encoder(tmp_path / "checkpoint.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, trainer.average.encoder.state_dict()[name])
    assert header["settings"] == json.loads(json.dumps(SMALL.to_json()))
    assert header["encoder"] == encoder_record("mobilenet_v2")
    assert header["method"]["name"] == "panet"
    assert (header["iteration"], header["pictures"]) == (6, 8)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(0 <= row["watched"]["parts"] <= 100 for row in rows)
    assert all(row["episodes_per_second"] > 0 for row in rows)
    with pytest.raises(ValueError, match=r"resume\.safetensors.*mobilenet_v2.*missing.*checkpoint"):
        trained_encoder(tmp_path / "resume.safetensors")


def test_a_checkpoint_of_another_architecture_says_which_keys_differ(tmp_path: Path) -> None:
    tensors = build_encoder("vit_tiny_keys", {"blocks": [3]}).state_dict()
    tensors["cls_token"] = torch.zeros(1, 1, 5)
    header = {"encoder": encoder_record("vit_tiny_keys", {"blocks": [2]})}
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, {f"encoder.{name}": t for name, t in tensors.items()}, header)
    with pytest.raises(ValueError) as caught:
        trained_encoder(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: expected the tensors of vit_tiny_keys, got others. ")
    assert "1 of another shape: cls_token (expected [1, 1, 192], got [1, 1, 5])" in text
    assert "of another network: blocks." in text


def test_the_best_weights_are_kept_or_the_last(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {}
    for select in ("best", "last"):
        trainer = make_run(tmp_path / select, samples, changed(trainer={"select": select}), samples)
        figures = iter([10.0, 30.0, 20.0])
        monkeypatch.setattr(trainer, "watch", lambda values=figures: {"parts": next(values)})
        trainer.start()
        trainer.run()
        kept[select] = load_checkpoint(tmp_path / select / "checkpoint.safetensors")[1]
    assert (kept["best"]["iteration"], kept["best"]["best"]) == (4, 30.0)
    assert kept["last"]["iteration"] == 6


def test_the_best_needs_something_to_be_chosen_by(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'best' needs pictures to watch"):
        make_run(tmp_path, samples, changed(trainer={"select": "best"}), samples[:1])


def test_a_folder_belongs_to_one_process(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    first = make_run(tmp_path, samples)
    first.start()
    with pytest.raises(ValueError, match="another process trains here"):
        make_run(tmp_path, samples).start()


def test_a_row_that_was_cut_off_is_written_again(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"iteration": 2}\n{"iteration": 4}\n{"iter')
    assert [row["iteration"] for row in read_log(log)] == [2, 4]
    RunLog(tmp_path).rewind(2)
    assert log.read_text() == '{"iteration": 2}\n'
    log.write_text('{"iter\n{"iteration": 4}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl line 1: expected a row"):
        read_log(log)


def test_no_iterations_keep_the_start(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    trainer = make_run(tmp_path, samples, changed(trainer={"iterations": 0}))
    start = {name: tensor.clone() for name, tensor in trainer.learner.state_dict().items()}
    trainer.start()
    trainer.run()
    tensors, _ = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in start.items())


def one_episode(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    views = trainer.source.draw(np.random.default_rng(0))
    pixels, masks = (torch.from_numpy(np.stack(part))[None] for part in zip(*views, strict=True))
    return pixels, masks


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "vit_tiny_detail"])
def test_one_episode_seen_over_and_over_is_learnt(tmp_path: Path, encoder: str) -> None:
    settings = replace(SMALL, episodes=SCENES)
    settings = changed(
        settings,
        encoder={"name": encoder},
        schedule={"warmup": 1},
        trainer={"iterations": 1000},
        optimizer={"learning_rate": 2e-3},
    )
    trainer = make_run(tmp_path, (), settings)
    episode = one_episode(trainer)
    losses = [trainer.step(trainer.learner, *episode) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_float32_learns(tmp_path: Path, precision: str) -> None:
    losses = {}
    for kind in ("fp32", precision):
        settings = changed(
            replace(SMALL, episodes=SCENES, optimizer=SGD), trainer={"precision": kind}
        )
        trainer = make_run(tmp_path, (), settings)
        episode = one_episode(trainer)
        losses[kind] = [trainer.step(trainer.learner, *episode) for _ in range(5)]
        assert all(p.dtype == torch.float32 for p in trainer.learner.parameters())
    np.testing.assert_allclose(losses[precision], losses["fp32"], rtol=0.05)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(tmp_path: Path) -> None:
    trainer = make_run(tmp_path, (), replace(SMALL, episodes=SCENES))
    episode = one_episode(trainer)
    trainer.learner.forward = lambda pixels, masks: torch.tensor(math.nan, requires_grad=True)
    with pytest.raises(TrainingError, match=r"iteration 0: the loss is nan.*learning_rate"):
        trainer.step(trainer.learner, *episode)


def test_a_full_disk_leaves_the_old_checkpoint_whole(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    trainer = make_run(tmp_path, samples, changed(trainer={"iterations": 2}))
    trainer.start()
    trainer.run()
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
        with pytest.raises(OSError, match=r"checkpoint\.safetensors: could not be written.*room"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_frozen_parts_stay_and_the_rest_moves(tmp_path: Path) -> None:
    still = ("vit.cls_token", "vit.pos_embed", "vit.patch_embed", "vit.blocks.0", "vit.blocks.1")
    settings = changed(
        replace(SMALL, episodes=SCENES), encoder={"name": "vit_tiny_detail", "freeze": still}
    )
    trainer = make_run(tmp_path, (), settings)
    before = {name: t.clone() for name, t in trainer.learner.encoder.state_dict().items()}
    trainer.start()
    trainer.run()
    after = trainer.learner.encoder.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    beginnings = tuple(f"{name}." for name in still)
    assert moved == {name for name in before if not f"{name}.".startswith(beginnings)}
    with pytest.raises(ValueError, match=r"freeze: .*got 'vit\.block'"):
        make_run(tmp_path, (), changed(settings, encoder={"freeze": ("vit.block",)}))


def run_command(settings: str, data: Path, out: Path, *more: str, processes: int = 1) -> str:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    words = ["training", "panet", settings, "--data-root", str(data.parent), "--out", str(out)]
    words += ["--threads", "1", "--workers", "0", "--device", "cpu", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*start, *words], capture_output=True, text=True, env=environment, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_train_as_one_does(drawn: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f"""
        [encoder]
        name = "mobilenet_v2"
        [data]
        sets = ["{drawn.name}"]
        [episodes]
        side = 64
        kinds = [1.0, 0.0, 0.0]
        several = 0.0
        augment = {{ angle = 0.0 }}
        [optimizer]
        name = "sgd"
        learning_rate = 1e-2
        [trainer]
        iterations = 4
        batch = 2
        save_every = 2
        precision = "fp32"
        watch = 0
        """
    )
    outputs = [run_command(str(file), drawn, tmp_path / "one")]
    outputs.append(run_command(str(file), drawn, tmp_path / "two", processes=2))
    assert all(text.count("pictures to train on") == 1 for text in outputs)
    one, two = (load_checkpoint(tmp_path / n / "checkpoint.safetensors") for n in ("one", "two"))
    assert one[1] == two[1]
    for name, tensor in one[0].items():
        torch.testing.assert_close(two[0][name], tensor, rtol=1e-4, atol=1e-6)


def test_processes_must_share_the_batch(tmp_path: Path) -> None:
    from training.processes import Processes

    odd: RunSettings[Any] = changed(replace(SMALL, episodes=SCENES), trainer={"batch": 3})
    with pytest.raises(ValueError, match="batch: expected a multiple of the 2 processes, got 3"):
        Trainer(
            tmp_path,
            make_run(tmp_path, (), odd).learner,
            odd,
            (),
            processes=Processes(0, 2, torch.device("cpu")),
        )


def test_tensorboard_shows_the_rows(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_run(tmp_path, samples, changed(trainer={"tensorboard": True}), samples)
    trainer.start()
    trainer.run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("loss")] == [
        (row["iteration"], row["loss"]) for row in rows
    ]
    assert len(events.Scalars("watched/parts")) == 3
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"trainer\.tensorboard.*pip install"):
        make_run(tmp_path, samples, changed(trainer={"tensorboard": True}))


def test_a_partial_file_never_takes_the_place_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    training.checkpoint.save_checkpoint(path, {"x": torch.ones(3)}, {})

    def fail(*arguments: Any) -> None:
        Path(arguments[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        training.checkpoint.save_checkpoint(path, {"x": torch.zeros(3)}, {})
    assert torch.equal(load_checkpoint(path)[0]["x"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]
