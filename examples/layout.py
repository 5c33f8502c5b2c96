"""The layout of a labelled data set on disk, written in one place.

A folder with `images/`, `masks/` (8-bit palette PNG: 0 background, k class id), `index.jsonl` (a
line a picture: image, mask, split, classes with the fraction of the picture that each covers,
source) and `meta.json` (names, licence note).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LICENCE = "made by this project; same licence as the project"


def palette() -> list[int]:
    """256 colours, those of PASCAL VOC: 0 black, 1 dark red, 2 dark green, ..."""
    colours = []
    for index in range(256):
        bits = [(index >> 3 * k) & 7 for k in range(3)]
        colours += [sum(((bits[k] >> c) & 1) << (7 - k) for k in range(3)) for c in range(3)]
    return colours


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write labels [H, W] uint8 as a palette PNG whose pixel values are the labels."""
    image = Image.fromarray(mask)
    image.putpalette(palette())
    image.save(path, optimize=True)


def write_picture(path: Path, picture: NDArray[np.uint8], limit: int | None = None) -> None:
    """Write [H, W, 3] uint8 as WebP; with `limit`, at the best quality (90 to 70) it allows."""
    for quality in range(90, 69, -2):
        Image.fromarray(picture).save(path, "WEBP", quality=quality, method=6 if limit else 4)
        if limit is None or path.stat().st_size <= limit:
            return


def write_dataset(
    folder: Path,
    name: str,
    classes: Sequence[str],
    source: str,
    pictures: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    note: str = "",
) -> None:
    """Write pictures [H, W, 3] with masks [H, W] (0, or k: k-th of `classes`) as a data set.

    Every fourth picture is split "val", the others "train". Raises FileExistsError rather than mix
    two data sets.
    """
    if (folder / "index.jsonl").exists():
        raise FileExistsError(f"{folder} holds a data set already; name an empty folder")
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(classes, 0)
    lines = []
    for number, (picture, mask) in enumerate(pictures):
        image_name, mask_name = f"images/{number:05d}.webp", f"masks/{number:05d}.png"
        write_picture(folder / image_name, picture)
        write_mask(folder / mask_name, mask)
        shares = [(k, float((mask == k).mean())) for k in range(1, len(classes) + 1)]
        found = [(k, share) for k, share in shares if share]
        for k, _ in found:
            counts[classes[k - 1]] += 1
        lines.append(
            json.dumps(
                {
                    "image": image_name,
                    "mask": mask_name,
                    "split": "val" if number % 4 == 3 else "train",
                    "classes": [
                        {"id": k, "name": classes[k - 1], "frac": round(share, 5)}
                        for k, share in found
                    ],
                    "source": f"{source}, picture {number}",
                }
            )
        )
    meta = {
        "name": name,
        "classes": ["background", *classes],
        "licence": LICENCE,
        "note": note,
        "mask": "8-bit palette PNG: 0 background, k class id",
        "images": len(lines),
        "images_per_class": counts,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    (folder / "index.jsonl").write_text("".join(line + "\n" for line in lines))
