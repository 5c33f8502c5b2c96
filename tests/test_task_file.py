"""Task files: written, read back, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsseg_sdk import Segmenter, Task, TaskError
from fsseg_sdk.archive import read_archive, write_archive
from fsseg_sdk.npy import write_npy
from fsseg_sdk.taskfile import read_task_info
from tests import opened, pictures, tiny
from tests.opened import same

QUERIES = [opened.query(seed, (80 + 7 * seed, 100 + 11 * seed)).pixels for seed in range(5)]


@pytest.fixture(scope="module")
def task() -> Task:
    return opened.tiny_segmenter().prepare(opened.support())


class TestFile:
    def test_round_trip(self, task: Task, tmp_path: Path) -> None:
        path = tmp_path / "parts.task"
        task.save(path)
        again = opened.tiny_segmenter().load_task(str(path))
        assert again.classes == task.classes
        assert again.info() == task.info() == read_task_info(path)
        assert all(same(again.segment(query), task.segment(query)) for query in QUERIES)
        again.save(tmp_path / "again.task")
        assert (tmp_path / "again.task").read_bytes() == path.read_bytes()
        more = again.add("again", opened.support()["red disc"])
        assert more.classes[-1] == "again"

    def test_notes_travel(self, tmp_path: Path) -> None:
        shown = np.ascontiguousarray(tiny.tiny_scene((64, 64))[0])
        mask = np.zeros((64, 64), np.uint8)
        mask[4:30, 8:50] = 1
        task = opened.tiny_segmenter().prepare({"x": (pictures.turned(shown, 6), mask)})
        assert task.notes
        assert "EXIF" in task.notes[0]
        task.save(tmp_path / "x.task")
        again = opened.tiny_segmenter().load_task(tmp_path / "x.task")
        assert again.notes == task.notes
        assert task.notes[0] in again.segment(QUERIES[0]).warnings

    def test_info(self, task: Task) -> None:
        info = task.info()
        assert info["classes"] == {name: {"shots": 2} for name in task.classes}
        assert info["method"] == {"name": "panet", "settings": {}}
        assert info["bytes"] == 6 * (8 + 4 * (4 * tiny.CHANNELS + 2))

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        bundle = tiny.tiny_bundle(tmp_path / "t.fsseg")
        path = tmp_path / "parts.task"
        settings = {"hidden": 20, "panet": {"scale": 9.0}}
        changed = Segmenter.load(bundle, method="srofb", settings=settings)
        assert (changed.settings.hidden, changed.settings.panet.scale) == (20, 9.0)
        made = changed.prepare(opened.support())
        made.save(path)
        again = changed.load_task(path)
        assert again.info()["method"] == {"name": "srofb", "settings": settings}
        assert same(again.segment(QUERIES[0]), made.segment(QUERIES[0]))
        with pytest.raises(TaskError, match=r"method\.settings"):
            Segmenter.load(bundle, method="srofb").load_task(path)
        with pytest.raises(TaskError, match=r"method\.name"):
            Segmenter.load(bundle).load_task(path)

    def test_another_encoder_is_refused_by_field(self, task: Task, tmp_path: Path) -> None:
        path = tmp_path / "parts.task"
        task.save(path)
        for change, field in (
            ({"settings": {"scale": 7.0}}, "bundle.sha256"),
            ({"geometry": "fit"}, "encoder.geometry"),
            ({"name": "another"}, "bundle.name"),
        ):
            other = Segmenter.load(tiny.tiny_bundle(tmp_path / "o.fsseg", **change))  # type: ignore[arg-type]
            with pytest.raises(TaskError, match=field.replace(".", r"\.")):
                other.load_task(path)

    def test_precision_and_channels_are_compared(self, tmp_path: Path) -> None:
        path = tmp_path / "parts.task"
        opened.numpy_segmenter().prepare(opened.support(1)).save(path)
        half = opened.numpy_segmenter(opened.NumpyGraph(precision="fp16"))
        with pytest.raises(TaskError, match=r"encoder\.precision: expected fp16, got fp32"):
            half.load_task(path)
        assert opened.numpy_segmenter().load_task(path).classes

    def test_another_method_is_refused(
        self, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "parts.task"
        task.save(path)
        bundle = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
        seg = Segmenter.load(bundle)
        monkeypatch.setattr(type(seg._core.method), "name", "other")
        with pytest.raises(TaskError, match=r"method\.name: expected other, got panet"):
            seg.load_task(path)

    def test_every_flipped_byte_is_found(self, task: Task, tmp_path: Path) -> None:
        good = tmp_path / "good.task"
        task.save(good)
        data = good.read_bytes()
        bad = tmp_path / "bad.task"
        for at in range(0, len(data), 7):
            bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(TaskError):
                opened.tiny_segmenter().load_task(bad)
        for length in (0, 1, 100, len(data) // 2, len(data) - 1):
            bad.write_bytes(data[:length])
            with pytest.raises(TaskError):
                opened.tiny_segmenter().load_task(bad)

    def test_well_formed_nonsense(self, task: Task, tmp_path: Path) -> None:
        """Hashes show damage, not intent: a file that was made wrong has right hashes."""
        path = tmp_path / "x.task"
        task.save(path)
        archive = read_archive(path, "fsseg-task", TaskError)
        arrays = {"way": task.state.way, **task.state.arrays}
        changes: list[tuple[str, dict[str, np.ndarray], dict[str, object]]] = [
            ("way", {"way": arrays["way"] - 1}, {}),
            ("way", {"way": arrays["way"] + 300}, {}),
            ("foreground", {"foreground": arrays["foreground"][:, :3]}, {}),
            ("foreground", {"foreground": arrays["foreground"][:2]}, {}),
            ("background_mass", {"background_mass": arrays["foreground"]}, {}),
            ("finite", {"foreground": arrays["foreground"] * np.nan}, {}),
            ("extra", {"extra": arrays["foreground"]}, {}),
            ("way", {"way": arrays["way"] * 0}, {"classes": list(task.classes)}),
            ("classes", {}, {"classes": ["a", "a", "b"]}),
            ("classes", {}, {"classes": []}),
            ("way", {}, {"classes": ["a", "b", "c", "d"]}),
            ("classes", {}, {"classes": "abc"}),
            ("notes", {}, {"notes": 3}),
            ("bundle", {}, {"bundle": None}),
            ("arrays", {}, {"arrays": {}}),
        ]
        for word, replaced, fields in changes:
            new = {**arrays, **replaced}
            listed = {n: {"dtype": a.dtype.name, "shape": list(a.shape)} for n, a in new.items()}
            manifest = {**archive.manifest, "arrays": listed, **fields}
            members = {f"state/{name}.npy": write_npy(array) for name, array in new.items()}
            write_archive(path, "fsseg-task", manifest, members, TaskError)
            with pytest.raises(TaskError, match=word):
                opened.tiny_segmenter().load_task(path)
            if word in ("way", "arrays") and "classes" not in fields:
                with pytest.raises(TaskError):
                    read_task_info(path)
        with pytest.raises(TaskError):
            opened.tiny_segmenter().load_task(tiny.tiny_bundle(tmp_path / "tiny.fsseg"))
        with pytest.raises(TaskError):
            opened.tiny_segmenter().load_task(tmp_path / "missing.task")

    def test_a_place_that_cannot_be_written(self, task: Task, tmp_path: Path) -> None:
        with pytest.raises(TaskError):
            task.save(tmp_path / "no" / "such" / "folder.task")
        assert list(tmp_path.iterdir()) == []
