"""COCO 2017 (or 2014): class masks drawn on demand from instance annotations.

Class ids are the file's category ids in order, renumbered to 1..80. Where objects overlap, the
smaller lies on top (of equal ones, the later annotation). Crowds are 255 where no object lies.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.cache import Row, cache_file, kept_rows, stamp
from training.datasets.indexed import Dataset
from training.datasets.sample import IGNORE, DataError, Problem, Sample, fractions

NAME = "coco"
LICENCE = "annotations: CC BY 4.0; pictures: Flickr's terms, by picture"
YEARS = ("2017", "2014")
FAR = 4.0  # coordinates beyond so many picture sides are damage, and would take memory to draw


def mask_tools() -> Any:
    """pycocotools.mask, an optional dependency.

    Raises:
        ModuleNotFoundError: says what to install.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the layout coco: expected the package pycocotools, which is not installed. "
            "Install it with: pip install pycocotools (or the extra [coco])"
        ) from error
    return mask


@dataclass(frozen=True)
class CocoSample(Sample):
    """size: (H, W). objects: a line for each, ``class crowd counts``, in the order of drawing;
    counts is pycocotools' compressed run-length code."""

    size: tuple[int, int]
    objects: str

    def read_labels(self) -> np.ndarray:
        return draw(self.objects, self.size)

    @property
    def tells_apart(self) -> bool:
        return True

    def instances(self, identity: int) -> list[np.ndarray]:
        """As annotated: what a smaller object hides is part of them."""
        return [
            shape
            for number, crowd, shape in shapes(self.objects, self.size)
            if number == identity and not crowd
        ]


def shapes(objects: str, size: tuple[int, int]) -> Iterable[tuple[int, bool, np.ndarray]]:
    """``(class, crowd, [H, W] bool)`` of each object."""
    tools = mask_tools()
    for line in objects.splitlines():
        number, crowd, counts = line.split(" ", 2)
        decoded = tools.decode({"size": list(size), "counts": counts.encode()})
        yield int(number), crowd == "1", decoded.astype(np.bool_)


def draw(objects: str, size: tuple[int, int]) -> np.ndarray:
    """``[H, W] uint8`` class ids."""
    labels = np.zeros(size, np.uint8)
    for number, crowd, shape in shapes(objects, size):
        labels[shape] = IGNORE if crowd else number
    return labels


def run_length(segmentation: object, size: tuple[int, int]) -> dict[str, Any] | None:
    """Compressed run-length code of polygons or of either run-length form; None if it is empty.

    Raises:
        ValueError: it is none of these, of another size, or far outside of the picture.
    """
    tools, (height, width) = mask_tools(), size
    if isinstance(segmentation, dict):
        given = [int(n) for n in segmentation["size"]]
        if given != [height, width]:
            raise ValueError(f"a mask of size {given} in a picture of {[height, width]}")
        if isinstance(segmentation["counts"], list):
            code = tools.frPyObjects(segmentation, height, width)
        else:
            code = {"size": given, "counts": segmentation["counts"].encode()}
    else:
        polygons = []
        for polygon in segmentation:  # type: ignore[attr-defined]
            points = np.asarray(polygon, np.float64)
            if points.ndim != 1 or len(points) % 2:
                raise ValueError("a polygon that is no list of x, y, x, y, ...")
            if not (np.abs(points) <= FAR * max(size)).all():
                raise ValueError("a polygon far outside of the picture")
            if len(points) >= 6:
                polygons.append(points.tolist())
        if not polygons:
            return None
        code = tools.merge(tools.frPyObjects(polygons, height, width))
    return code if tools.area(code) > 0 else None


def measure(numbers: dict[int, int], picture: Row) -> Row:
    """A row of the index of one picture and its annotations; numbers: category -> class."""
    size = int(picture["height"]), int(picture["width"])
    row: Row = {"file": picture["file_name"], "size": size, "licence": picture.get("licence")}
    drawn: list[tuple[bool, float, int, str]] = []
    try:
        for annotation in picture["annotations"]:
            code = run_length(annotation["segmentation"], size)
            if code is None:
                continue
            if annotation["category_id"] not in numbers:
                text = f"category {annotation['category_id']} is not in the file's categories"
                return row | {"kind": "ids", "problem": text}
            crowd = bool(annotation.get("iscrowd", 0))
            number = numbers[annotation["category_id"]]
            line = f"{number} {int(crowd)} {code['counts'].decode()}"
            area = float(mask_tools().area(code))
            # crowds first, so that objects lie on them
            drawn.append((not crowd, -area, int(annotation["id"]), line))
    except (KeyError, TypeError, ValueError) as error:
        text = f"an annotation cannot be drawn: {error}. Fetch the annotations again."
        return row | {"kind": "unreadable", "problem": text}
    objects = "\n".join(line for *_, line in sorted(drawn))
    return row | {"classes": fractions(draw(objects, size)), "objects": objects}


