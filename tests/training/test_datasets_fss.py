"""FSS-1000: class folders, binary masks, splits by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.folders import SIZE, cut, write_fss
from training.datasets import DataError, fold_by_split, open_dataset
from training.datasets.check import class_ids

NAMES = ("abacus", "bus", "cat")


def test_ten_pictures_a_class_with_binary_masks(tmp_path: Path) -> None:
    dataset = open_dataset(write_fss(tmp_path, NAMES, ["bus"]))
    assert dataset.class_names == ("background", *NAMES)
    assert len(dataset.samples) == 30
    assert len({sample.key for sample in dataset.samples}) == 30
    sample = next(s for s in dataset.samples if s.key == "fss1000/bus/3")
    assert sample.split == "test"
    assert sample.classes == {2: 30 / 768}
    _, labels = sample.read()
    expected = np.zeros(SIZE, np.uint16)
    expected[4:7, 5:15] = 2  # without the soft edge
    assert np.array_equal(labels, expected)


def test_base_classes_are_those_that_are_not_tested(tmp_path: Path) -> None:
    write_fss(tmp_path, (*NAMES, "dog"), ["bus"])
    (tmp_path / "val.txt").write_text("cat\n")
    fold = fold_by_split(open_dataset(tmp_path).samples)
    assert (fold.base, fold.novel) == ((1, 4), (2,))


def test_no_class_of_a_large_set_is_ignore(tmp_path: Path) -> None:
    for number in range(258):
        folder = tmp_path / f"c{number:03d}"
        folder.mkdir()
        for n in range(1, 11):
            if number in (0, 257):
                Image.new("RGB", (4, 4), "white").save(folder / f"{n}.jpg")
                Image.new("L", (4, 4), 255).save(folder / f"{n}.png")
    (tmp_path / "test.txt").write_text("c257\n")
    dataset = open_dataset(tmp_path, skip_broken=True)
    assert {k for s in dataset.samples for k in s.classes} == {1, 259}
    assert dataset.class_names[259] == "c257"
    assert dataset.class_names[254] == "c253"
    assert dataset.class_names[256] == "c254"
    assert 255 not in class_ids(dataset)
    assert (dataset.samples[-1].read()[1] == 259).all()


def test_a_list_can_be_named_and_is_asked_for(tmp_path: Path) -> None:
    folder = write_fss(tmp_path / "set", NAMES)
    with pytest.raises(FileNotFoundError, match=r"fss_test_set\.txt.*test_list"):
        open_dataset(folder)
    (tmp_path / "mine.txt").write_text("cat\n\n")
    dataset = open_dataset(folder, test_list=tmp_path / "mine.txt")
    assert {s.split for s in dataset.samples if "/cat/" in s.key} == {"test"}
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        open_dataset(folder, test_list=tmp_path / "none.txt")


def test_missing_and_broken_parts_are_named(tmp_path: Path) -> None:
    write_fss(tmp_path, NAMES, ["bus", "zebra"])
    (tmp_path / "abacus" / "4.jpg").unlink()
    (tmp_path / "abacus" / "5.png").unlink()
    cut(tmp_path / "cat" / "6.png")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "cat" / "7.png")
    with pytest.raises(DataError, match=r"5 of its pictures.*zebra: listed"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, skip_broken=True)
    assert len(dataset.samples) == 26
    assert {(p.kind, p.where) for p in dataset.problems} == {
        ("missing", "zebra"),
        ("missing", "fss1000/abacus/4"),
        ("missing", "fss1000/abacus/5"),
        ("unreadable", "fss1000/cat/6"),
        ("empty", "fss1000/cat/7"),
    }
