"""COCO's annotations as class masks: numbering, overlaps, crowds, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.folders import SIZE, polygon, write_coco
from training.datasets import IGNORE, DataError, open_dataset

LARGE = {"category_id": 90, "segmentation": polygon(2, 2, 20, 16)}
SMALL = {"category_id": 2, "segmentation": polygon(6, 6, 5, 5)}


def counts(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length code: column by column, zeros first."""
    found, value = [0], 0
    for pixel in mask.T.ravel():
        if pixel != value:
            found.append(0)
            value = pixel
        found[-1] += 1
    return found


def crowd(mask: np.ndarray, category: int = 1) -> dict[str, Any]:
    code = {"counts": counts(mask), "size": list(SIZE)}
    return {"category_id": category, "iscrowd": 1, "segmentation": code}


def read(folder: Path) -> np.ndarray:
    (sample,) = open_dataset(folder).samples
    pixels, labels = sample.read()
    assert (pixels.shape, labels.dtype) == ((*SIZE, 3), np.uint8)
    return labels


@pytest.mark.parametrize("order", [(LARGE, SMALL), (SMALL, LARGE)])
def test_the_smaller_object_lies_on_top(tmp_path: Path, order: tuple[dict[str, Any], ...]) -> None:
    labels = read(write_coco(tmp_path, {7: order}))
    expected = np.zeros(SIZE, np.uint8)
    expected[2:18, 2:22] = 4  # category 90 is the fourth
    expected[6:11, 6:11] = 2
    assert np.array_equal(labels, expected)


def test_of_equal_objects_the_later_lies_on_top(tmp_path: Path) -> None:
    first = {"category_id": 1, "segmentation": polygon(2, 2, 8, 8)}
    second = {"category_id": 13, "segmentation": polygon(6, 2, 8, 8)}
    assert read(write_coco(tmp_path, {7: (first, second)}))[4, 7] == 3


def test_a_crowd_is_ignored_where_no_object_lies(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[4:20, 4:30] = 1
    labels = read(write_coco(tmp_path, {7: (SMALL, crowd(mask))}))
    assert (labels[6:11, 6:11] == 2).all()
    mask[6:11, 6:11] = 0
    assert np.array_equal(labels == IGNORE, mask == 1)
    assert open_dataset(tmp_path).samples[0].classes == {2: 25 / 768}


def test_both_run_length_forms_and_several_polygons_are_one_object(tmp_path: Path) -> None:
    from pycocotools import mask as tools

    mask = np.zeros(SIZE, np.uint8, "F")
    mask[3:9, 1:30] = 1
    packed = tools.encode(mask)
    compressed = {"counts": packed["counts"].decode(), "size": list(SIZE)}
    plain = {"counts": counts(mask), "size": list(SIZE)}
    parts = polygon(1, 12, 4, 4) + polygon(9, 12, 4, 4) + [[1, 2, 3, 4]]  # the last: a line
    write_coco(
        tmp_path,
        {
            1: [{"category_id": 1, "segmentation": compressed}],
            2: [{"category_id": 1, "segmentation": plain}],
            3: [{"category_id": 1, "segmentation": parts}],
            4: [{"category_id": 1, "segmentation": [[1, 2, 3, 4]]}],
        },
    )
    first, second, third, none = open_dataset(tmp_path).samples
    assert np.array_equal(first.read()[1], mask)
    assert np.array_equal(second.read()[1], mask)
    found = third.instances(1)
    assert found is not None
    assert [int(region.sum()) for region in found] == [32]
    assert none.classes == {}


def test_instances_are_whole_and_without_crowds(tmp_path: Path) -> None:
    other = {"category_id": 90, "segmentation": polygon(24, 2, 4, 4)}
    write_coco(tmp_path, {7: (LARGE, SMALL, other, crowd(np.ones(SIZE, np.uint8), 90))})
    found = open_dataset(tmp_path).samples[0].instances(4)
    assert found is not None
    assert sorted(int(region.sum()) for region in found) == [16, 320]


def test_splits_names_keys_and_licences(tmp_path: Path) -> None:
    write_coco(tmp_path, {7: [LARGE]})
    write_coco(tmp_path, {8: [SMALL]}, "val")
    dataset = open_dataset(tmp_path)
    assert dataset.class_names == ("background", "c1", "c2", "c13", "c90")
    assert [(s.key, s.split) for s in dataset.samples] == [
        ("coco/000000000007", "train"),
        ("coco/000000000008", "val"),
    ]
    assert all(s.restricted for s in dataset.samples)


def test_categories_that_differ_between_the_splits_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, {7: [LARGE]})
    write_coco(tmp_path, {8: [SMALL]}, "val", categories=(1, 2, 3))
    with pytest.raises(DataError, match=r"instances_val2017.*same categories"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("annotation", "kind", "text"),
    [
        ({"category_id": 5, "segmentation": polygon(1, 1, 5, 5)}, "ids", "category 5"),
        (
            {"category_id": 1, "segmentation": {"counts": [9], "size": [3, 3]}},
            "unreadable",
            r"size \[3, 3\]",
        ),
        ({"category_id": 1, "segmentation": polygon(1, 1, 10**9, 5)}, "unreadable", "far outside"),
        ({"category_id": 1, "segmentation": [[1.0, 2.0, 3.0]]}, "unreadable", "x, y"),
        ({"category_id": 1, "segmentation": [[float("nan")] * 6]}, "unreadable", "far outside"),
        ({"category_id": 1}, "unreadable", "segmentation"),
    ],
)
def test_a_bad_annotation_names_its_picture(
    tmp_path: Path, annotation: dict[str, Any], kind: str, text: str
) -> None:
    write_coco(tmp_path, {7: [annotation], 8: [SMALL]})
    with pytest.raises(DataError, match=f"000000000007.*{text}"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, skip_broken=True)
    assert [s.key for s in dataset.samples] == ["coco/000000000008"]
    assert [p.kind for p in dataset.problems] == [kind]


def test_missing_pictures_and_folders_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path, {7: [LARGE], 8: [SMALL]})
    (tmp_path / "train2017" / "000000000008.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000008\.jpg: no such file"):
        open_dataset(tmp_path)
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="train2017/"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_annotations_that_do_not_parse_are_named(tmp_path: Path, damage: str) -> None:
    file = write_coco(tmp_path, {7: [LARGE]}) / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text()[:100] if damage == "cut" else json.dumps({"images": []}))
    with pytest.raises(DataError, match=r"instances_train2017\.json.*Fetch it again"):
        open_dataset(tmp_path)


def test_without_pycocotools_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coco(tmp_path, {7: [LARGE]})
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pycocotools"):
        open_dataset(tmp_path)


def test_a_kept_index_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path, {7: (LARGE, SMALL)})
    first = open_dataset(tmp_path)
    monkeypatch.setattr("training.datasets.coco.parse", None)
    assert open_dataset(tmp_path) == first
