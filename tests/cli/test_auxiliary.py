"""``--auxiliary`` and ``--kept``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import InputError, Segmenter
from fsseg_sdk.cli.auxiliary import read_folder
from tests.tiny import tiny_scene

from .conftest import Place, Run


@pytest.fixture
def more(place: Place) -> Path:
    """A folder of three pictures with the square."""
    folder = place.folder / "more"
    folder.mkdir()
    for number in range(3):
        left = 10 + 30 * number
        picture, _ = tiny_scene((90, 120), (left, 20, left + 40, 60), (220, 40 + 20 * number, 30))
        Image.fromarray(picture).save(folder / f"a{number}.png")
    (folder / ".hidden").write_text("left alone")
    return folder


def test_prepare_with_a_sheet_of_what_was_kept(place: Place, more: Path, run: Run) -> None:
    asked = ["prepare", "--class", "square", place.support, place.mask, "--bundle", place.bundle]
    asked += ["--method", "paia", "--setting", "steps=2", "--auxiliary", more]
    done = run(*asked, "--out", "new.task", "--kept", "kept.png")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].strip() == "1  square: 1 shot, 3 auxiliary"
    sheet = np.asarray(Image.open("kept.png"))
    assert sheet.shape == (26 + 8 + 3 * (192 + 8 + 26), 3 * (256 + 8) + 8, 3)
    # the second picture after the last step: the square (50..90 of 120, 20..60 of 90) stays light
    top, left = 34 + 192 + 34, 8 + 2 * 264
    cell = sheet[top : top + 192, left : left + 256].astype(int).sum(2)
    inside = cell[20 * 192 // 90 + 22 : 60 * 192 // 90 - 22, 128 : 190 - 20]
    assert inside.min() > 1.5 * cell[:, :60].max()
    shown = run("task", "info", "new.task")
    assert [line.split() for line in shown.out.splitlines()[-2:]] == [
        ["label", "class", "shots", "auxiliary"],
        ["1", "square", "1", "3"],
    ]
    seg = Segmenter.load(place.bundle, method="paia", settings={"steps": 2})
    task = seg.load_task("new.task")
    pictures = {"square": sorted(more.glob("*.png"))}
    expected = seg.prepare({"square": (place.support, place.mask)}, pictures)
    query = place.queries / "q1.png"
    assert np.array_equal(task.segment(query).logits, expected.segment(query).logits)


def test_segment_with_and_without_a_task(place: Place, more: Path, run: Run) -> None:
    common = ["--bundle", place.bundle, "--method", "paia", "--json"]
    shown = ["--support", place.support, "--mask", place.mask, "--name", "square"]
    one = run("segment", "queries", *shown, *common, "--auxiliary", more, "--out", "one")
    assert one.code == 0
    task = ["--class", "square", place.support, place.mask, "--out", "new.task"]
    assert run("prepare", *task, *common).code == 0
    asked = ["segment", "queries", "--task", "new.task", *common]
    two = run(*asked, "--auxiliary", more, "--out", "two")
    bare = run(*asked, "--out", "bare")
    scores = [
        [entry["classes"]["square"]["score"] for entry in done.json["queries"]]
        for done in (one, two, bare)
    ]
    assert scores[0] == scores[1] != scores[2]


def test_what_was_left_out_is_said(place: Place, more: Path, run: Run) -> None:
    (more / "again.png").write_bytes((more / "a1.png").read_bytes())
    Image.fromarray(np.full((64, 64, 3), 110, np.uint8)).save(more / "grey.png")
    shot = ["--class", "square", place.support, place.mask, "--bundle", place.bundle]
    done = run("prepare", *shot, "--method", "paia", "--auxiliary", more, "--out", "n.task")
    assert done.code == 0
    (said,) = [line for line in done.err.splitlines() if "left out" in line]
    assert said.endswith(
        f"{more / 'again.png'}): left out, the same as image 2 ({more / 'a1.png'})"
    )
    for picture in more.glob("a*.png"):
        picture.unlink()
    asked = ["prepare", *shot, "--method", "paia", "--auxiliary", more, "--out", "n.task", "--json"]
    done = run(*asked)
    assert any(text.startswith("label 1:") for text in done.json["warnings"])
    assert "label 1:" in done.err


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt"),
        (lambda folder: (folder / "nut").mkdir(), "a0.png"),
        (lambda folder: (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "bad.png|image 4"),
        (lambda folder: [path.unlink() for path in folder.glob("*.png")], "without any"),
    ],
    ids=["no picture", "folder", "damaged", "empty"],
)
def test_folders_that_are_refused(
    place: Place, more: Path, run: Run, change: object, word: str
) -> None:
    import re

    change(more)  # type: ignore[operator]
    shot = ["--class", "square", place.support, place.mask, "--bundle", place.bundle]
    done = run("prepare", *shot, "--method", "paia", "--auxiliary", more, "--out", "new.task")
    assert done.code == 2
    assert done.err.startswith("fsseg: ") and done.err.count("\n") == 1
    assert re.search(word, done.err), done.err
    assert not Path("new.task").exists()


def test_methods_and_sheets_that_are_refused(place: Place, more: Path, run: Run) -> None:
    shot = ["--class", "square", place.support, place.mask, "--bundle", place.bundle]
    for extra, word in (
        (["--auxiliary", more], "auxiliary"),  # the method is panet
        (["--auxiliary", "nowhere", "--method", "paia"], "nowhere"),
        (["--kept", "kept.jpg", "--method", "paia"], "--kept"),
        (["--kept", "kept.gif", "--auxiliary", more, "--method", "paia"], "kept.gif"),
        (["--kept", place.mask / "k.jpg", "--auxiliary", more, "--method", "paia"], "k.jpg"),
    ):
        done = run("prepare", *shot, *extra, "--out", "new.task")
        assert (done.code, done.err.count("\n")) == (2, 1), extra
        assert word in done.err
        assert not Path("new.task").exists()


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name, count in (("bolt", 2), ("nut", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.jpg").touch()
    found = read_folder(str(tmp_path), ("nut", "bolt", "gear"))
    assert found == {
        "bolt": [tmp_path / "bolt" / "0.jpg", tmp_path / "bolt" / "1.jpg"],
        "nut": [tmp_path / "nut" / "0.jpg"],
    }
    assert read_folder(str(tmp_path / "bolt"), ("x",)) == {"x": found["bolt"]}
    assert read_folder(None, ("x",)) is None
    with pytest.raises(InputError, match="bolt'"):
        read_folder(str(tmp_path), ("nut",))  # a folder that is called like no class
    (tmp_path / "loose.jpg").touch()
    with pytest.raises(InputError, match=r"loose\.jpg"):
        read_folder(str(tmp_path), ("nut", "bolt"))


def test_a_sheet_too_tall_for_a_jpeg_loses_nothing(
    place: Place, more: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsseg_sdk.cli.kept._MOST_OF_JPEG", 100)
    asked = ["prepare", "--bundle", place.bundle, "--class", "a", place.support, place.mask]
    asked += ["--method", "paia", "--auxiliary", more, "--out", "new.task"]
    done = run(*asked, "--kept", "kept.jpg")
    assert done.code == 2
    assert "--kept" in done.err and "kept.png" in done.err
    assert Path("new.task").is_file() and not Path("kept.jpg").exists()
