"""PASCAL VOC 2012, with or without SBD (Hariharan et al., ICCV 2011): the data of PASCAL-5i.

The folder is VOC2012 as its archive unpacks it. SBD comes as SegmentationClassAug/ (PNG), or as
its own archive's ``benchmark_RELEASE/dataset/{img,cls,inst}``. Of several masks of a picture VOC's
own counts: it is finer, and has a border of 255 around objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from training.datasets.cache import Row, cache_file, kept_rows, stamp
from training.datasets.indexed import Dataset
from training.datasets.sample import (
    IGNORE,
    DataError,
    Problem,
    Sample,
    fractions,
    read_mask,
    unreadable,
)

NAME = "voc2012"
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
LICENCE = "VOC2012 and SBD: research use; the pictures are under Flickr's terms"
SBD = Path("benchmark_RELEASE") / "dataset"


@dataclass(frozen=True)
class VocSample(Sample):
    """objects: a mask of object numbers, PNG or SBD's .mat; None where there is none."""

    objects: Path | None

    def read_labels(self) -> np.ndarray:
        return read_classes(self.mask)

    @property
    def tells_apart(self) -> bool:
        return self.objects is not None

    def instances(self, identity: int) -> list[np.ndarray] | None:
        if self.objects is None:
            return None
        shown = self.read_labels() == identity
        if self.objects.suffix == ".mat":
            numbers = read_mat(self.objects, "GTinst")
        else:
            numbers = read_mask(self.objects)
        if numbers.shape != shown.shape:
            raise DataError(
                f"{self.objects}: expected the size {shown.shape} of the class mask, got "
                f"{numbers.shape}. Unpack both from the same archive.",
                self.objects,
                "size",
            )
        found = [n for n in np.unique(numbers[shown]) if n not in (0, IGNORE)]
        return [shown & (numbers == n) for n in found] or None


def read_mat(file: Path, struct: str) -> np.ndarray:
    """``[H, W] uint8``: the segmentation of an SBD file; struct: GTcls or GTinst.

    Raises:
        DataError: the file is missing, cut off, or not SBD's.
        ModuleNotFoundError: scipy is not installed.
    """
    import zlib

    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    broken = (
        OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, EOFError,
        MatReadError, zlib.error,
    )  # fmt: skip
    try:
        values = np.asarray(loadmat(str(file))[struct][0, 0]["Segmentation"])
        if values.ndim != 2:
            raise ValueError(f"{struct}.Segmentation has the shape {values.shape}")
        return values.astype(np.uint8)
    except broken as error:
        raise unreadable(file, error) from error


def read_classes(file: Path) -> np.ndarray:
    """``[H, W] uint8`` class ids of a mask in either form."""
    return read_mat(file, "GTcls") if file.suffix == ".mat" else read_mask(file)


def measure(file: Path) -> Row:
    """The class fractions of a mask, or what is wrong with it: a row of the index."""
    try:
        shown = fractions(read_classes(file))
    except DataError as error:
        return {"kind": error.kind, "problem": str(error)}
    if beyond := sorted(set(shown) - set(range(len(CLASSES)))):
        text = f"{file}: class ids {beyond} are none of VOC's, 0 to 20 and 255. Fetch it again."
        return {"kind": "ids", "problem": text}
    return {"classes": shown}


def voc_root(path: Path) -> Path | None:
    """The VOC2012 folder: ``path`` itself or below it, as the archive unpacks it."""
    for folder in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    return None


