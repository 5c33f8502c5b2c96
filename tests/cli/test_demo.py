"""examples/demo.py on small cases: overlays, the sheet, the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_scene

from .conftest import ROOT, Place, environment


def case(name: str, support: dict[str, Any], query: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": f"Case {name}",
        "support": support,
        "queries": [{"image": f"{query}.png", "truth": f"{query}_truth.png"}],
    }


@pytest.fixture
def cases(place: Place) -> Path:
    folder = place.folder / "cases"
    folder.mkdir()
    for name, colour in (
        ("shown", (220, 40, 30)),
        ("query", (220, 40, 30)),
        ("other", (90, 95, 99)),
    ):
        image, mask = tiny_scene((240, 320), (100, 60, 200, 180), colour)
        truth = mask if name != "other" else np.zeros_like(mask)
        Image.fromarray(image).save(folder / f"{name}.png")
        Image.fromarray(truth).save(folder / f"{name}_truth.png")
    by_mask = {"image": "shown.png", "mask": "shown_truth.png"}
    stroke = {"points": [[120, 90], [150, 120], [180, 150]], "width": 9}
    content = [
        case("mask", {"square": [by_mask]}, "query"),
        case("box", {"square": [{"image": "shown.png", "box": [100, 60, 200, 180]}]}, "query"),
        case("scribble", {"square": [{"image": "shown.png", "scribble": stroke}]}, "query"),
        case("shots", {"square": [by_mask] * 5}, "query"),
        case("absent", {"square": [by_mask]}, "other"),
    ]
    (folder / "cases.json").write_text(json.dumps(content))
    return folder


def run_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_overlays_sheet_and_table(place: Place, cases: Path) -> None:
    done = run_demo("--pictures", cases, "--bundle", place.bundle, "--out", "shown", "--repeat", 1)
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()[2:7]]
    assert [row[:4] for row in table[:4]] == [
        ["mask", "query", "square", "yes"],
        ["box", "query", "square", "yes"],
        ["scribble", "query", "square", "yes"],
        ["shots", "query", "square", "yes"],
    ]
    overlap = [float(row[6]) for row in table[:4]]
    assert min(overlap) > 0.5, done.stdout
    assert table[4][0] == "absent" and "not there" in " ".join(table[4])
    assert {path.name for path in Path("shown").iterdir()} == {
        *("mask_query.jpg", "box_query.jpg", "scribble_query.jpg", "shots_query.jpg"),
        *("absent_other.jpg", "sheet.jpg"),
    }
    assert Image.open("shown/mask_query.jpg").size == (320, 240)
    assert min(Image.open("shown/sheet.jpg").size) > 500


def test_what_is_missing_is_named(place: Place, cases: Path) -> None:
    (cases / "shown_truth.png").unlink()
    done = run_demo("--pictures", cases, "--bundle", place.bundle, "--out", "shown")
    assert done.returncode == 2
    assert "shown_truth.png" in done.stderr and "Traceback" not in done.stderr
