"""Data folders: what is missing or wrong is named; what may not be trained on is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import WriteSet, row
from training.__main__ import main, split_samples
from training.datasets import Dataset


def test_a_drawn_set_opens_and_has_no_problems(drawn: Path) -> None:
    dataset = Dataset.open(drawn)
    assert dataset.name == "parts"
    assert dataset.class_names[0] == "background"
    assert len(dataset.samples) == 8
    assert dataset.problems() == []
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


def test_a_mask_of_another_size_is_refused(write_set: WriteSet) -> None:
    folder = write_set(row(1))
    Image.new("L", (61, 40)).save(folder / "masks" / "1.png")
    sample = Dataset.open(folder).samples[0]
    with pytest.raises(ValueError, match=r"1\.png.*\(40, 60\), got \(40, 61\)"):
        sample.read()


def test_problems_are_found_and_named(write_set: WriteSet) -> None:
    folder = write_set(*(row(number) for number in range(1, 6)))
    Image.new("L", (61, 40)).save(folder / "masks" / "1.png")
    Image.new("L", (60, 40), 7).save(folder / "masks" / "2.png")
    (folder / "images" / "3.png").write_bytes(b"no picture")
    (folder / "masks" / "4.png").unlink()
    problems = Dataset.open(folder).problems()
    named = ("dots/1: ", "dots/2: ", "dots/2: ", "dots/3: ", "dots/4: ")
    assert len(problems) == len(named)
    assert all(text.startswith(key) for text, key in zip(problems, named, strict=True)), problems
    assert "ids [7]" in problems[1]
    assert "classes [1]" in problems[2]


def test_check_says_what_is_wrong(write_set: WriteSet, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_set(row(1))
    assert main(["check", "--data", str(folder)]) == 0
    Image.new("L", (60, 40), 7).save(folder / "masks" / "1.png")
    assert main(["check", "--data", str(folder)]) == 1
    assert "2 problems" in capsys.readouterr().out
    (folder / "meta.json").unlink()
    assert main(["check", "--data", str(folder)]) == 2
    assert "meta.json" in capsys.readouterr().err


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
    training, watched = split_samples([folder], include_restricted=False)
    assert [sample.key for sample in training] == ["dots/1"]
    assert [sample.key for sample in watched] == ["dots/2", "dots/3"]
    training, watched = split_samples([folder], include_restricted=True)
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
