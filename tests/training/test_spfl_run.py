"""Runs of SPFL: cut off and resumed, in several processes, on the latents they began with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fsseg_sdk.methods.settings import settings_from_json
from fsseg_sdk.methods.srofb_settings import SrofbSettings
from tests.data import REPOSITORY
from tests.training.conftest import WriteSet, row
from tests.training.latents import SPFL, make_spfl, own, write_latents
from tests.training.runs import SGD, changed, check_resuming
from tests.training.squares import draw_parts
from training.__main__ import main
from training.checkpoint import load_checkpoint, section
from training.datasets import Dataset, Sample
from training.encoders import encoder_record
from training.panet import PanetSettings
from training.settings import DataSettings
from training.spfl.joint import latents_folder
from training.spfl.latents import Latents
from training.spfl.learner import SpflSettings
from training.torch_graph import trained_encoder
from training.trainer import Trainer


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 6).samples


@pytest.fixture(scope="module")
def root(samples: Sequence[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The latents folder; `parts` in it has labels of all pictures."""
    folder = tmp_path_factory.mktemp("latents")
    write_latents(folder / "parts", samples)
    return folder


@pytest.mark.parametrize(
    ("optimizer", "workers", "place"),
    [(SPFL.optimizer, 0, ("step", 3)), (SGD, 2, ("save_state", 4))],
)
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(
    samples: Sequence[Sample],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: Any,
    workers: int,
    place: tuple[str, int],
) -> None:
    settings = replace(SPFL, optimizer=optimizer)

    def made(name: str) -> Trainer:
        folder = tmp_path / ("cut" if name == "again" else name)
        count = 0 if name == "whole" else workers
        return make_spfl(folder, samples, root, settings, samples, count)

    check_resuming(made, tmp_path, monkeypatch, place)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").open()]
    assert [row["iteration"] for row in rows] == [2, 4, 6]
    assert all(set(row["losses"]) == {"pairs", "level1", "level2", "level3"} for row in rows)


def test_the_checkpoint_is_an_encoder_for_the_runtime(
    samples: Sequence[Sample], root: Path, tmp_path: Path
) -> None:
    panet = PanetSettings(scale=10.0, background_parts=2, dice_weight=0.0)
    trainer = make_spfl(tmp_path, samples, root, own(panet=panet), samples)
    trainer.start()
    trainer.run()
    tensors, header = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert all(name.startswith("encoder.") for name in tensors)
    assert header["method"] == {
        "name": "srofb",
        "settings": {
            "panet": {"scale": 10.0, "background_parts": 2},
            "temperature": 10.0,
            "match_share": 0.0,
        },
    }
    runtime = settings_from_json(SrofbSettings, header["method"]["settings"], "method")
    assert (runtime.panet.scale, runtime.panet.background_parts) == (10.0, 2)
    assert header["encoder"] == encoder_record("mobilenet_v2")
    assert header["settings"]["spfl"]["gamma"] == [0.5, 1.0, 1.0]
    digest = Latents.open(root / "parts").digest
    assert header["latents"] == {"digest": digest, "levels": [[4, 3], [2, 2], [1, 1]]}
    encoder, _ = trained_encoder(tmp_path / "checkpoint.safetensors")
    kept = trainer.average.encoder.state_dict()
    assert all(torch.equal(kept[name], t) for name, t in encoder.state_dict().items())
    state = load_checkpoint(tmp_path / "resume.safetensors")[0]
    for part in ("learner", "average"):
        assert {name.split(".")[0] for name in section(state, part)} == {"encoder", "decoders"}
    assert any(name.startswith("optimizer.decoders.2.") for name in state)


def test_a_run_keeps_to_its_latents(samples: Sequence[Sample], root: Path, tmp_path: Path) -> None:
    settings = changed(SPFL, trainer={"iterations": 1})
    trainer = make_spfl(tmp_path / "run", samples, root, settings)
    trainer.start()
    trainer.run()
    folder = write_latents(tmp_path / "other" / "parts", samples)
    make_spfl(tmp_path / "run", samples, tmp_path / "other", settings).resume()  # the same labels
    write_latents(folder, samples, mirrored=True)
    with pytest.raises(ValueError, match=r"other settings or pictures: latents\.digest: '"):
        make_spfl(tmp_path / "run", samples, tmp_path / "other", settings).resume()