@dataclass
class Lists:
    """Which pictures are in which list, and from where their mask comes."""

    root: Path
    sbd: Path | None
    ids: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Lists:
        places = (root, root.parent, root.parent.parent)  # both archives unpacked in one folder
        lists = cls(root, next((p / SBD for p in places if (p / SBD / "cls").is_dir()), None))
        for name in ("train", "val", "trainaug"):
            file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
            if file.is_file():
                # some lists hold the paths of picture and mask instead of a name
                lines = [line.split() for line in file.read_text().splitlines()]
                lists.ids[name] = [Path(line[0]).stem for line in lines if line]
        if not {"train", "val"} <= set(lists.ids):
            raise FileNotFoundError(
                f"{root}: expected ImageSets/Segmentation/train.txt and val.txt. Unpack VOC2012's "
                "trainval archive; see docs/data.md."
            )
        if "trainaug" not in lists.ids and lists.sbd is not None:
            # the published list of 10,582 is just this
            sbd = {file.stem for file in (lists.sbd / "cls").glob("*.mat")}
            lists.ids["trainaug"] = sorted((sbd | set(lists.ids["train"])) - set(lists.ids["val"]))
        return lists

    def splits(self) -> dict[str, str]:
        """Picture -> train or val, in order; a picture of both is val, since val is for testing."""
        val = set(self.ids["val"])
        listed = {key for keys in self.ids.values() for key in keys}
        return {key: "val" if key in val else "train" for key in sorted(listed)}

    def twice(self) -> list[Problem]:
        """Pictures in val and in a list for training."""
        val, found = set(self.ids["val"]), []
        for name in ("train", "trainaug"):
            text = f"in val.txt and in {name}.txt. It counts as val; take it out of {name}.txt."
            shared = sorted(val & set(self.ids.get(name, ())))
            found += [Problem("split", f"{NAME}/{key}", text) for key in shared]
        return found

    def files(self, key: str) -> tuple[Path, Path, Path | None, str]:
        """Picture, mask, object mask and source; VOC's own paths where there is none."""
        image = self.root / "JPEGImages" / f"{key}.jpg"
        own = self.root / "SegmentationClass" / f"{key}.png"
        if own.is_file() or key in self.voc:
            objects = self.root / "SegmentationObject" / f"{key}.png"
            return image, own, objects if objects.is_file() else None, f"PASCAL VOC 2012 {key}"
        mask, of_object = self.root / "SegmentationClassAug" / f"{key}.png", None
        if self.sbd is not None:
            mat = self.sbd / "inst" / f"{key}.mat"
            of_object = mat if mat.is_file() else None
            if not mask.is_file():
                mask = self.sbd / "cls" / f"{key}.mat"
            if not image.is_file():
                image = self.sbd / "img" / f"{key}.jpg"
        return image, mask, of_object, f"SBD {key}"

    @cached_property
    def voc(self) -> set[str]:
        return {*self.ids["train"], *self.ids["val"]}


def open_voc(path: Path, cache: Path | str | None = None, workers: int = 0) -> Dataset:
    """All pictures of train, val and trainaug; ``problems`` names those that are left out.

    Raises:
        FileNotFoundError: the folder is not VOC2012's, or a part of it is missing.
    """
    root = voc_root(path)
    if root is None:
        raise FileNotFoundError(
            f"{path}: expected a VOC2012 folder with JPEGImages/, SegmentationClass/ and "
            "ImageSets/Segmentation/. See docs/data.md."
        )
    for needed in ("JPEGImages", "SegmentationClass"):
        if not (root / needed).is_dir():
            raise FileNotFoundError(f"{root}: expected a folder {needed}/. See docs/data.md.")
    lists = Lists.read(root)
    splits = lists.splits()
    files = {key: lists.files(key) for key in splits}
    masks = [mask for _, mask, _, _ in files.values()]

    def make() -> tuple[Row, list[Path]]:
        return {}, masks

    _, rows = kept_rows(
        cache_file(root, cache, "voc"), stamp(masks, "voc"), make, measure, "masks", workers
    )
    samples: list[Sample] = []
    problems = lists.twice()
    for (key, split), row in zip(splits.items(), rows, strict=True):
        image, mask, objects, source = files[key]
        if "problem" in row:
            problems.append(Problem(row["kind"], f"{NAME}/{key}", row["problem"]))
        elif not image.is_file():
            text = f"{image}: no such file. Restore it, or take it off the lists."
            problems.append(Problem("missing", f"{NAME}/{key}", text))
        else:
            classes = {int(k): float(v) for k, v in row["classes"].items()}
            samples.append(VocSample(NAME, image, mask, split, classes, source, LICENCE, objects))
    return Dataset(NAME, CLASSES, LICENCE, tuple(samples), tuple(problems))
