"""From a settings file and folders to a checkpoint, as the command line does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.training.conftest import WriteSet, row
from training.__main__ import main
from training.checkpoint import load_checkpoint
from training.datasets.voc import CLASSES
from training.encoders import build_encoder
from training.run import make_encoder, open_samples
from training.settings import DataSettings, EncoderChoice

TINY = """
[encoder]
name = "mobilenet_v2"
[data]
sets = ["dots"]
[episodes]
side = 64
kinds = [1.0, 0.0, 0.0]
[trainer]
iterations = 1
precision = "fp32"
"""
UNFREE = "Attribution-NonCommercial License"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_restricted_pictures_are_watched_unless_asked_for(
    write_set: WriteSet, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(row(1), row(2), *(row(n, image_licence=UNFREE) for n in (3, 4)))
    options = [str(settings), "--data-root", str(folder.parent), "--workers", "0", "--threads", "1"]
    more = ["--set", "data.include_restricted=true"]
    for name, words, count in (("free", [], 2), ("all", more, 4)):
        out = tmp_path / name
        assert main(["panet", *options, *words, "--out", str(out)]) == 0
        _, header = load_checkpoint(out / "checkpoint.safetensors")
        assert header["pictures"] == {"dots": count}
        assert (UNFREE in str(header["sources"])) is bool(words)
        assert f"{count} pictures to train on, {4 - count} to watch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "got no run to resume"),
        (["--set", "data.sets=['none']"], "none"),
        (["--set", "trainer.seed=x"], r"trainer.seed: expected int, got 'x'"),
        (["--set", "encoder.weights=none.safetensors"], "--weights-root"),
        (
            ["--set", "encoder.name=vit_tiny_keys", "--set", "episodes.side=100"],
            "episodes.side: expected a multiple of 16 for vit_tiny_keys, got 100",
        ),
        (["--device", "tpu"], "device: expected auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    write_set: WriteSet,
    settings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    folder = write_set(row(1), row(2))
    options = [str(settings), "--data-root", str(folder.parent), "--out", str(tmp_path / "run")]
    assert main(["panet", *options, "--workers", "0", "--threads", "1", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("training: ") and message in error


def with_names(folder: Path, names: Sequence[str]) -> Path:
    """The set, as one whose classes have these names."""
    meta = {"classes": list(names), "licence": "ours"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_a_fold_trains_and_watches_base_classes_only(write_set: WriteSet) -> None:
    """Of fold 0, class 1 is novel, class 6 is base."""
    both = [{"id": 1, "name": "dot", "frac": 0.05}, {"id": 6, "name": "bus", "frac": 0.05}]
    folder = write_set(
        row(1, classes=both),
        row(2, classes=both[1:]),
        row(3),
        row(4, classes=both[1:], split="val"),
        row(5, classes=both, split="val"),
        row(6, classes=both[1:], split="test"),
    )
    with_names(folder, CLASSES)
    for sample in (1, 2, 4, 5, 6):
        labels = np.array(Image.open(folder / f"masks/{sample}.png"))
        labels[30:38, :20] = 6
        Image.fromarray(labels).save(folder / f"masks/{sample}.png")
    fold = {"sets": ("dots",), "split": "pascal-5i", "fold": 0}
    training, watched = open_samples(DataSettings(**fold), folder.parent)  # type: ignore[arg-type]
    assert [s.image.stem for s in training] == ["2"]
    assert [s.image.stem for s in watched] == ["4"]
    for novel, label in (("background", 0), ("ignore", 255)):
        training, watched = open_samples(
            DataSettings(**fold, novel=novel),  # type: ignore[arg-type]
            folder.parent,
        )
        assert [s.image.stem for s in training] == ["1", "2"]
        assert [s.image.stem for s in watched] == ["4"]  # nothing is chosen by novel objects
        _, labels = training[0].read()
        assert labels[15, 35] == label and labels[33, 3] == 6
        assert set(training[0].classes) == {6}


def test_a_fold_that_leaves_nothing_is_refused(write_set: WriteSet) -> None:
    folder = with_names(write_set(row(1), row(2)), CLASSES)
    with pytest.raises(ValueError, match=r"data\.sets: expected pictures to train on"):
        open_samples(DataSettings(("dots",), "pascal-5i", 0), folder.parent)


@pytest.mark.parametrize(
    ("split", "names"),
    [("pascal-5i", ["background", "dot"]), ("coco-20i-contiguous", CLASSES)],
)
def test_a_fold_is_not_one_of_other_classes(
    write_set: WriteSet, split: str, names: Sequence[str]
) -> None:
    """Class 12 of VOC is dog; another set's class 12 is not, and its dogs have another number."""
    folder = with_names(write_set(row(1), row(2)), names)
    with pytest.raises(ValueError, match=f"{split} numbers other classes than those of dots"):
        open_samples(DataSettings(("dots",), split, 1), folder.parent)


def test_a_broken_picture_ends_the_run_or_is_left_out_and_counted(
    write_set: WriteSet, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(*(row(n) for n in range(1, 5)), *(row(n, split="val") for n in (5, 6, 7)))
    for broken in (2, 6):
        picture = folder / "images" / f"{broken}.png"
        picture.write_bytes(picture.read_bytes()[:40])
    options = [str(settings), "--data-root", str(folder.parent), "--workers", "0", "--threads", "1"]
    options += ["--set", "trainer.iterations=12", "--set", "trainer.save_every=12"]
    for workers in ("0", "1"):
        words = [*options, "--workers", workers, "--out", str(tmp_path / workers)]
        assert main(["panet", *words]) == 2
        error = capsys.readouterr().err
        assert "images/2.png: cannot be read" in error and "Traceback" not in error
    out = tmp_path / "lenient"
    more = ["--set", "data.skip_unreadable=true", "--out", str(out)]
    assert main(["panet", *options, *more]) == 0
    skipped = [json.loads(line)["file"] for line in (out / "skipped.jsonl").open()]
    assert sorted(Path(name).name for name in skipped) == ["2.png", "6.png"]
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert last["pictures_skipped"] == 2 and last["watched"]["dots"] >= 0


def test_training_starts_from_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(7)
    start = build_encoder("mobilenet_v2").state_dict()
    save_file(start, str(tmp_path / "start.safetensors"))
    choice = EncoderChoice("mobilenet_v2", "start.safetensors")
    for name, tensor in make_encoder(choice, tmp_path, 0).state_dict().items():
        assert torch.equal(tensor, start[name])
    again = make_encoder(EncoderChoice("mobilenet_v2"), None, 7).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in start.items())
