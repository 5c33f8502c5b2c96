"""Folds: what is novel where, which pictures may be trained on, how novel pixels are hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.folders import write_fss, write_voc
from training.datasets import (
    IGNORE,
    SPLITS,
    Fold,
    Sample,
    fold_by_split,
    fold_of,
    open_dataset,
)
from training.datasets.folds import BaseOnly
from training.datasets.voc import CLASSES


def sample(name: str, *classes: int, split: str = "train") -> Sample:
    shown = dict.fromkeys(classes, 0.1)
    return Sample("s", Path(f"{name}.jpg"), Path(f"{name}.png"), split, shown, "", None)


@pytest.mark.parametrize("split", SPLITS)
def test_the_four_folds_share_the_classes_out(split: str) -> None:
    count = 20 if split == "pascal-5i" else 80
    folds = [fold_of(split, number) for number in range(4)]
    assert sorted(k for fold in folds for k in fold.novel) == list(range(1, count + 1))
    for fold in folds:
        assert len(fold.novel) == count // 4
        assert sorted(fold.base + fold.novel) == list(range(1, count + 1))


def test_the_folds_are_the_published_ones() -> None:
    names = [[CLASSES[k] for k in fold_of("pascal-5i", i).novel] for i in range(4)]
    assert names == [
        ["aeroplane", "bicycle", "bird", "boat", "bottle"],
        ["bus", "car", "cat", "chair", "cow"],
        ["diningtable", "dog", "horse", "motorbike", "person"],
        ["pottedplant", "sheep", "sofa", "train", "tvmonitor"],
    ]
    assert fold_of("coco-20i-contiguous", 1).novel == tuple(range(21, 41))
    # HSNet's code counts classes from 0: fold + 4 v
    assert fold_of("coco-20i-interleaved", 1).novel == tuple(1 + 4 * v + 1 for v in range(20))


@pytest.mark.parametrize(
    ("split", "number", "text"),
    [("pascal", 0, "split"), ("pascal-5i", 4, "fold"), ("pascal-5i", -1, "fold")],
)
def test_other_folds_are_refused(split: str, number: int, text: str) -> None:
    with pytest.raises(ValueError, match=f"{text}: expected"):
        fold_of(split, number)


def test_no_class_is_base_and_novel() -> None:
    with pytest.raises(ValueError, match=r"no class in both, got \[2\]"):
        Fold("mine", 0, (1, 2), (2, 3))


shown_classes = st.lists(st.sets(st.integers(1, 20), max_size=4), max_size=12)


@settings(max_examples=50, deadline=None)
@given(shown=shown_classes, number=st.integers(0, 3))
def test_what_is_tested_is_not_trained_on(shown: list[set[int]], number: int) -> None:
    samples = [sample(str(n), *classes) for n, classes in enumerate(shown)]
    fold = fold_of("pascal-5i", number)
    training, test = fold.training_pool(samples), fold.test_pool(samples)
    assert not {s.key for s in training} & {s.key for s in test}
    assert {s.key for s in test} == {s.key for s in samples if set(s.classes) & set(fold.novel)}
    assert all(set(s.classes) & set(fold.base) for s in training)
    kept = fold.training_pool(samples, keep_novel=True)
    assert {s.key for s in kept} == {s.key for s in samples if set(s.classes) & set(fold.base)}


def test_a_class_needs_more_pictures_than_shots() -> None:
    samples = [sample("a", 1), sample("b", 1, 2), sample("c", 1, 2), sample("d", 3, 6)]
    fold = fold_of("pascal-5i", 0)
    assert fold.usable(samples) == (1, 2)
    assert fold.usable(samples, 2) == (1,)
    assert fold.usable(samples, 3) == ()
    with pytest.raises(ValueError, match="shots: expected 1 or more"):
        fold.usable(samples, 0)


@pytest.mark.parametrize("label", [0, IGNORE])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_novel_pixels_are_hidden(label: int, dtype: type) -> None:
    labels = np.array([[0, 1, 5, 6, 20, 255]], dtype)
    hidden = fold_of("pascal-5i", 0).hide_novel(labels, label)
    assert hidden.tolist() == [[0, label, label, 6, 20, 255]]
    assert hidden.dtype == dtype
    with pytest.raises(ValueError, match="label: expected 0"):
        fold_of("pascal-5i", 0).hide_novel(labels, 3)


@pytest.mark.parametrize("label", [0, IGNORE])
def test_training_sees_base_classes_only(tmp_path: Path, label: int) -> None:
    cat, person = 8, 15
    folder = write_voc(
        tmp_path, {"2007_000001": [(cat, 2, 6), (person, 12, 8)]}, {"2007_000002": []}
    )
    inner = open_dataset(folder).samples[0]
    seen = BaseOnly.of(inner, fold_of("pascal-5i", 1), label)
    assert set(seen.classes) == {person}
    pixels, labels = seen.read()
    assert np.array_equal(pixels, inner.read()[0])
    truth = inner.read()[1]
    assert np.array_equal(labels == person, truth == person)
    assert (labels[truth == cat] == label).all()
    assert np.array_equal(seen.read_labels(), labels)
    assert seen.instances(cat) is None
    assert len(seen.instances(person) or ()) == 1


def test_a_hidden_picture_keeps_its_name(tmp_path: Path) -> None:
    dataset = open_dataset(write_fss(tmp_path, ("abacus", "bus"), ["bus"]))
    fold = fold_by_split(dataset.samples)
    assert BaseOnly.of(dataset.samples[0], fold).key == "fss1000/abacus/1"


def test_a_set_that_is_not_split_by_class_has_no_such_fold() -> None:
    with pytest.raises(ValueError, match="'train' and 'test'"):
        fold_by_split([sample("a", 1), sample("b", 2, split="val")])
    with pytest.raises(ValueError, match=r"no class in both, got \[1\]"):
        fold_by_split([sample("a", 1), sample("b", 1, split="test")])
