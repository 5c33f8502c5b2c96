"""``fsseg prepare`` and ``fsseg task info``."""

from __future__ import annotations

from pathlib import Path

from fsseg_sdk import Segmenter

from .conftest import Place, Run


def test_a_task_of_masks_boxes_and_scribbles(place: Place, run: Run) -> None:
    done = run(
        *("prepare", "--class", "square", place.support, place.mask, place.support, place.mask),
        *("--box", "boxed", place.support, "16,12,40,36"),
        *("--scribble", "drawn", place.support, "20,20 30,30; not 2,2 5,5"),
        *("--bundle", place.bundle, "--out", "new.task", "--json"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.json["classes"] == {
        "square": {"shots": 2},
        "boxed": {"shots": 1},
        "drawn": {"shots": 1},
    }
    assert done.json["file_bytes"] == Path("new.task").stat().st_size
    task = Segmenter.load(place.bundle).load_task("new.task")
    assert task.classes == ("square", "boxed", "drawn")
    shown = run("task", "info", "new.task")
    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines()[-3:]] == [
        ["1", "square", "2"],
        ["2", "boxed", "1"],
        ["3", "drawn", "1"],
    ]
    assert run("task", "info", "new.task", "--json").json["bundle"]["name"] == "tiny"


def test_errors_are_one_message_and_leave_no_file(place: Place, run: Run) -> None:
    wrong = [
        (("--class", "square", place.support), "pairs of image and mask"),
        (("--class", "square", place.support, "missing.png"), "missing.png"),
        (("--box", "square", place.support, "0,0,9999,5"), "a box within the picture"),
        ((), "labelled pictures"),
        (("--class", "square", place.support, place.mask, "--backend", "abacus"), "abacus"),
        (("--class", "square", place.support, place.mask, "--method", "guess"), "guess"),
    ]
    for arguments, part in wrong:
        done = run("prepare", *arguments, "--bundle", place.bundle, "--out", "new.task")
        assert done.code == 2, arguments
        assert done.out == ""
        assert done.err.startswith("fsseg: ") and done.err.count("\n") == 1
        assert part in done.err
        assert not Path("new.task").exists()


def test_a_place_that_cannot_be_written_to(place: Place, run: Run) -> None:
    shot = ("--class", "square", place.support, place.mask)
    out = place.support / "new.task"  # below a file
    done = run("prepare", *shot, "--bundle", place.bundle, "--out", out)
    assert done.code == 2
    assert str(out) in done.err


def test_a_task_of_another_bundle_says_which_field_differs(place: Place, run: Run) -> None:
    from tests.tiny import tiny_bundle

    other = tiny_bundle(place.folder / "other.fsseg", geometry="fit")
    done = run("segment", "queries", "--task", place.task, "--bundle", other, "--out", "found")
    assert done.code == 2
    assert "bundle.sha256" in done.err and "encoder.geometry" in done.err


def test_a_damaged_task(place: Place, run: Run) -> None:
    data = bytearray(place.task.read_bytes())
    data[len(data) // 2] ^= 1
    Path("damaged.task").write_bytes(data)
    done = run("task", "info", "damaged.task")
    assert done.code == 2
    assert "damaged.task" in done.err