def parse(file: Path) -> tuple[Row, list[Row]]:
    """Facts (class names, numbers) and the pictures, each with its annotations.

    Raises:
        DataError: the file is cut off, or not COCO's.
    """
    try:
        content = json.loads(file.read_text())
        categories = sorted(content["categories"], key=lambda category: category["id"])
        licences = {entry["id"]: entry["name"] for entry in content.get("licenses", ())}
        by_picture: dict[int, list[Row]] = defaultdict(list)
        for annotation in content["annotations"]:
            by_picture[annotation["image_id"]].append(annotation)
        pictures = [
            {
                "file_name": picture["file_name"],
                "height": picture["height"],
                "width": picture["width"],
                "licence": licences.get(picture.get("license")),
                "annotations": by_picture[picture["id"]],
            }
            for picture in sorted(content["images"], key=lambda picture: picture["id"])
        ]
        names = [str(category["name"]) for category in categories]
        ids = [int(category["id"]) for category in categories]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: expected COCO's instance annotations, got a file that does not parse "
            f"({error!r}). Fetch it again.",
            file,
            "index",
        ) from error
    if len(names) >= IGNORE:
        raise DataError(f"{file}: expected at most 254 categories, got {len(names)}.", file, "ids")
    return {"names": names, "ids": ids}, pictures


def annotation_files(path: Path) -> dict[str, Path]:
    """Split -> annotations, of the newest year that is there."""
    for year in YEARS:
        files = {s: path / "annotations" / f"instances_{s}{year}.json" for s in ("train", "val")}
        found = {split: file for split, file in files.items() if file.is_file()}
        if found:
            return found
    return {}


def open_coco(path: Path, cache: Path | str | None = None, workers: int = 0) -> Dataset:
    """The pictures of train and val, or of the one that is there.

    Raises:
        FileNotFoundError: there are no annotations, or no folder of pictures.
        ModuleNotFoundError: pycocotools is not installed.
        DataError: the annotations are cut off, or the two files have different categories.
    """
    mask_tools()
    files = annotation_files(path)
    if not files:
        raise FileNotFoundError(
            f"{path}: expected annotations/instances_train2017.json or instances_val2017.json. "
            "See docs/data.md."
        )
    samples: list[Sample] = []
    problems: list[Problem] = []
    known: Row = {}
    for split, file in files.items():
        pictures = path / file.stem.removeprefix("instances_")
        if not pictures.is_dir():
            raise FileNotFoundError(
                f"{path}: expected a folder {pictures.name}/ with the pictures of {file.name}. "
                "Unpack its archive there; see docs/data.md."
            )
        facts, rows = _rows(path, file, cache, workers)
        if known and facts != known:
            raise DataError(
                f"{file}: expected the same categories as the other split's, got others. "
                "Fetch both from the same archive.",
                file,
                "index",
            )
        known = facts
        there = {entry.name for entry in os.scandir(pictures)}
        for row in rows:
            key = f"{NAME}/{Path(row['file']).stem}"
            if row["file"] not in there:
                text = f"{pictures / row['file']}: no such file. Restore it, or unpack again."
                problems.append(Problem("missing", key, text))
            elif "problem" in row:
                problems.append(Problem(row["kind"], key, f"{file}: {row['problem']}"))
            else:
                samples.append(_sample(row, split, pictures, file))
    names = ("background", *known["names"])
    return Dataset(NAME, names, LICENCE, tuple(samples), tuple(problems))


def _rows(path: Path, file: Path, cache: Path | str | None, workers: int) -> tuple[Row, list[Row]]:
    numbers: dict[int, int] = {}  # filled before the first picture is measured

    def make() -> tuple[Row, list[Row]]:
        facts, pictures = parse(file)
        numbers.update({identity: n for n, identity in enumerate(facts["ids"], 1)})
        return facts, pictures

    kept = cache_file(path, cache, file.stem)
    expected = stamp([file], "coco")
    return kept_rows(kept, expected, make, partial(measure, numbers), file.stem, workers)


def _sample(row: Row, split: str, pictures: Path, file: Path) -> CocoSample:
    height, width = row["size"]
    return CocoSample(
        dataset=NAME,
        image=pictures / row["file"],
        mask=file,
        split=split,
        classes={int(k): float(v) for k, v in row["classes"].items()},
        source=f"COCO {Path(row['file']).stem}",
        licence=row["licence"],
        size=(height, width),
        objects=row["objects"],
    )
