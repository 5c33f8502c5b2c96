"""Folders of pictures with class masks: ``images/``, ``masks/``, ``index.jsonl`` and ``meta.json``.

One line of ``index.jsonl`` is a picture: ``{"image", "mask", "split", "classes": [{"id", "name",
"frac"}], "source"}``, where a mask is an 8-bit PNG with 0 for background, k for class k and 255 for
ignore.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.datasets.sample import IGNORE, DataError, Problem, Sample

__all__ = ["IGNORE", "DataError", "Dataset", "Sample"]


@dataclass(frozen=True)
class Dataset:
    """All pictures of one set. ``class_names[k]`` names class ``k``; 0 is background.

    problems: what opening the set found wrong and went on without; see ``open_dataset``.
    """

    name: str
    class_names: tuple[str, ...]
    licence: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Read a folder's index; for other layouts see :func:`training.datasets.open_dataset`.

        Raises:
            FileNotFoundError: the folder has no ``index.jsonl`` or ``meta.json``.
            ValueError: a line of the index lacks a field or is not JSON; the message numbers it.
        """
        folder = Path(os.path.abspath(folder))  # so that "." has a name, too
        for needed in ("index.jsonl", "meta.json"):
            if not (folder / needed).is_file():
                raise FileNotFoundError(
                    f"{folder}: expected {needed}. See docs/data.md for the layouts."
                )
        meta = _meta(folder / "meta.json")
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


def _meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text())
        if not isinstance(meta["classes"], list) or "licence" not in meta:
            raise TypeError("classes is no list, or licence is not there")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{file}: expected {{"classes": ["background", ...], "licence": "..."}}, got '
            f"{error!r}. Write both fields.",
            file,
            "index",
        ) from error
    return dict(meta)