def test_latents_must_fit_the_run(samples: Sequence[Sample], root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder .*none.*--latents-root"):
        make_spfl(tmp_path, samples, root, own(latents="none"))
    with pytest.raises(ValueError, match=r"gamma: expected 3 weights, .*got 2"):
        make_spfl(tmp_path, samples, root, own(gamma=(1.0, 1.0)))
    write_latents(tmp_path / "few", samples[:-1])
    few = own(latents="few")
    lost = samples[-1].key
    with pytest.raises(ValueError, match=f"labels of all 6 pictures .* of 5; {lost} has none"):
        make_spfl(tmp_path, samples, tmp_path, few)
    # a picture that could not be read may be left out of both
    lenient = changed(few, data={"skip_unreadable": True})
    assert len(make_spfl(tmp_path, samples, tmp_path, lenient).shares[1].source.samples) == 5  # type: ignore[attr-defined]


def test_the_folder_may_depend_on_the_fold(tmp_path: Path) -> None:
    named = own(latents="voc-fold{fold}")
    for fold in (1, 2):
        of_fold = changed(named, data={"split": "pascal-5i", "fold": fold})
        assert latents_folder(of_fold, tmp_path) == tmp_path / f"voc-fold{fold}"
    with pytest.raises(ValueError, match=r"expected a name without \{fold\}"):
        latents_folder(named, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": ()}, "gamma: expected a weight"),
        ({"gamma": (1.0, -1.0)}, "gamma: expected a weight of 0 or more"),
        ({"extra": 0}, "extra: expected 1 or more, got 0"),
        ({"width": 0}, "width: expected 1 or more, got 0"),
        ({"pixel_step": 0}, "pixel_step: expected 1 or more"),
        ({"latents": None}, r"latents: expected a folder .*none"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpflSettings(**{"latents": "x", **values})


def test_a_fold_is_not_taught_by_an_encoder_of_another(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    """An encoder of fold 1 was trained on masks of classes that are novel in fold 2."""
    for name, data in (("every", DataSettings()), ("one", DataSettings((), "pascal-5i", 1))):
        write_latents(tmp_path / name, samples, data=data)
    fold = {"split": "pascal-5i", "fold": 2}
    for name, differs in (("every", "fold: None, now 2"), ("one", "fold: 1, now 2")):
        settings = changed(own(latents=name), data=fold)
        with pytest.raises(ValueError, match=f"of the run's fold, .*{differs}"):
            make_spfl(tmp_path, samples, tmp_path, settings)
    make_spfl(tmp_path, samples, tmp_path, changed(own(latents="one"), data={**fold, "fold": 1}))


TINY = """
[encoder]
name = "mobilenet_v2"
[data]
sets = ["dots"]
[episodes]
side = 64
kinds = [1.0, 0.0, 0.0]
several = 0.0
augment = { angle = 0.0 }
[optimizer]
name = "sgd"
learning_rate = 1e-2
[trainer]
iterations = 3
batch = 2
save_every = 3
precision = "fp32"
watch = 0
[spfl]
latents = "dots"
extra = 2
width = 8
[spfl.views]
crop = [1.0, 1.0]
stretch = 0.0
flip = 0.0
colour = 0.0
grey = 0.0
blur = 0.0
cutout = 0.0
"""


def words(folder: Path, data: Path, out: Path) -> list[str]:
    (folder / "run.toml").write_text(TINY)
    given = ["spfl", str(folder / "run.toml"), "--data-root", str(data.parent), "--out", str(out)]
    given += ["--latents-root", str(folder / "latents")]
    return [*given, "--threads", "1", "--workers", "0", "--device", "cpu"]


def test_two_processes_train_as_one_does(write_set: WriteSet, tmp_path: Path) -> None:
    """On pictures that are all the same: batch norm in the decoders sees those of one process."""
    data = write_set(row(1), row(2))
    write_latents(tmp_path / "latents" / "dots", Dataset.open(data).samples)
    assert main(words(tmp_path, data, tmp_path / "one")) == 0
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    two = [*start, "-m", "training", *words(tmp_path, data, tmp_path / "two")]
    done = subprocess.run(two, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(tmp_path / n / "checkpoint.safetensors") for n in ("one", "two"))
    assert one[1] == two[1] and one[0].keys() == two[0].keys()
    for name, tensor in one[0].items():
        torch.testing.assert_close(two[0][name], tensor, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_done_is_said_in_a_line(
    write_set: WriteSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(row(1), row(2))
    assert main(words(tmp_path, data, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("training: spfl.latents: expected a folder") and "--latents-root" in error
    )
