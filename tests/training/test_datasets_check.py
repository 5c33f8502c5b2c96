"""`python -m training.datasets check`: each problem is found, named and counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import data_root
from tests.training.conftest import WriteSet, row
from tests.training.folders import cut, save_mask, save_picture, write_fss, write_voc
from training.datasets.__main__ import main


def check(
    capsys: pytest.CaptureFixture[str], folder: Path, *options: str
) -> tuple[int, dict[str, Any]]:
    code = main(["check", str(folder), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def different(folder: Path) -> Path:
    """Give each picture its own bytes."""
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        save_picture(file, number)
        Image.open(file).resize((60, 40)).save(file)
    return folder


def test_a_drawn_set_has_nothing_wrong(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(drawn)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("parts: 8 pictures (")
    assert lines[-1] == "nothing wrong"


def test_each_problem_is_named(write_set: WriteSet, capsys: pytest.CaptureFixture[str]) -> None:
    folder = different(write_set(*(row(number) for number in range(1, 9))))
    Image.new("L", (61, 40)).save(folder / "masks" / "1.png")
    Image.new("L", (60, 40), 7).save(folder / "masks" / "2.png")
    cut(folder / "images" / "3.png")
    (folder / "masks" / "4.png").unlink()
    Image.new("RGB", (60, 40)).save(folder / "masks" / "5.png")
    Image.new("L", (60, 40), 255).save(folder / "masks" / "6.png")
    code, found = check(capsys, folder)
    assert code == 1
    assert {(p["kind"], p["where"]) for p in found["problems"]} == {
        ("size", "dots/1"),
        ("ids", "dots/2"),
        ("index", "dots/2"),
        ("unreadable", "dots/3"),
        ("missing", "dots/4"),
        ("mode", "dots/5"),
        ("index", "dots/6"),
    }
    assert found["counts"]["index"] == 2
    assert "ids [7]" in next(p["text"] for p in found["problems"] if p["kind"] == "ids")


def test_a_class_that_the_index_hides_is_found(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a picture with a novel class could be trained on."""
    folder = write_set(row(1, classes=[]))
    code, found = check(capsys, folder)
    assert (code, found["counts"]) == (1, {"index": 1})
    assert "classes [1] are in the mask, not in the index" in found["problems"][0]["text"]


