"""The command, the folder it makes, and reading that folder."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsseg_sdk.methods.settings import settings_to_json
from tests.training.runs import SMALL
from tests.training.squares import VOC, draw_squares
from training.__main__ import main
from training.checkpoint import save_checkpoint
from training.datasets import DataError, Dataset
from training.encoders import build_encoder, encoder_record
from training.episodes import EpisodeSettings
from training.run import open_samples
from training.settings import DataSettings
from training.spfl import make
from training.spfl.clusters import Hierarchy
from training.spfl.latents import Latents, label_file, read_labels, write_labels
from training.spfl.settings import LatentSettings, completed

DATA = DataSettings(("set",), "pascal-5i", 1, "background")  # 1 to 3 are base, 6 to 8 novel
SHOWN = ([1, 2, 6], [2, 3], [7, 1], [6, 7], [3, 8, 1], [1, 2, 3])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of base and novel classes, and the checkpoint of an encoder."""
    folder = tmp_path_factory.mktemp("latents")
    draw_squares(folder / "set", SHOWN, VOC, range(len(SHOWN)))
    torch.manual_seed(0)
    encoder = build_encoder("mobilenet_v2")
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    settings = replace(SMALL, data=DATA, episodes=EpisodeSettings(side=64, kinds=(1.0, 0.0, 0.0)))
    header = {"encoder": encoder_record("mobilenet_v2"), "settings": settings.to_json()}
    save_checkpoint(folder / "checkpoint.safetensors", tensors, header)
    return folder


def run(root: Path, out: Path, *more: str) -> int:
    words = ["latents", str(root / "checkpoint.safetensors"), "--data-root", str(root)]
    threads = str(torch.get_num_threads())
    levels = [] if "--levels" in more else ["--levels", "5,3,2"]
    return main([*words, "--out", str(out), "--threads", threads, *levels, *more])


@pytest.fixture(scope="module")
def made(root: Path) -> Path:
    assert run(root, root / "out", "--background-levels", "4,2,1") == 0
    return root / "out"


def test_every_training_picture_has_labels(root: Path, made: Path) -> None:
    latents = Latents.open(made)
    assert latents.levels == ((5, 4), (3, 2), (2, 1))
    assert latents.classes == (9, 5, 3)
    samples, _ = open_samples(DATA, root)
    assert {sample.key for sample in samples} == set(latents.pictures)
    assert len(samples) == 5  # the picture of novel classes alone is not trained on
    for sample in samples:
        labels = sample.read()[1]
        found = latents.labels(sample.key)
        assert found.dtype == np.uint8
        assert found.shape == (3, *labels.shape)
        for level, (first, second) in enumerate(latents.levels):
            np.testing.assert_array_equal(found[level] == 255, labels == 255)
            assert (found[level][(labels > 0) & (labels < 255)] < first).all()
            background = found[level][labels == 0]
            assert ((background >= first) & (background < first + second)).all()


def test_novel_objects_are_labelled_as_background(root: Path, made: Path) -> None:
    whole = Dataset.open(root / "set").samples[0]
    novel = whole.read()[1] == 6
    assert novel.any()
    assert (Latents.open(made).labels(whole.key)[0][novel] >= 5).all()


def test_the_folder_says_what_it_is_made_from(made: Path) -> None:
    latents = Latents.open(made)
    assert latents.settings["data"] == settings_to_json(DATA)
    assert latents.settings["settings"]["side"] == 64  # the run's own
    assert latents.settings["settings"]["precision"] == "fp32"
    assert Hierarchy.load(made / "hierarchy.safetensors").levels == latents.levels
    assert not [*made.rglob("*.partial")]


def test_pages_are_drawn(made: Path) -> None:
    names = {file.name for file in (made / "pages").iterdir()}
    kinds = {f"{kind}-{n}.png" for kind in ("foreground", "background") for n in (1, 2, 3)}
    assert names == kinds | {"regions.png", "labels.png"}
    for name in names:
        with Image.open(made / "pages" / name) as page:
            assert min(page.size) > 100
            assert len(np.unique(np.asarray(page))) > 50


