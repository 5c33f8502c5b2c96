"""VOC2012 and SBD as their archives lay them out: which mask, which split, which objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.folders import (
    add_sbd,
    cut,
    labels_of,
    save_mask,
    save_picture,
    save_sbd,
    write_voc,
)
from training.datasets import IGNORE, DataError, open_dataset
from training.datasets.voc import CLASSES

CAT, DOG, PERSON = 8, 12, 15
TRAIN = {"2007_000001": [(CAT, 2, 6), (CAT, 12, 10)], "2007_000002": [(DOG, 3, 8)]}
VAL = {"2008_000003": [(PERSON, 4, 8)], "2008_000004": [(CAT, 4, 8), (PERSON, 16, 6)]}
EXTRA = {"2009_000005": [(DOG, 2, 6), (DOG, 12, 8), (CAT, 24, 5)]}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data", TRAIN, VAL)


def test_the_classes_are_in_vocs_order() -> None:
    assert len(CLASSES) == 21
    assert (CLASSES[1], CLASSES[8], CLASSES[15], CLASSES[20]) == (
        "aeroplane",
        "cat",
        "person",
        "tvmonitor",
    )


@pytest.mark.parametrize("above", [0, 1, 2])
def test_pictures_masks_and_splits(voc: Path, above: int) -> None:
    """The folder itself, VOCdevkit, or the folder that the archive was unpacked in."""
    path = (voc, voc.parent, voc.parent.parent)[above]
    dataset = open_dataset(path)
    assert dataset.name == "voc2012"
    assert {s.key: s.split for s in dataset.samples} == {
        **{f"voc2012/{key}": "train" for key in TRAIN},
        **{f"voc2012/{key}": "val" for key in VAL},
    }
    sample = next(s for s in dataset.samples if s.key.endswith("2008_000004"))
    pixels, labels = sample.read()
    assert pixels.shape == (24, 32, 3)
    assert np.array_equal(labels, labels_of(*VAL["2008_000004"], border=True))
    assert np.count_nonzero(labels == IGNORE) == 14
    assert sample.classes == {CAT: 64 / 768, PERSON: 36 / 768}  # neither 0 nor 255
    assert not sample.restricted


def test_objects_of_one_class_are_told_apart(voc: Path) -> None:
    sample = open_dataset(voc).samples[0]
    found = sample.instances(CAT)
    assert found is not None
    assert [int(region.sum()) for region in found] == [36, 100]
    assert sample.instances(DOG) is None
    (voc / "SegmentationObject" / "2007_000001.png").unlink()
    assert open_dataset(voc).samples[0].instances(CAT) is None


def test_objects_end_where_their_class_does(voc: Path) -> None:
    numbers = np.full((24, 32), 255, np.uint8)
    numbers[:12, :10] = 3  # beyond the class, whose squares begin in row 8
    numbers[12:, :10] = 0
    save_mask(voc / "SegmentationObject" / "2007_000001.png", numbers)
    found = open_dataset(voc).samples[0].instances(CAT)
    assert found is not None
    assert [int(region.sum()) for region in found] == [4 * 6]


@pytest.mark.parametrize("aug", [False, True])
def test_sbd_adds_pictures_to_train_on(voc: Path, aug: bool) -> None:
    add_sbd(voc, EXTRA, aug)
    if aug:
        lines = [f"/JPEGImages/{k}.jpg /SegmentationClassAug/{k}.png\n" for k in (*TRAIN, *EXTRA)]
        (voc / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("".join(lines))
    samples = {s.key.split("/")[1]: s for s in open_dataset(voc).samples}
    assert [k for k, s in samples.items() if s.split == "train"] == sorted([*TRAIN, *EXTRA])
    sample = samples["2009_000005"]
    assert sample.mask.suffix == (".png" if aug else ".mat")
    assert np.array_equal(sample.read()[1], labels_of(*EXTRA["2009_000005"]))
    assert sample.source == "SBD 2009_000005"
    objects = sample.instances(DOG)
    assert (objects is None) == aug
    if objects is not None:
        assert [int(region.sum()) for region in objects] == [36, 64]


def test_vocs_own_mask_is_taken_and_val_is_never_trained_on(voc: Path) -> None:
    """SBD has masks of VOC's pictures, too, val's among them, without the border of 255."""
    add_sbd(voc, {**EXTRA, **TRAIN, **VAL})
    dataset = open_dataset(voc)
    assert dataset.problems == ()  # val is not even on the list that is made of SBD
    samples = {s.key.split("/")[1]: s for s in dataset.samples}
    assert {k for k, s in samples.items() if s.split == "val"} == set(VAL)
    assert samples["2007_000001"].source.startswith("PASCAL VOC")
    assert IGNORE in samples["2007_000001"].read()[1]


def test_a_picture_of_val_in_a_training_list_counts_as_val(voc: Path) -> None:
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("2007_000001\n2008_000003\n")
    dataset = open_dataset(voc)
    assert {s.split for s in dataset.samples if s.key.endswith("2008_000003")} == {"val"}
    (problem,) = dataset.problems
    assert (problem.kind, problem.where) == ("split", "voc2012/2008_000003")
    assert "trainaug.txt" in problem.text


@pytest.mark.parametrize("damage", ["missing", "cut", "ids", "rgb", "no picture"])
def test_what_cannot_be_used_is_named_and_skipped_only_on_request(voc: Path, damage: str) -> None:
    mask = voc / "SegmentationClass" / "2007_000002.png"
    kind, named = {
        "missing": ("missing", mask),
        "cut": ("unreadable", mask),
        "ids": ("ids", mask),
        "rgb": ("mode", mask),
        "no picture": ("missing", voc / "JPEGImages" / "2007_000002.jpg"),
    }[damage]
    if damage in ("missing", "no picture"):
        named.unlink()
    elif damage == "cut":
        cut(mask)
    elif damage == "ids":
        save_mask(mask, labels_of((21, 2, 5)))
    else:
        save_picture(mask)
    with pytest.raises(DataError, match=r"2007_000002.*datasets check") as caught:
        open_dataset(voc)
    assert caught.value.kind == kind
    dataset = open_dataset(voc, skip_broken=True)
    assert len(dataset.samples) == 3
    (problem,) = dataset.problems
    assert (problem.kind, problem.where) == (kind, "voc2012/2007_000002")
    assert str(named) in problem.text


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", None])
def test_a_broken_mat_is_named(voc: Path, content: bytes | None) -> None:
    sbd = add_sbd(voc, EXTRA)
    file = sbd / "cls" / "2009_000005.mat"
    if content is None:
        save_sbd(file, "GTinst", labels_of((DOG, 2, 5)))  # the wrong kind of file
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"2009_000005\.mat: cannot be read"):
        open_dataset(voc)


def test_object_masks_of_another_size_are_refused(voc: Path) -> None:
    save_mask(voc / "SegmentationObject" / "2007_000001.png", np.ones((5, 5), np.uint8))
    with pytest.raises(DataError, match=r"SegmentationObject.*\(24, 32\).*\(5, 5\)"):
        open_dataset(voc).samples[0].instances(CAT)


@pytest.mark.parametrize(
    "part", ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt"]
)
def test_a_missing_part_is_named(voc: Path, part: str) -> None:
    (voc / part).rename(voc / "elsewhere")
    with pytest.raises(FileNotFoundError, match=part.rpartition("/")[2]):
        open_dataset(voc, "voc")
