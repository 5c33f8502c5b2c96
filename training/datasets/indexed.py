"""Folders of pictures with class masks: ``images/``, ``masks/``, ``index.jsonl`` and ``meta.json``.

One line of ``index.jsonl`` is a picture: ``{"image", "mask", "split", "classes": [{"id", "name",
"frac"}], "source"}``, where a mask is an 8-bit PNG with 0 for background, k for class k and 255 for
ignore.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IGNORE = 255
# terms that rule a picture out of shipped checkpoints, in full or as Creative Commons shortens them
RESTRICTED = re.compile(r"non-?commercial|no-?deriv|\b(nc|nd)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """One picture of a data set; ``classes``: class id -> fraction of the picture it covers."""

    dataset: str
    image: Path
    mask: Path
    split: str
    classes: dict[int, float]
    source: str
    licence: str | None  # of the picture; of its set where that states none by picture

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.image.stem}"

    @property
    def restricted(self) -> bool:
        """Marked NonCommercial or NoDerivs: for measuring, not for training what is shipped."""
        return self.licence is not None and RESTRICTED.search(self.licence) is not None

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """``([H, W, 3] uint8 RGB, [H, W] uint8 class ids)``."""
        with Image.open(self.image) as file:
            pixels = np.asarray(file.convert("RGB"))
        with Image.open(self.mask) as file:
            labels = np.asarray(file)
        if labels.ndim != 2 or labels.shape != pixels.shape[:2]:
            raise ValueError(
                f"{self.mask}: expected a [H, W] mask of the picture's size {pixels.shape[:2]}, "
                f"got {labels.shape}. Redraw the mask at the picture's own size."
            )
        return pixels, labels


@dataclass(frozen=True)
class Dataset:
    """All pictures of one folder. ``class_names[k]`` names class ``k``; 0 is background."""

    name: str
    class_names: tuple[str, ...]
    licence: str
    samples: tuple[Sample, ...]

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Read a folder's index.

        Raises:
            FileNotFoundError: the folder has no ``index.jsonl`` or ``meta.json``.
            ValueError: a line of the index lacks a field or is not JSON; the message numbers it.
        """
        folder = Path(folder)
        for needed in ("index.jsonl", "meta.json"):
            if not (folder / needed).is_file():
                raise FileNotFoundError(
                    f"{folder}: expected {needed}. See docs/training.md for the layout."
                )
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        lines = (folder / "index.jsonl").read_text().splitlines()
        by_picture = any('"image_licence"' in line for line in lines)
        samples = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                samples.append(
                    Sample(
                        dataset=folder.name,
                        image=folder / row["image"],
                        mask=folder / row["mask"],
                        split=row["split"],
                        classes={int(c["id"]): float(c["frac"]) for c in row["classes"]},
                        source=row["source"],
                        licence=row.get("image_licence") if by_picture else meta["licence"],
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{folder / 'index.jsonl'} line {number}: {error!r}") from error
        return cls(folder.name, tuple(meta["classes"]), str(meta["licence"]), tuple(samples))

    def problems(self) -> list[str]:
        """What is wrong with the pictures and masks, a sentence each; reads every file."""
        found = []
        known = {*range(len(self.class_names)), IGNORE}
        for sample in self.samples:
            try:
                _, labels = sample.read()
            except (OSError, ValueError) as error:
                found.append(f"{sample.key}: {error}")
                continue
            drawn = {int(v) for v in np.unique(labels)}
            if unknown := sorted(drawn - known):
                last = len(self.class_names) - 1
                found.append(f"{sample.key}: the mask has ids {unknown}, the set's end at {last}")
            if missing := sorted(set(sample.classes) - drawn):
                found.append(f"{sample.key}: classes {missing} are in the index, not in the mask")
        return found
