"""What is marked in supports: labels, boxes under their right names, masks that show nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.datasets import DataError, open_dataset
from training.evaluation.pictures import mark, marked_as, way_labels
from training.evaluation.protocols import PANET_417

from .folders import add_sbd, write_voc
from .squares import draw_parts


def test_labels_of_the_classes_asked_for() -> None:
    labels = np.array([[0, 7, 9, 255]], np.uint8)
    assert way_labels(labels, (9, 7), "leave out").tolist() == [[0, 2, 1, 255]]
    assert way_labels(labels, (9,), "background").tolist() == [[0, 0, 1, 0]]
    many = np.array([[0, 700, 300]], np.uint16)
    assert way_labels(many, (300,), "leave out").tolist() == [[0, 0, 1]]


def test_boxes_of_a_set_without_instances_are_called_those_of_components(tmp_path: Path) -> None:
    parts = draw_parts(tmp_path / "parts")
    kinds = ["dense", "box-largest", "box-component", "box-random"]
    expected = ["dense", "box-component", "box-component-random"]
    assert marked_as(kinds, parts.samples) == expected


def test_boxes_are_those_of_instances_only_if_every_picture_has_them(tmp_path: Path) -> None:
    """VOC's own pictures, the first ones, tell objects apart; SBD's as plain masks do not."""
    squares = [(1, 2, 5), (1, 12, 9)]
    voc = write_voc(tmp_path, {"2007_000001": squares}, {"2007_000002": squares})
    kinds = ["box-largest", "box-random"]
    assert marked_as(kinds, open_dataset(voc).samples) == kinds
    add_sbd(voc, {"2008_000001": squares}, aug=True)
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2008_000001\n")
    data = open_dataset(voc)
    assert len(data.samples) == 3
    assert marked_as(kinds, data.samples) == ["box-component", "box-component-random"]
    unknown = data.samples[-1]
    assert mark("box-component", unknown, unknown.read_labels(), 1, PANET_417) is not None
    with pytest.raises(DataError, match=r"2008_000001\.png: box-largest needs the objects"):
        mark("box-largest", unknown, unknown.read_labels(), 1, PANET_417)


def test_a_mask_without_the_class_of_its_index_is_named(tmp_path: Path) -> None:
    sample = draw_parts(tmp_path / "parts").samples[0]
    labels = np.zeros_like(sample.read_labels())
    with pytest.raises(DataError, match=r"masks.00\.png: expected class 2.*datasets check"):
        mark("dense", sample, labels, 2, PANET_417)
