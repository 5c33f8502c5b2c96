"""FSS-1000 (Li et al., CVPR 2020): a folder a class, ten pictures with a binary mask each.

Splits are by class. The official repository lists 240 test classes (fss_test_set.txt); all others
are for training, except those of a val.txt, where one is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from training.datasets.cache import Row, cache_file, kept_rows, stamp
from training.datasets.indexed import Dataset
from training.datasets.sample import IGNORE, DataError, Problem, Sample, read_picture

NAME = "fss1000"
LICENCE = "FSS-1000: pictures collected from the web, terms not stated by picture"
PICTURES = 10
TEST_LISTS = ("fss_test_set.txt", "test.txt")
HALF = 128  # masks are stored as colour pictures, with soft edges


@dataclass(frozen=True)
class FssSample(Sample):
    """identity: the class of the mask's bright pixels."""

    identity: int

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.image.parent.name}/{self.image.stem}"

    def read_labels(self) -> np.ndarray:
        return np.where(read_binary(self.mask), self.identity, 0).astype(np.uint16)


def read_binary(file: Path) -> np.ndarray:
    """``[H, W] bool``: the bright half of the greys."""
    grey = Image.fromarray(read_picture(file)).convert("L")
    return np.asarray(grey) >= HALF


def measure(file: Path) -> Row:
    """The class's fraction of the picture, or what is wrong with its mask."""
    try:
        share = float(read_binary(file).mean())
    except DataError as error:
        return {"kind": error.kind, "problem": str(error)}
    if share == 0:
        text = f"{file}: shows nothing, all of it is dark. Redraw it, white on black."
        return {"kind": "empty", "problem": text}
    return {"share": share}


def fss_root(path: Path) -> Path | None:
    """The folder of class folders: ``path`` itself, or ``fewshot_data`` in it."""
    for folder in (path, path / "fewshot_data"):
        if folder.is_dir() and next(folder.glob("*/1.jpg"), None) is not None:
            return folder
    return None


def class_list(file: Path) -> list[str]:
    """Names of class folders, one a line."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]


def split_of_classes(path: Path, root: Path, test_list: Path | str | None) -> dict[str, str]:
    """Class -> train, val or test, of all classes that are in a list or have a folder.

    Raises:
        FileNotFoundError: no list of the test classes.
    """
    places = [folder / name for folder in (path, root) for name in TEST_LISTS]
    if test_list is not None:
        places = [Path(test_list)]
    listed = next((file for file in places if file.is_file()), None)
    if listed is None:
        raise FileNotFoundError(
            f"{places[0]}: expected a list of the test classes, one folder name a line. Put the "
            "official fss_test_set.txt there, or name a file with test_list (--test-list)."
        )
    splits = {folder.name: "train" for folder in root.iterdir() if folder.is_dir()}
    watched = listed.with_name("val.txt")
    if watched.is_file():
        splits |= dict.fromkeys(class_list(watched), "val")
    splits |= dict.fromkeys(class_list(listed), "test")
    return {name: splits[name] for name in sorted(splits) if not name.startswith(".")}


def open_fss(
    path: Path,
    cache: Path | str | None = None,
    workers: int = 0,
    test_list: Path | str | None = None,
) -> Dataset:
    """All ten pictures of each class. Class ids follow the sorted names and leave out 255.

    Raises:
        FileNotFoundError: there are no class folders, or no list of the test classes.
    """
    root = fss_root(path)
    if root is None:
        raise FileNotFoundError(
            f"{path}: expected a folder a class, each with 1.jpg, 1.png to {PICTURES}.jpg, "
            f"{PICTURES}.png. See docs/data.md."
        )
    splits = split_of_classes(path, root, test_list)
    problems = [
        Problem("missing", name, f"{root / name}: listed, but there is no such folder. Restore it.")
        for name in splits
        if not (root / name).is_dir()
    ]
    pairs = [
        (number, root / name / f"{n}.jpg", root / name / f"{n}.png")
        for number, name in enumerate(splits, 1)
        if (root / name).is_dir()
        for n in range(1, PICTURES + 1)
    ]
    masks = [mask for _, _, mask in pairs]
    _, rows = kept_rows(
        cache_file(root, cache, "fss1000"),
        stamp(masks, "fss1000"),
        partial(_items, masks),
        measure,
        "masks",
        workers,
    )
    samples: list[Sample] = []
    for (number, image, mask), row in zip(pairs, rows, strict=True):
        name, identity = image.parent.name, number if number < IGNORE else number + 1
        key = f"{NAME}/{name}/{image.stem}"
        if "problem" in row:
            problems.append(Problem(row["kind"], key, row["problem"]))
        elif not image.is_file():
            problems.append(Problem("missing", key, f"{image}: no such file. Restore it."))
        else:
            shown = {identity: float(row["share"])}
            samples.append(
                FssSample(
                    NAME, image, mask, splits[name], shown, f"FSS-1000 {name}", LICENCE, identity
                )
            )
    names = ["background", *splits]
    if len(names) > IGNORE:
        names.insert(IGNORE, "(255 is ignore)")
    return Dataset(NAME, tuple(names), LICENCE, tuple(samples), tuple(problems))


def _items(masks: list[Path]) -> tuple[Row, list[Path]]:
    return {}, masks
