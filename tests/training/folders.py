"""Little data folders in the layouts of the published sets, drawn by the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)
Square = tuple[int, int, int]  # class, left, side


def labels_of(*squares: Square, border: bool = False) -> np.ndarray:
    """``[24, 32] uint8``; border: a row of 255 above each square, as VOC draws around objects."""
    labels = np.zeros(SIZE, np.uint8)
    for identity, left, side in squares:
        labels[8 : 8 + side, left : left + side] = identity
        if border:
            labels[7, left : left + side] = 255
    return labels


def objects_of(*squares: Square) -> np.ndarray:
    """``[24, 32] uint8``: the squares numbered from 1."""
    return labels_of(*((number, left, side) for number, (_, left, side) in enumerate(squares, 1)))


def save_picture(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, quality=95)


def save_mask(file: Path, labels: np.ndarray) -> None:
    """A palette PNG, as VOC's are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels, "P") if labels.dtype == np.uint8 else Image.fromarray(labels)
    mask.putpalette([value for k in range(256) for value in (k, 255 - k, 7 * k % 256)])
    mask.save(file)


def save_sbd(file: Path, struct: str, labels: np.ndarray, categories: Sequence[int] = ()) -> None:
    """A file as SBD's: a struct with the fields Segmentation and Categories."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fields = {"Segmentation": labels, "Categories": np.array(categories, np.uint8)[:, None]}
    savemat(file, {struct: fields}, do_compression=True)


def write_voc(
    root: Path,
    train: Mapping[str, Sequence[Square]],
    val: Mapping[str, Sequence[Square]],
    lists: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """VOC2012 with object masks; lists: more of them, or others."""
    folder = root / "VOCdevkit" / "VOC2012"
    for number, (key, squares) in enumerate({**train, **val}.items()):
        save_picture(folder / "JPEGImages" / f"{key}.jpg", number)
        save_mask(folder / "SegmentationClass" / f"{key}.png", labels_of(*squares, border=True))
        save_mask(folder / "SegmentationObject" / f"{key}.png", objects_of(*squares))
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, keys in {"train": [*train], "val": [*val], **(lists or {})}.items():
        text = "".join(f"{key}\n" for key in keys)
        (folder / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(text)
    return folder


def add_sbd(voc: Path, shown: Mapping[str, Sequence[Square]], aug: bool = False) -> Path:
    """SBD beside VOCdevkit, pictures in VOC's folder; aug: as PNGs in SegmentationClassAug."""
    sbd = voc.parent.parent / "benchmark_RELEASE" / "dataset"
    for number, (key, squares) in enumerate(shown.items(), 100):
        save_picture(voc / "JPEGImages" / f"{key}.jpg", number)
        if aug:
            save_mask(voc / "SegmentationClassAug" / f"{key}.png", labels_of(*squares))
        else:
            save_sbd(sbd / "cls" / f"{key}.mat", "GTcls", labels_of(*squares))
            classes = [identity for identity, _, _ in squares]
            save_sbd(sbd / "inst" / f"{key}.mat", "GTinst", objects_of(*squares), classes)
    return sbd


def polygon(left: int, top: int, width: int, height: int) -> list[list[float]]:
    """A rectangle as COCO draws it."""
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def write_coco(
    folder: Path,
    annotations: Mapping[int, Sequence[Mapping[str, Any]]],
    split: str = "train",
    categories: Sequence[int] = (1, 2, 13, 90),
) -> Path:
    """annotations: picture id -> annotations without id and image_id."""
    name, rows = f"{split}2017", list[dict[str, Any]]()
    for identity, some in annotations.items():
        save_picture(folder / name / f"{identity:012d}.jpg", identity)
        rows += [{"image_id": identity, "iscrowd": 0, **annotation} for annotation in some]
    content = {
        "licenses": [{"id": 1, "name": "Attribution-NonCommercial License"}],
        "categories": [{"id": k, "name": f"c{k}"} for k in categories],
        "images": [
            {
                "id": identity,
                "file_name": f"{identity:012d}.jpg",
                "height": SIZE[0],
                "width": SIZE[1],
                "license": 1,
            }
            for identity in annotations
        ],
        "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return folder


def write_fss(folder: Path, classes: Sequence[str], test: Sequence[str] | None = None) -> Path:
    """Ten pictures a class; masks are colour pictures with soft edges, as the official ones."""
    for number, name in enumerate(classes):
        for n in range(1, 11):
            save_picture(folder / name / f"{n}.jpg", 10 * number + n)
            mask = np.zeros((*SIZE, 3), np.uint8)
            mask[4 : 4 + n, 5:15] = 255
            mask[4 : 4 + n, 15] = 100  # a soft edge: nearer to black
            Image.fromarray(mask).save(folder / name / f"{n}.png")
    if test is not None:
        (folder / "fss_test_set.txt").write_text("".join(f"{name}\n" for name in test))
    return folder


def cut(file: Path, share: float = 0.6) -> None:
    """Keep the beginning of a file only."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
