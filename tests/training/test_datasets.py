"""Data folders: what is missing or wrong is named; what may not be trained on is known."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import WriteSet, row
from tests.training.folders import cut
from training.datasets import DataError, Dataset, open_dataset
from training.run import open_samples
from training.settings import DataSettings


def test_a_drawn_set_opens_and_has_no_problems(drawn: Path) -> None:
    dataset = Dataset.open(drawn)
    assert dataset.name == "parts"
    assert dataset.class_names[0] == "background"
    assert len(dataset.samples) == 8
    assert dataset.problems == ()
    pixels, labels = dataset.samples[0].read()
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert pixels.shape == (*labels.shape, 3)


@pytest.mark.parametrize("name", ["index.jsonl", "meta.json"])
def test_a_missing_file_is_named(write_set: WriteSet, name: str) -> None:
    folder = write_set(row(1))
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Dataset.open(folder)


@pytest.mark.parametrize("line", ["{", "[]", '{"image": "a.png"}', json.dumps(row(3, classes=4))])
def test_a_bad_line_is_numbered(write_set: WriteSet, line: str) -> None:
    folder = write_set(row(1), row(2))
    with (folder / "index.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"index\.jsonl line 3: "):
        Dataset.open(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"classes": "dot", "licence": ""}', '{"classes": []}']
)
def test_a_bad_meta_is_named(write_set: WriteSet, text: str) -> None:
    folder = write_set(row(1))
    (folder / "meta.json").write_text(text)
    with pytest.raises(DataError, match=r"meta\.json: expected"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    ("file", "damage", "kind"),
    [
        ("images/1.png", "cut", "unreadable"),
        ("images/1.png", "gone", "missing"),
        ("images/1.png", "text", "unreadable"),
        ("masks/1.png", "cut", "unreadable"),
        ("masks/1.png", "gone", "missing"),
        ("masks/1.png", "rgb", "mode"),
    ],
)
def test_reading_names_the_file_that_cannot_be_used(
    write_set: WriteSet, file: str, damage: str, kind: str
) -> None:
    path = write_set(row(1)) / file
    sample = Dataset.open(path.parents[1]).samples[0]
    if damage == "cut":
        cut(path)
    elif damage == "gone":
        path.unlink()
    elif damage == "rgb":
        Image.new("RGB", (60, 40)).save(path)
    else:
        path.write_text("no picture")
    with pytest.raises(DataError, match=re.escape(f"{path}: ")) as caught:
        sample.read()
    assert (caught.value.file, caught.value.kind) == (str(path), kind)


def test_an_error_keeps_its_file_on_its_way_out_of_a_process() -> None:
    error = copy.copy(DataError("a.png: cut off", "a.png", "size"))  # as pickling does
    assert (str(error), error.file, error.kind) == ("a.png: cut off", "a.png", "size")


@pytest.mark.parametrize("layout", ["indexed", "voc", "coco", "fss1000", "auto"])
def test_a_folder_of_no_layout_is_refused(tmp_path: Path, layout: str) -> None:
    (tmp_path / "README").touch()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}.*expected"):
        open_dataset(tmp_path, layout)
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_dataset(tmp_path / "nothing", layout)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout: expected auto or one of indexed, voc"):
        open_dataset(tmp_path, "imagenet")


def test_an_indexed_folder_is_found_by_itself(drawn: Path) -> None:
    assert open_dataset(drawn) == Dataset.open(drawn)


def test_the_folder_that_one_stands_in_has_a_name(
    write_set: WriteSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_set(row(0), name="parts")
    monkeypatch.chdir(folder)
    dataset = open_dataset(".")
    assert dataset.name == "parts"
    assert dataset.samples[0].key == "parts/0"
    monkeypatch.chdir(folder / "images")
    assert open_dataset("..").name == "parts"


def test_a_mask_of_another_size_is_refused(write_set: WriteSet) -> None:
    folder = write_set(row(1))
    Image.new("L", (61, 40)).save(folder / "masks" / "1.png")
    sample = Dataset.open(folder).samples[0]
    with pytest.raises(ValueError, match=r"1\.png.*\(40, 60\), got \(40, 61\)"):
        sample.read()


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        (None, False),
        ("Attribution License", False),
        ("Attribution-ShareAlike License", False),
        ("Attribution-NonCommercial License", True),
        ("Attribution-NoDerivs License", True),
        ("Attribution-NonCommercial-ShareAlike License", True),
        ("CC BY-NC 4.0", True),
        ("cc-by-nd-2.0", True),
        ("non-commercial use only", True),
        ("CC BY 4.0, sand and concrete", False),
    ],
)
def test_restricted_by_the_text_of_the_licence(
    write_set: WriteSet, licence: str | None, restricted: bool
) -> None:
    sample = Dataset.open(write_set(row(1, image_licence=licence))).samples[0]
    assert sample.restricted is restricted


def test_restricted_and_held_out_pictures_are_watched_only(write_set: WriteSet) -> None:
    folder = write_set(
        row(1), row(2, split="val"), row(3, image_licence="Attribution-NonCommercial License")
    )
    training, watched = open_samples(DataSettings((folder.name,)), folder.parent)
    assert [sample.key for sample in training] == ["dots/1"]
    assert [sample.key for sample in watched] == ["dots/2", "dots/3"]
    both = DataSettings((folder.name,), include_restricted=True)
    training, watched = open_samples(both, folder.parent)
    assert [sample.key for sample in training] == ["dots/1", "dots/3"]


@pytest.mark.parametrize("by_picture", [False, True])
def test_terms_of_the_set_count_where_none_are_stated_by_picture(
    write_set: WriteSet, by_picture: bool
) -> None:
    rows = [row(1, image_licence="Attribution License") if by_picture else row(1), row(2)]
    folder = write_set(*rows)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "licence": "some non-commercial"}))
    samples = Dataset.open(folder).samples
    assert [sample.restricted for sample in samples] == [not by_picture] * 2
    assert samples[1].licence == (None if by_picture else "some non-commercial")