def test_a_run_goes_on_where_it_stood(
    root: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in each stage; regions shared; the result is the same."""
    options = ("--background-levels", "4,2,1", "--regions", str(made / "regions"), "--no-pages")
    monkeypatch.setattr(make, "LOT", 2)  # several lots of these few pictures
    assert run(root, tmp_path / "whole", *options) == 0
    out = tmp_path / "out"
    for name, after in (("write_vectors", 2), ("pseudo_labels", 3), ("write_header", 0)):
        calls = 0
        original = getattr(make, name)

        def limited(*arguments: object, most: int = after, work: object = original) -> object:
            nonlocal calls
            calls += 1
            if calls > most:
                raise OSError("no space left")
            return work(*arguments)  # type: ignore[operator]

        with monkeypatch.context() as patched:
            patched.setattr(make, name, limited)
            assert run(root, out, *options) == 2
        with pytest.raises(FileNotFoundError, match="not finished"):
            Latents.open(out)
    before = {
        f: f.stat().st_mtime_ns for f in out.rglob("*") if f.suffix in (".png", ".safetensors")
    }
    assert run(root, out, *options) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert not (out / "regions").exists()
    assert Latents.open(out).digest == Latents.open(tmp_path / "whole").digest
    assert run(root, out, *options) == 0  # finished: nothing is done


def test_other_settings_are_refused(
    root: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, made, "--levels", "6,3,2", "--background-levels", "4,2,1") == 2
    said = capsys.readouterr().err
    assert "settings.levels: [[5, 4], [3, 2], [2, 1]], now [[6, 4], [3, 2], [2, 1]]" in said
    assert "--out" in said
    assert run(root, made, "--background-levels", "4,2,1", "--novel", "ignore") == 2
    assert "data.novel: 'background', now 'ignore'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--levels", "60,3,2"), "levels: foreground objects: expected 60 different vectors"),
        (("--background-levels", "99,2,1"), "levels: regions of the background: expected 99"),
        (("--levels", "3,3"), "levels: expected fewer clusters at each level"),
        (("--levels", "200,3"), "levels: expected 1 to 255 labels a level"),
        (("--background-levels", "4,2"), "--background-levels: expected 3 numbers"),
        (("--side", "-8"), "side: expected a multiple of 1, got -8"),
        (("--least", "1.5"), "least: expected a share"),
    ],
)
def test_what_cannot_be_is_refused(
    root: Path,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    shared = ("--regions", str(made / "regions"), "--no-pages")
    assert run(root, tmp_path, *options, *(shared if "--least" not in options else ())) == 2
    assert said in capsys.readouterr().err


def test_the_side_fits_the_encoder() -> None:
    header = SMALL.to_json()
    with pytest.raises(ValueError, match="expected a multiple of 16, got 50"):
        completed(LatentSettings(side=50), DATA, {"settings": header}, 16)
    done = completed(LatentSettings(precision="bf16"), DATA, {"settings": header}, 16)
    assert (done.side, done.precision, done.novel) == (64, "bf16", "background")


def test_unreadable_pictures_are_skipped_only_on_request(root: Path, tmp_path: Path) -> None:
    draw_squares(tmp_path / "set", SHOWN, VOC, range(len(SHOWN)))
    (tmp_path / "set" / "images" / "01.png").write_bytes(b"cut")
    tensors, header = make.trained_encoder(root / "checkpoint.safetensors")
    kept = {f"encoder.{name}": value for name, value in tensors.state_dict().items()}
    save_checkpoint(tmp_path / "checkpoint.safetensors", kept, header)
    assert run(tmp_path, tmp_path / "out", "--no-pages") == 2
    header["settings"]["data"]["skip_unreadable"] = True
    save_checkpoint(tmp_path / "checkpoint.safetensors", kept, header)
    assert run(tmp_path, tmp_path / "skipping") == 0
    latents = Latents.open(tmp_path / "skipping")
    assert len(latents.pictures) == 4
    assert "01.png" in (tmp_path / "skipping" / "skipped.jsonl").read_text()
    with pytest.raises(ValueError, match="key: expected one of the 4 pictures"):
        latents.labels("set/01")


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (3, 7, 5), dtype=np.uint8)
    file = label_file(tmp_path, "some/set/a")
    write_labels(file, labels)
    np.testing.assert_array_equal(read_labels(file, 3, (7, 5)), labels)
    with pytest.raises(ValueError, match="expected 3 levels of"):
        read_labels(file, 3, (5, 7))
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(file, 3, (7, 5))


def test_what_is_no_folder_of_latents_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got nothing there"):
        Latents.open(tmp_path / "none")
    header = json.loads((made / "latents.json").read_text())
    for change in ({"version": 2}, {"levels": 3}, {"pictures": []}, {"digest": None}, None):
        content = "[]" if change is None else json.dumps({**header, **change})
        if change == {"digest": None}:
            content = json.dumps({k: v for k, v in header.items() if k != "digest"})
        (tmp_path / "latents.json").write_text(content)
        with pytest.raises(ValueError, match=r"latents\.json: expected fsseg-latents version 1"):
            Latents.open(tmp_path)


def test_workers_can_be_sent_latents(made: Path) -> None:
    latents = Latents.open(made)
    assert pickle.loads(pickle.dumps(latents)) == latents  # noqa: S301
