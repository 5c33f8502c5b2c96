"""What docs/training.md shows, in its order: a data folder, a run, its score, a bundle, a mask."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.__main__ import main as export
from fsseg_sdk import Segmenter
from tests.training.conftest import drawn  # noqa: F401  (a fixture)
from training.__main__ import main as train
from training.checkpoint import load_checkpoint
from training.datasets import Dataset

SETTINGS = """
[encoder]
name = "mobilenet_v2"
[data]
sets = ["parts"]
[episodes]
side = 64
[trainer]
iterations = 2
precision = "fp32"
"""


def test_from_a_data_folder_to_a_mask(
    drawn: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = ["--data-root", str(drawn.parent)]
    run, bundle = tmp_path / "run", tmp_path / "mine.fsseg"
    file = tmp_path / "mine.toml"
    file.write_text(SETTINGS)
    words = ["panet", str(file), *root, "--workers", "0", "--out", str(run)]
    assert train(words) == 0
    assert train(words) == 2  # nothing is overwritten
    assert "Resume it" in capsys.readouterr().err
    checkpoint = run / "checkpoint.safetensors"
    assert train(["presence", *root, "--sets", "parts", "--side", "64", str(checkpoint)]) == 0
    assert "AUROC" in capsys.readouterr().out
    stored = load_checkpoint(checkpoint)[1]["method"]["settings"]
    assert (stored["background_parts"], stored["refine_weak"]) == (3, True)

    assert export([str(checkpoint), "--out", str(bundle), "--input-size", "64"]) == 0
    segmenter = Segmenter.load(bundle, threads=1)
    assert segmenter.settings.background_parts == 3 and segmenter.settings.refine_weak
    sample = Dataset.open(drawn).samples[0]
    pixels, labels = sample.read()
    identity = next(iter(sample.classes))
    result = segmenter.segment(pixels, labels == identity, pixels)
    assert result.calibrated and result.mask.shape == labels.shape and result.mask.any()
