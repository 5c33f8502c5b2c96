"""Task: encoded once, queried for ever, extended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fsseg_sdk import BackendError, InputError, Task
from tests import opened, pictures, tiny
from tests.opened import same

QUERIES = [opened.query(seed, (80 + 7 * seed, 100 + 11 * seed)).pixels for seed in range(5)]


@pytest.fixture(scope="module")
def task() -> Task:
    return opened.tiny_segmenter().prepare(opened.support())


class TestQueries:
    def test_several_classes(self, task: Task) -> None:
        assert task.classes == ("red disc", "blue square", "green bar")
        query = opened.query()
        result = task.segment(query.pixels)
        for label, name in enumerate(task.classes, 1):
            assert opened.iou(result.labels == label, query.masks[name]) >= 0.5, name

    def test_a_batch_is_the_same_as_one_by_one(self, task: Task) -> None:
        alone = [task.segment(query) for query in QUERIES]
        for batch in (None, 1, 2, 3, 64):
            together = task.segment_batch(QUERIES, batch=batch)
            assert len(together) == len(alone)
            for one, other in zip(together, alone, strict=True):
                assert one.labels.shape == other.labels.shape
                if batch in (None, 1):
                    assert same(one, other)
                else:  # a runtime may add up in another order
                    assert np.abs(one.logits - other.logits).max() <= 1e-3

    def test_batches_are_as_large_as_asked(self) -> None:
        graph = opened.NumpyGraph()
        task = opened.numpy_segmenter(graph).prepare(opened.support(1))
        graph.calls.clear()
        task.segment_batch(QUERIES, batch=2)
        assert graph.calls == [2, 2, 1]
        graph.calls.clear()
        task.segment_batch(iter(QUERIES))
        assert graph.calls == [1] * 5
        away = opened.NumpyGraph(device="gpu")
        opened.numpy_segmenter(away).prepare(opened.support(1)).segment_batch(QUERIES * 2)
        assert away.calls[-2:] == [8, 2]
        assert task.segment_batch([]) == []

    def test_one_encoder_pass_per_query_and_picture(self) -> None:
        graph = opened.NumpyGraph()
        seg = opened.numpy_segmenter(graph)
        support = opened.support(3)  # three classes in each of three pictures
        task = seg.prepare(support)
        assert sum(graph.calls) == 3
        graph.calls.clear()
        task.segment(QUERIES[0])
        assert graph.calls == [1]

    @pytest.mark.parametrize("batch", [0, -1, 1.5, True, "2", 10_000])
    def test_bad_batches(self, task: Task, batch: Any) -> None:
        with pytest.raises(InputError, match="batch"):
            task.segment_batch(QUERIES, batch=batch)

    def test_output(self, task: Task) -> None:
        with pytest.raises(BackendError, match="CUDA"):
            task.segment_batch(QUERIES, output="device")
        with pytest.raises(InputError, match="output"):
            task.segment_batch(QUERIES, output="nowhere")  # type: ignore[arg-type]

    def test_errors_name_the_picture(self, task: Task) -> None:
        with pytest.raises(InputError, match=r"queries\[2\]"):
            task.segment_batch([*QUERIES[:2], b"", *QUERIES])

    def test_as_many_classes_as_labels_hold(self) -> None:
        """Many colours without red, then red: its label is the last that there is."""
        colours = [(0, 15 * g, 15 * b) for g in range(16) for b in range(16)][:253]
        shots = {
            f"colour {n}": tiny.tiny_scene((64, 64), (8, 8, 40, 40), colour)
            for n, colour in enumerate([*colours, (250, 0, 0)])
        }
        task = opened.numpy_segmenter().prepare(shots)
        result = task.segment(shots["colour 253"][0])
        assert result.raw_labels.max() == 254
        assert len(result.present) == 254
        assert (result.raw_labels[16:32, 16:32] == 254).all()

    def test_a_task_cannot_be_changed(self, task: Task) -> None:
        with pytest.raises(AttributeError):
            task.classes = ()  # type: ignore[misc]

    def test_other_classes_of_a_picture_are_no_background(self) -> None:
        """Marked for one class, a pixel is left out of the other's background in that picture."""
        scene = opened.query(0)
        seg = opened.numpy_segmenter()
        names = list(scene.masks)
        both = seg.prepare({name: (scene.pixels, scene.masks[name]) for name in names})
        backgrounds = both.state.arrays["background"]
        assert np.abs(backgrounds - backgrounds[0]).max() <= 1e-5
        alone = seg.prepare({names[0]: (scene.pixels, scene.masks[names[0]])})
        assert np.abs(alone.state.arrays["background"][0] - backgrounds[0]).max() > 1e-3

    def test_rows_are_in_the_order_of_the_shots(self) -> None:
        """Although pictures shared between classes are encoded together."""
        task = opened.numpy_segmenter().prepare(opened.support(3))
        assert task.state.way.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    @pytest.mark.parametrize("geometry", ["squash", "fit"])
    def test_large_pictures_count_no_more_than_small_ones(self, geometry: str) -> None:
        masses = []
        for factor in (1, 3):
            image, mask = (a.repeat(factor, 0).repeat(factor, 1) for a in tiny.tiny_scene())
            task = opened.numpy_segmenter(geometry=geometry).prepare({"x": (image, mask)})
            masses.append(float(task.state.arrays["background_mass"].sum()))
        assert masses[0] == pytest.approx(masses[1], rel=1e-5)
        covered = 1.0 if geometry == "squash" else 48 / 64
        assert masses[0] == pytest.approx(covered * 64 * (1 - 24 * 24 / (48 * 64)), rel=1e-5)

    def test_describe_is_what_presence_looks_at(self, task: Task) -> None:
        for tile in (None, 64):
            result = task.segment(QUERIES[0], tile=tile)
            described = task.describe(result)
            assert described.shape[0] == 3
            model = task.fitted.presence(result.logits)
            assert np.allclose(list(result.present.values()), model.scores)

    def test_padding_has_no_say_in_presence(self) -> None:
        """With geometry "fit", cells beside the picture belong to no class."""
        task = opened.tiny_segmenter("fit").prepare(opened.support(1))
        tall = np.ascontiguousarray(opened.query(size=(256, 64)).pixels)
        result = task.segment(tall)
        assert result.logits.shape[1:] == tiny.GRID
        assert np.array_equal(task.describe(result), task.fitted.describe(result.logits[:, :, :2]))
        assert not np.array_equal(task.describe(result), task.fitted.describe(result.logits))