def test_pictures_of_two_splits_are_found(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = different(
        write_set(row(1), row(2), row(3), row(4, split="val"), row(5, split="val"), row(2))
    )
    shutil.copy(folder / "images" / "1.png", folder / "images" / "4.png")
    shutil.copy(folder / "images" / "1.png", folder / "images" / "3.png")
    shutil.copy(folder / "images" / "2.png", folder / "images" / "2.jpg")
    with (folder / "index.jsonl").open("a") as file:
        file.write(json.dumps(row(5)) + "\n" + json.dumps(row(2, image="images/2.jpg")) + "\n")
    code, found = check(capsys, folder)
    assert code == 1
    problems = {p["kind"]: p for p in found["problems"]}
    assert problems["split"]["where"] == "dots/5"
    assert problems["key"]["where"] == "dots/2"
    assert problems["duplicate"]["where"] == "dots/1"
    assert "dots/4 (val)" in problems["duplicate"]["text"]
    assert len(found["problems"]) == 3


def test_a_line_given_twice_is_found(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(row(1))
    with (folder / "index.jsonl").open("a") as file:
        file.write(json.dumps(row(1)))
    assert check(capsys, folder)[1]["counts"] == {"index": 1}


def test_alike_pictures_of_one_split_are_no_problem(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys, write_set(row(1), row(2)))[0] == 0


def test_only_so_many_are_printed(write_set: WriteSet, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_set(*(row(number) for number in range(1, 8)))
    for number in range(1, 8):
        (folder / "masks" / f"{number}.png").unlink()
    assert main(["check", str(folder), "--most", "3"]) == 1
    text = capsys.readouterr().out
    assert "missing: files or folders that are not there: 7\n" in text
    assert "  and 4 more" in text
    assert text.count("no such file") == 3
    assert text.endswith("7 problems\n")
    main(["check", str(folder), "--most", "0"])
    assert capsys.readouterr().out.count("no such file") == 7


def test_folds_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"2007_{n:06d}": [(15, 2, 6)] for n in range(3)}
    train |= {f"2008_{n:06d}": [(k, 2, 6)] for n, k in enumerate((8, 8, 9, 9))}
    folder = write_voc(tmp_path / "data", train, {"2009_000001": [(8, 2, 6), (15, 12, 6)]})
    options = ("--split", "pascal-5i", "--shots", "2")
    code, found = check(capsys, folder, *options, "--fold", "1")
    assert code == 0
    assert {(w["kind"], w["where"]) for w in found["warnings"] if w["kind"] == "few"} == {
        ("few", "pascal-5i fold 1, chair")
    }
    assert "no pictures" in {w["kind"] for w in found["warnings"]}
    assert (
        "3 pictures to train on, 5 show a novel class (cat 3, chair 2); 1 of 5"
        in (found["folds"][0])
    )
    code, found = check(capsys, folder, *options)
    assert code == 1
    assert {p["where"] for p in found["problems"]} == {"pascal-5i fold 0", "pascal-5i fold 3"}
    code, found = check(capsys, folder, "--split", "coco-20i-contiguous", "--fold", "0")
    assert "needs 80 classes, the set has 20" in found["problems"][0]["text"]


def test_a_fold_without_training_pictures_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_voc(
        tmp_path / "data",
        {"2007_000001": [(8, 2, 6)]},
        {"2007_000002": [(8, 2, 6)], "2007_000003": [(1, 2, 6)]},
    )
    code, found = check(capsys, folder, "--split", "pascal-5i", "--fold", "1")
    assert code == 1
    assert "no picture split 'train' shows a base class" in found["problems"][0]["text"]


def test_sets_split_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_fss(tmp_path, ("abacus", "bus"), ["bus"])
    code, found = check(capsys, folder, "--split", "by-split", "--shots", "9")
    assert (code, found["pictures"]) == (0, 20)
    assert "1 of 1 novel classes" in found["folds"][0]
    code, found = check(capsys, folder, "--split", "by-split", "--shots", "10")
    assert code == 1


def test_problems_of_opening_are_counted_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_voc(
        tmp_path / "data",
        {"2007_000001": [(8, 2, 6)], "2007_000002": [(8, 2, 6)]},
        {"2007_000003": [(8, 2, 6)]},
        {"trainaug": ["2007_000003", "2007_000009"]},
    )
    cut(folder / "SegmentationClass" / "2007_000001.png")
    save_mask(folder / "SegmentationClass" / "2007_000002.png", np.full((24, 32), 21, np.uint8))
    code, found = check(capsys, folder)
    assert (code, found["counts"]) == (1, {"split": 1, "unreadable": 1, "ids": 1, "missing": 1})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--layout", "voc"], "expected a VOC2012 folder"),
        (["--fold", "1"], "--fold: expected --split"),
        (["--shots", "0"], "--shots takes 1 or more"),
        (["--split", "by-split"], "split 'train' and 'test'"),
    ],
)
def test_what_cannot_be_checked_says_why(
    write_set: WriteSet,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    folder = write_set(row(1))
    try:
        code: object = main(["check", str(folder), *arguments])
    except SystemExit as exit:  # argparse's own way
        code = exit.code
    assert code == 2
    assert text in capsys.readouterr().err


def test_nothing_that_can_be_used_names_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_voc(tmp_path, {"2007_000001": [(8, 2, 6)]}, {"2007_000002": [(8, 2, 6)]})
    for number in (1, 2):
        (folder / "JPEGImages" / f"2007_00000{number}.jpg").unlink()
    assert main(["check", str(folder)]) == 2
    assert "2007_000001.jpg: no such file" in capsys.readouterr().err


@pytest.mark.skipif(data_root() is None, reason="needs labelled pictures (FSSEG_DATA)")
def test_a_real_set_has_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    root = data_root()
    assert root is not None
    code, found = check(capsys, root / "carrot_weed", "--workers", "1")
    assert (code, found["warnings"]) == (0, [])
