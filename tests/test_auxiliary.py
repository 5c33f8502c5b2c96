"""Auxiliary pictures from `prepare` to task files: encoded once, kept, added, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import InputError, Segmenter, Task, TaskError, ops
from fsseg_sdk.archive import read_archive, write_archive
from fsseg_sdk.npy import write_npy
from fsseg_sdk.taskfile import read_task_info
from tests import opened, tiny
from tests.opened import same

SCENES = [opened.query(seed) for seed in range(60, 66)]
SHOWN = [scene.pixels for scene in SCENES]
NAMES = list(SCENES[0].masks)
QUERY = opened.query(50).pixels
GIVEN = {NAMES[0]: SHOWN[:2], NAMES[2]: [SHOWN[2]]}


def segmenter(graph: opened.NumpyGraph | None = None, geometry: str = "squash") -> Segmenter:
    described = opened.settings(geometry=geometry)
    return Segmenter({"encoder": graph or opened.NumpyGraph()}, described, method="paia", threads=1)


@pytest.fixture(scope="module")
def task() -> Task:
    return segmenter().prepare(opened.support(1), GIVEN)


class TestPrepare:
    def test_each_picture_is_encoded_once(self) -> None:
        graph = opened.NumpyGraph()
        both = {**GIVEN, NAMES[1]: [SHOWN[0]]}  # one shows two classes
        task = segmenter(graph).prepare(opened.support(2), both)
        assert sum(graph.calls) == 2 + 3
        assert task.state.auxiliary is not None
        assert task.state.auxiliary.way.tolist() == [0, 0, 2, 1]
        features = task.state.auxiliary.arrays["features"]
        assert np.array_equal(features[0], features[3])
        graph.calls.clear()
        task.segment(QUERY)
        assert graph.calls == [1]

    def test_batches_of_another_size_give_the_same(self, task: Task) -> None:
        away = segmenter(opened.NumpyGraph(device="gpu")).prepare(opened.support(1), GIVEN)
        assert task.state.auxiliary is not None and away.state.auxiliary is not None
        assert np.array_equal(away.state.auxiliary.way, task.state.auxiliary.way)
        for name, array in task.state.auxiliary.arrays.items():
            assert np.abs(away.state.auxiliary.arrays[name] - array).max() <= 1e-5

    def test_they_change_the_answer(self, task: Task) -> None:
        alone = segmenter().prepare(opened.support(1)).segment(QUERY)
        assert np.abs(task.segment(QUERY).logits - alone.logits).max() > 0.01

    def test_equal_pictures_are_said(self) -> None:
        support = opened.support(1)
        labelled = support[NAMES[0]][0][0]
        twice = {NAMES[0]: [SHOWN[0], labelled, SHOWN[0]]}
        task = segmenter().prepare(support, twice)
        once = segmenter().prepare(support, {NAMES[0]: SHOWN[:1]})
        result = task.segment(QUERY)
        assert same(result, once.segment(QUERY))
        said = [text for text in result.warnings if text.startswith("auxiliary")]
        assert [text.split(": ")[1] for text in said] == [
            "left out, the same as a labelled one",
            "left out, the same as image 1",
        ]

    def test_pictures_without_the_class_are_said(self) -> None:
        grey = np.full((64, 64, 3), 120, np.uint8)
        support = opened.support(1)
        task = segmenter().prepare(support, {NAMES[1]: [grey]})
        assert [text[:8] for text in task.fitted.warnings] == ["label 2:"]
        assert task.fitted.warnings[0] in task.segment(QUERY).warnings
        prototypes = task.fitted.rough.prototypes  # type: ignore[attr-defined]
        plain = segmenter().prepare(support).fitted.rough.prototypes  # type: ignore[attr-defined]
        assert np.array_equal(prototypes, plain)

    def test_the_one_liner(self) -> None:
        image, mask = tiny.tiny_scene()
        seg = segmenter()
        other = tiny.tiny_scene((64, 64), (30, 10, 60, 40), (200, 70, 20))[0]
        expected = seg.prepare({"object": (image, mask)}, {"object": [other]}).segment(QUERY)
        assert same(seg.segment(image, mask, QUERY, auxiliary=[other]), expected)
        assert same(seg.segment(image, mask, QUERY, auxiliary=other), expected)
        assert not same(seg.segment(image, mask, QUERY), expected)

    def test_padding_of_a_picture_has_no_say(self) -> None:
        """With geometry "fit", cells beside the picture are covered by nothing."""
        task = segmenter(geometry="fit").prepare(opened.support(1), {NAMES[0]: SHOWN[0][:, :48]})
        assert task.state.auxiliary is not None
        coverage = task.state.auxiliary.arrays["coverage"][0]
        assert np.array_equal(coverage[:, :4], np.ones((8, 4)))
        assert not coverage[:, 4:].any()

    def test_tiles(self, task: Task) -> None:
        assert task.segment(QUERY, tile=64).labels.shape == QUERY.shape[:2]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda s: s.prepare(opened.support(1), {"bolt": SHOWN[:1]}), "auxiliary, class 'bolt'"),
        (lambda s: s.prepare(opened.support(1), {NAMES[1]: [SHOWN[0], b"x"]}), "image 2"),
        (lambda s: s.prepare(opened.support(1), {NAMES[1]: ["missing.jpg"]}), "missing.jpg"),
        (lambda s: s.prepare(opened.support(1), SHOWN[:1]), "a mapping"),
    ],
    ids=["class", "bytes", "file", "list"],
)
def test_refused(call: Callable[[Segmenter], object], word: str) -> None:
    graph = opened.NumpyGraph()
    with pytest.raises(InputError, match=word):
        call(segmenter(graph))
    assert not graph.calls  # before anything is encoded


def test_methods_that_take_none() -> None:
    graph = opened.NumpyGraph()
    other = opened.numpy_segmenter(graph)
    with pytest.raises(InputError, match=r"^auxiliary: .* 3 pictures for the method 'panet'"):
        other.prepare(opened.support(1), GIVEN)
    assert not graph.calls
    assert other.prepare(opened.support(1), {NAMES[0]: []}).classes
    task = other.prepare(opened.support(1))
    for call in (lambda: task.add(auxiliary=GIVEN), task.kept):
        with pytest.raises(InputError, match="auxiliary"):
            call()


class TestAdd:
    def test_one_at_a_time_is_the_same_as_all_at_once(self, task: Task) -> None:
        support = opened.support(1)
        grown = segmenter().prepare(dict(list(support.items())[:1]))
        before = grown.segment(QUERY)
        first = grown.add(auxiliary={NAMES[0]: SHOWN[:2]})
        grown_more = first.add(dict(list(support.items())[1:]), auxiliary={NAMES[2]: SHOWN[2]})
        assert grown_more.classes == task.classes
        # the same shots as if prepared apart: what each marks is no other's background
        apart = task.state.auxiliary
        assert apart is not None and grown_more.state.auxiliary is not None
        for name, array in apart.arrays.items():
            assert np.array_equal(grown_more.state.auxiliary.arrays[name], array)
        assert grown_more.state.auxiliary.way.tolist() == apart.way.tolist()
        assert same(grown.segment(QUERY), before)
        assert not same(first.segment(QUERY), before)

    def test_only_new_pictures_are_encoded(self) -> None:
        graph = opened.NumpyGraph()
        task = segmenter(graph).prepare(opened.support(1), GIVEN)
        graph.calls.clear()
        task.add(auxiliary={NAMES[1]: SHOWN[3:5]})
        assert sum(graph.calls) == 2

    def test_equal_pictures_among_the_added(self, task: Task) -> None:
        scene = opened.query(70)
        shot = (scene.pixels, scene.masks[NAMES[0]])
        grown = task.add(NAMES[0], [shot], {NAMES[0]: [scene.pixels], NAMES[1]: [scene.pixels]})
        assert grown.state.auxiliary is not None
        assert grown.state.auxiliary.way.tolist() == [0, 0, 2, 1]
        assert [note for note in grown.notes if "labelled" in note]

    def test_what_cannot_be_added(self, task: Task) -> None:
        with pytest.raises(InputError, match="auxiliary, class 'nut'"):
            task.add(auxiliary={"nut": SHOWN[:1]})
        with pytest.raises(InputError, match="support"):
            task.add()


class TestFile:
    def test_round_trip(self, task: Task, tmp_path: Path) -> None:
        path = tmp_path / "parts.task"
        task.save(path)
        again = segmenter().load_task(path)
        assert same(again.segment(QUERY), task.segment(QUERY))
        assert again.info() == task.info() == read_task_info(path)
        assert np.array_equal(again.kept(), task.kept())
        again.save(tmp_path / "again.task")
        assert (tmp_path / "again.task").read_bytes() == path.read_bytes()
        more = again.add(auxiliary={NAMES[1]: SHOWN[3]})
        assert more.state.auxiliary is not None and len(more.state.auxiliary) == 4

    def test_info(self, task: Task) -> None:
        info = task.info()
        counts = dict(zip(NAMES, (2, 0, 1), strict=True))
        assert info["classes"] == {n: {"shots": 1, "auxiliary": counts[n]} for n in NAMES}
        assert info["arrays"]["auxiliary/features"]["shape"] == [3, tiny.CHANNELS, *tiny.GRID]
        kept = 3 * 8 + 4 * 3 * (tiny.CHANNELS + 1) * tiny.GRID[0] * tiny.GRID[1]
        bare = segmenter().prepare(opened.support(1)).info()
        assert info["bytes"] == bare["bytes"] + kept
        assert bare["classes"] == {name: {"shots": 1} for name in NAMES}

    def test_files_of_the_version_before_open(self, tmp_path: Path) -> None:
        """1.0 had no auxiliary pictures; nothing else has changed."""
        path = tmp_path / "old.task"
        seg = segmenter()
        task = seg.prepare(opened.support(1))
        task.save(path)
        archive = read_archive(path, "fsseg-task", TaskError, version=(1, 1))
        assert archive.manifest["format_version"] == "1.1.0"
        manifest = {k: v for k, v in archive.manifest.items() if k != "members"}
        members = {name: bytes(data) for name, data in archive.members.items()}
        write_archive(path, "fsseg-task", manifest, members, TaskError)
        assert read_archive(path, "fsseg-task", TaskError).manifest["format_version"] == "1.0.0"
        assert same(seg.load_task(path).segment(QUERY), task.segment(QUERY))

    def test_well_formed_nonsense(self, task: Task, tmp_path: Path) -> None:
        path = tmp_path / "x.task"
        task.save(path)
        archive = read_archive(path, "fsseg-task", TaskError, version=(1, 1))
        rows = task.state.auxiliary
        assert rows is not None
        arrays = {"way": rows.way, **rows.arrays}
        changes: list[tuple[str, dict[str, Any]]] = [
            ("way", {"way": arrays["way"] - 1}),
            ("way", {"way": arrays["way"] + 3}),
            ("2 rows", {"way": arrays["way"][:2]}),
            ("features", {"features": arrays["features"][:, :3]}),
            ("finite", {"features": arrays["features"] * np.nan}),
            ("coverage", {"coverage": arrays["coverage"] * 3}),
            ("coverage", {"coverage": arrays["coverage"][:, :4]}),
            ("extra", {"extra": arrays["coverage"]}),
            (  # of another grid, in itself consistent
                "features",
                {k: arrays[k][..., :3, :3] for k in ("features", "coverage")},
            ),
        ]
        for word, replaced in changes:
            new = {**arrays, **replaced}
            listed = {n: {"dtype": a.dtype.name, "shape": list(a.shape)} for n, a in new.items()}
            members = {name: bytes(data) for name, data in archive.members.items()}
            members |= {f"auxiliary/{name}.npy": write_npy(array) for name, array in new.items()}
            manifest = {**archive.manifest, "auxiliary": listed}
            write_archive(path, "fsseg-task", manifest, members, TaskError, version=(1, 1, 0))
            with pytest.raises(TaskError, match=word):
                segmenter().load_task(path)

    def test_another_method_has_no_use_for_them(self, task: Task, tmp_path: Path) -> None:
        """A file that says panet and holds auxiliary pictures was made wrong."""
        path = tmp_path / "x.task"
        task.save(path)
        archive = read_archive(path, "fsseg-task", TaskError, version=(1, 1))
        manifest = {**archive.manifest, "method": {"name": "panet", "settings": {}}}
        members = {name: bytes(data) for name, data in archive.members.items()}
        write_archive(path, "fsseg-task", manifest, members, TaskError, version=(1, 1, 0))
        with pytest.raises(TaskError, match="auxiliary"):
            opened.numpy_segmenter().load_task(path)


def test_what_was_kept_lies_on_the_class(task: Task) -> None:
    kept = task.kept()
    assert kept.shape == (task.core.settings.steps, 3, *tiny.GRID)
    assert ((kept >= 0) & (kept <= 1)).all()
    found = 0
    for plane, (number, name) in zip(kept[-1], ((0, 0), (1, 0), (2, 2)), strict=True):
        mask = SCENES[number].masks[NAMES[name]].astype(np.uint8)
        share = ops.grid_weights(mask[None], tiny.GRID)[0]
        on = share > 0.5 * share.max()
        found += plane.any()
        assert plane[on].mean() >= 2 * plane[share == 0].mean()
    assert found == 2  # class 3 is not found, and says so
    assert segmenter().prepare(opened.support(1)).kept().shape[1] == 0
    with pytest.raises(
        InputError, match=r"kept: expected a task of .*got one of the method 'panet'"
    ):
        opened.numpy_segmenter().prepare(opened.support(1)).kept()
