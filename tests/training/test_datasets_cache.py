"""The kept index of a set: used while nothing changed, made anew when something did."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.folders import add_sbd, labels_of, save_mask, write_voc
from training.datasets import cache, open_dataset, voc
from training.datasets.cache import each, load_rows, save_rows

KEY = "2007_000001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data", {KEY: [(8, 2, 6)]}, {"2008_000002": [(9, 2, 6)]})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The masks that were read to measure them."""
    files, measure = list[Path](), voc.measure

    def counted(file: Path) -> cache.Row:
        files.append(file)
        return measure(file)

    monkeypatch.setattr(voc, "measure", counted)
    return files


def test_masks_are_measured_once(folder: Path, measured: list[Path]) -> None:
    first = open_dataset(folder)
    assert len(measured) == 2
    assert open_dataset(folder) == first
    assert len(measured) == 2
    assert [file.name for file in folder.glob(".fsseg*")] == [".fsseg-voc.jsonl"]


def touch(folder: Path) -> None:
    os.utime(folder / "SegmentationClass" / f"{KEY}.png", (1, 1))


def grow(folder: Path) -> None:
    file = folder / "SegmentationClass" / f"{KEY}.png"
    times = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(times, times))


def extend(folder: Path) -> None:
    add_sbd(folder, {"2009_000003": [(8, 2, 6)]})


def shorten(folder: Path) -> None:
    file = folder / ".fsseg-voc.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def tear(folder: Path) -> None:
    file = folder / ".fsseg-voc.jsonl"
    file.write_text(file.read_text()[:-9])


@pytest.mark.parametrize("change", [touch, grow, extend, shorten, tear])
def test_the_index_is_made_anew_after_a_change(
    folder: Path, measured: list[Path], change: Callable[[Path], None]
) -> None:
    open_dataset(folder)
    measured.clear()
    change(folder)
    open_dataset(folder)
    assert len(measured) >= 2
    measured.clear()
    open_dataset(folder)
    assert measured == []


def test_a_new_mask_is_seen(folder: Path) -> None:
    open_dataset(folder)
    save_mask(folder / "SegmentationClass" / f"{KEY}.png", labels_of((20, 2, 6)))
    assert set(open_dataset(folder).samples[0].classes) == {20}


def test_a_repaired_picture_is_back_without_reading_masks(
    folder: Path, measured: list[Path]
) -> None:
    picture = folder / "JPEGImages" / f"{KEY}.jpg"
    picture.rename(folder / "elsewhere.jpg")
    assert len(open_dataset(folder, skip_broken=True).samples) == 1
    measured.clear()
    (folder / "elsewhere.jpg").rename(picture)
    assert len(open_dataset(folder).samples) == 2
    assert measured == []


def test_another_folder_keeps_the_indexes_of_several_sets(
    folder: Path, tmp_path: Path, measured: list[Path]
) -> None:
    other = write_voc(tmp_path / "other", {KEY: [(3, 2, 6)]}, {"2008_000002": [(4, 2, 6)]})
    kept = tmp_path / "kept" / "here"
    for _ in range(2):
        assert set(open_dataset(folder, cache=kept).samples[0].classes) == {8}
        assert set(open_dataset(other, cache=kept).samples[0].classes) == {3}
    assert len(measured) == 4
    assert len([*kept.iterdir()]) == 2
    assert not [*folder.glob(".fsseg*")]


def test_a_folder_that_cannot_be_written_is_warned_of(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        dataset = open_dataset(folder, cache=tmp_path / "file")
    assert len(dataset.samples) == 2


def test_a_full_disk_leaves_the_old_index_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "index.jsonl"
    save_rows(file, "a", {"n": 1}, [{"x": 1}])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        save_rows(file, "b", {"n": 2}, [{"x": 2}])
    assert load_rows(file, "a") == ({"n": 1}, [{"x": 1}])
    assert [*tmp_path.iterdir()] == [file]


def test_processes_find_the_same_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FEW", 10)
    items = list(range(-40, 40))
    assert list(each(abs, items, "", 2)) == list(map(abs, items))
