"""Coloured squares on speckled grey, as a labelled set that few-shot methods can tell apart."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.datasets import Dataset

COLOURS = ((220, 40, 30), (40, 200, 60), (30, 60, 220))
VOC = ("background", "aeroplane", *map(str, range(2, 12)), "dog", *map(str, range(13, 21)))


def draw_squares(
    folder: Path,
    shown: Sequence[Sequence[int]],
    names: Sequence[str],
    train: Collection[int] = (),
) -> Dataset:
    """Pictures of several shapes, with a square of each class in ``shown``; a strip of each picture
    is to be ignored. train: numbers of the pictures that are split train; others are val."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    generator, lines = np.random.default_rng(4), []
    for number, classes in enumerate(shown):
        height, width = 64 - 6 * (number % 3), 64 + 8 * (number % 2)
        pixels = generator.integers(70, 170, (height, width, 1)).repeat(3, 2).astype(np.uint8)
        labels = np.zeros((height, width), np.uint8)
        for place, identity in enumerate(classes):
            left = place * width // len(classes) + generator.integers(0, 6)
            top, side = generator.integers(4, height - 22), generator.integers(12, 18)
            labels[top : top + side, left : left + side] = identity
            noise = generator.integers(-30, 30, 3)
            colour = np.array(COLOURS[(identity - 1) % 5])
            pixels[labels == identity] = np.clip(colour + noise, 0, 255)
        labels[:3] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{number:02d}.png")
        line = {"image": f"images/{number:02d}.png", "mask": f"masks/{number:02d}.png"}
        rows = [{"id": c, "name": str(c), "frac": float((labels == c).mean())} for c in classes]
        split = "train" if number in train else "val"
        lines.append({**line, "split": split, "classes": rows, "source": "drawn here"})
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "meta.json").write_text(json.dumps({"classes": names, "licence": "ours"}))
    return Dataset.open(folder)


def draw_parts(folder: Path, count: int = 12) -> Dataset:
    """Three classes of no known set, two or three to a picture."""
    shown = [[c for c in (1, 2, 3) if number % 4 != c] for number in range(count)]
    return draw_squares(folder, shown, ("background", "red", "green", "blue"))


def draw_voc(folder: Path, count: int = 12) -> Dataset:
    """VOC's classes 1 to 3, of fold 0, or 6 to 8, of fold 1; every second one of each is train."""
    shown = [[5 * (number % 2) + c for c in (1, 2, 3)] for number in range(count)]
    return draw_squares(folder, shown, VOC, [n for n in range(count) if n % 4 < 2])