class TestAdd:
    def test_a_class_at_a_time(self) -> None:
        seg = opened.tiny_segmenter()
        # every class in pictures of its own: shared pictures are better prepared together
        scenes = [opened.query(seed) for seed in range(6)]
        support = {
            name: [(s.pixels, s.masks[name]) for s in scenes[2 * n : 2 * n + 2]]
            for n, name in enumerate(scenes[0].masks)
        }
        expected = seg.prepare(support)
        (first, shots), *others = support.items()
        task = seg.prepare({first: shots[:1]})
        before = task.segment(QUERIES[0])
        grown = task.add(first, shots[1:])
        for name, more in others:
            grown = grown.add({name: more})
        assert grown.classes == expected.classes
        assert same(grown.segment(QUERIES[0]), expected.segment(QUERIES[0]))
        assert same(task.segment(QUERIES[0]), before)
        assert task.classes == (first,)

    def test_only_new_pictures_are_encoded(self) -> None:
        graph = opened.NumpyGraph()
        task = opened.numpy_segmenter(graph).prepare(opened.support(3))
        graph.calls.clear()
        scene = opened.query(77)
        task.add("nut", [(scene.pixels, scene.masks["red disc"])])
        assert graph.calls == [1]

    def test_notes_are_added_up(self, task: Task) -> None:
        mask = np.zeros((64, 64), np.uint8)
        mask[4:30, 8:50] = 1
        turned = pictures.turned(tiny.tiny_scene((64, 64))[0], 6)
        noted = task.add("first", (turned, mask)).add("second", (turned, mask))
        assert [note.split(",")[0] for note in noted.notes] == ["class 'first'", "class 'second'"]

    def test_what_cannot_be_added(self, task: Task) -> None:
        image, mask = tiny.tiny_scene()
        with pytest.raises(InputError, match="class 'nut', shot 1"):
            task.add("nut", (image, mask * 0))
        with pytest.raises(InputError, match="254 classes"):
            task.add({f"class {n}": (image, mask) for n in range(252)})
        with pytest.raises(InputError, match="support"):
            task.add({})
