"""A bundle that sees colours, and sets of drawn pictures with coloured squares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_bundle, tiny_scene

COLOURS = {1: (220, 40, 30), 2: (30, 60, 220), 3: (40, 200, 60)}


def write_set(folder: Path, shown: list[tuple[int, ...]], split: str = "train") -> Path:
    """A set of 48 x 64 pictures; each shows one square for each of its classes."""
    rng = np.random.default_rng(len(folder.name))
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    lines = []
    for number, classes in enumerate(shown):
        pixels, labels = tiny_scene(square=(0, 0, 1, 1))[0].copy(), np.zeros((48, 64), np.uint8)
        for place, identity in enumerate(classes):
            left, top = 2 + 30 * place + int(rng.integers(0, 8)), int(rng.integers(2, 20))
            pixels[top : top + 24, left : left + 22] = COLOURS[identity]
            labels[top : top + 24, left : left + 22] = identity
        names = f"images/{number:03d}.png", f"masks/{number:03d}.png"
        Image.fromarray(pixels).save(folder / names[0])
        Image.fromarray(labels).save(folder / names[1])
        found = [{"id": k, "name": f"c{k}", "frac": float((labels == k).mean())} for k in classes]
        row = {"image": names[0], "mask": names[1], "split": split, "classes": found}
        lines.append(json.dumps({**row, "source": f"drawn {number}"}))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    meta = {"classes": ["background", "c1", "c2", "c3"], "licence": "the project's own"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fsseg")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "squares" (17 of class 1, 3 of class 2, 2 of none), "pairs" (1 and 3 in each), and pictures
    of a set that encoders are trained on."""
    root = tmp_path_factory.mktemp("sets")
    write_set(root / "squares", [*[(1,)] * 17, *[(2,)] * 3, (), ()])
    write_set(root / "pairs", [(1, 3)] * 4)
    write_set(root / "voc2012", [(2,)] * 3, split="val")
    return root
