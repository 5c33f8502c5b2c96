"""The picture of what SROFB learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import Segmenter
from tests.tiny import tiny_bundle, tiny_scene
from training import refinement


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "t.fsseg")
    image, mask = tiny_scene()
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask * 255).save(tmp_path / "mask.png")
    Image.fromarray(tiny_scene((120, 160), (50, 20, 90, 70))[0]).save(tmp_path / "b.png")
    return tmp_path


def test_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ["--support", str(place / "a.png"), "--mask", str(place / "mask.png")]
    asked = [str(place / "t.fsseg"), str(place / "b.png"), *shown, "--out", str(place / "r.png")]
    assert refinement.main([*asked, "--setting", "iterations=3"]) == 0
    assert Image.open(place / "r.png").size[0] > 1000
    assert refinement.main([*asked, "--method", "panet"]) == 2
    assert "srofb" in capsys.readouterr().err
    assert refinement.main([*asked, "--setting", "iterations=x"]) == 2
    assert "iterations" in capsys.readouterr().err
    assert refinement.main([str(place / "none.fsseg"), *asked[1:]]) == 2


def test_what_the_columns_show(place: Path) -> None:
    """The square is sure and tinted, the scene sure and dark; both answers show the square."""
    task = Segmenter.load(place / "t.fsseg", method="srofb").prepare(
        {"class": [(place / "a.png", place / "mask.png")]}
    )
    pixels = np.asarray(Image.open(place / "b.png").convert("RGB"))
    sure, match, refined = refinement.line(task, place / "b.png")
    assert sure.shape == match.shape == refined.shape == pixels.shape
    inside, outside = np.s_[40:50, 65:75], np.s_[95:110, 10:30]
    assert sure[outside].mean() < 0.5 * pixels[outside].mean()
    for shown in (sure, match, refined):
        tint = np.abs(shown[inside].astype(int) - pixels[inside]).mean()
        assert tint > 10
