"""A small labelled data set that the project draws itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import REPOSITORY

Row = dict[str, Any]
WriteSet = Callable[..., Path]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of machine parts, two of them to watch."""
    folder = tmp_path_factory.mktemp("drawn") / "parts"
    draw = [sys.executable, str(REPOSITORY / "examples" / "draw.py"), "dataset", str(folder)]
    subprocess.run([*draw, "--count", "8", "--seed", "1", "--size", "64"], check=True)
    return folder


def row(number: int, **fields: Any) -> Row:
    """A line of an index; picture `number` shows class 1 on a twentieth."""
    line: Row = {
        "image": f"images/{number}.png",
        "mask": f"masks/{number}.png",
        "split": "train",
        "classes": [{"id": 1, "name": "dot", "frac": 0.05}],
        "source": "made here",
    }
    return line | fields


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Writes rows as a data set: grey pictures of 40 x 60 with one dot of class 1 each."""

    def write(*rows: Row, name: str = "dots") -> Path:
        folder = tmp_path / name
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        labels = np.zeros((40, 60), np.uint8)
        labels[10:20, 30:42] = 1
        for line in rows:
            Image.new("RGB", (60, 40), (90, 95, 99)).save(folder / line["image"])
            Image.fromarray(labels).save(folder / line["mask"])
        (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
        (folder / "meta.json").write_text(
            json.dumps({"classes": ["background", "dot"], "licence": "ours"})
        )
        return folder

    return write
