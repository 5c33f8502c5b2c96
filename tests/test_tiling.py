"""Large pictures in windows: what they cover, how they are put together, what it is good for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsseg_sdk import InputError, Task
from fsseg_sdk.tiling import plan_tiles, stitch
from tests import opened, tiny
from tests.opened import same


@pytest.fixture(scope="module")
def task() -> Task:
    return opened.tiny_segmenter().prepare(opened.support())


class TestTiles:
    def test_small_objects_come_out(self) -> None:
        image, mask = tiny.tiny_scene((64, 64), (16, 16, 48, 48))
        large, truth = tiny.tiny_scene((512, 640), (300, 200, 324, 224))
        task = opened.tiny_segmenter().prepare({"x": (image, mask)})
        whole = opened.iou(task.segment(large).raw_labels, truth)
        for tile in (True, 64, 96):
            result = task.segment(large, tile=tile)
            assert result.labels.shape == truth.shape
            assert opened.iou(result.raw_labels, truth) > max(whole, 0.6), tile
            assert result.scores.shape == (2, *truth.shape)
            assert result.overlay().shape == large.shape
            assert result.present["x"] > task.segment(large).present["x"]

    def test_windows_are_stretched_whatever_the_geometry(self) -> None:
        """A window has the input's aspect but for a pixel; nothing of it may be padding."""
        large = opened.query(size=(301, 217)).pixels
        squash, fit = (
            opened.numpy_segmenter(geometry=kind).prepare({"x": tiny.tiny_scene((64, 64))})
            for kind in ("squash", "fit")
        )
        for tile in (True, 75):
            assert same(fit.segment(large, tile=tile), squash.segment(large, tile=tile))

    def test_small_pictures_are_not_tiled(self, task: Task) -> None:
        small = opened.query(size=(60, 64)).pixels
        for tile in (None, False, True, "auto", 64):
            assert same(task.segment(small, tile=tile), task.segment(small))
        medium = opened.query(size=(100, 120)).pixels
        assert same(task.segment(medium, tile="auto"), task.segment(medium))
        assert not same(task.segment(medium, tile=True), task.segment(medium))

    def test_mixed_with_whole_pictures(self, task: Task) -> None:
        small, large = opened.query(size=(60, 50)).pixels, opened.query(size=(300, 200)).pixels
        mixed = [small, large, large, small, small]
        together = task.segment_batch(mixed, tile="auto")
        for query, result in zip(mixed, together, strict=True):
            assert same(result, task.segment(query, tile="auto"))

    def test_timings_cover_all_windows(self) -> None:
        graph = opened.NumpyGraph(delay=0.002)
        task = opened.numpy_segmenter(graph).prepare(opened.support(1))
        graph.calls.clear()
        result = task.segment(opened.query(size=(300, 200)).pixels, tile=True)
        assert len(graph.calls) > 10
        assert result.timings["encoder"] >= 2.0 * len(graph.calls)

    @given(
        st.tuples(st.integers(1, 900), st.integers(1, 900)),
        st.sampled_from([(64, 64), (48, 96)]),
        st.sampled_from([(8, 8), (7, 5), (1, 1), (2, 3)]),
        st.sampled_from([True, "auto", 32, 50, 200]),
    )
    def test_windows_cover_every_cell(
        self, image: tuple[int, int], size: tuple[int, int], grid: tuple[int, int], tile: Any
    ) -> None:
        plan = plan_tiles(image, size, grid, tile)
        if plan is None:
            return
        counts = np.zeros(plan.grid, int)
        pixels = np.zeros(image, bool)
        for w in plan.windows:
            assert 0 <= w.top < w.bottom <= image[0]
            assert 0 <= w.left < w.right <= image[1]
            assert w.row + grid[0] <= plan.grid[0]
            assert w.column + grid[1] <= plan.grid[1]
            counts[w.row : w.row + grid[0], w.column : w.column + grid[1]] += 1
            pixels[w.top : w.bottom, w.left : w.right] = True
            # a window's pixels are those of its cells, to half a pixel
            assert abs(w.top - w.row * image[0] / plan.grid[0]) <= 0.5
            assert abs(w.right - (w.column + grid[1]) * image[1] / plan.grid[1]) <= 1.0
        assert counts.min() >= 1
        assert pixels.all()
        constant = [np.full((3, *grid), 2.5, np.float32) for _ in plan.windows]
        assert np.allclose(stitch(plan, constant), 2.5)
        ramp = np.arange(plan.grid[0] * plan.grid[1], dtype=np.float32).reshape(plan.grid)
        cut = [
            ramp[None, w.row : w.row + grid[0], w.column : w.column + grid[1]] for w in plan.windows
        ]
        assert np.allclose(stitch(plan, cut)[0], ramp, rtol=1e-5)
        if tile == "auto":
            assert len(plan.windows) <= 16
        if tile is True:  # as fine as the encoder sees a picture of its input's own size
            for side, cells, pixels_in, per_window in zip(
                image, plan.grid, size, grid, strict=True
            ):
                native = round(side * per_window / pixels_in)
                assert cells == (per_window if side <= pixels_in else max(native, per_window + 1))

    def test_one_window_where_one_will_do(self) -> None:
        plan = plan_tiles((64, 200), (64, 64), (8, 8), True)
        assert plan is not None
        assert plan.grid == (8, 25)
        assert {window.size[0] for window in plan.windows} == {64}
        assert [window.column for window in plan.windows] == [0, 6, 11, 17]
        assert plan_tiles((64, 64), (64, 64), (8, 8), True) is None

    def test_too_many_windows(self) -> None:
        with pytest.raises(InputError, match="tile"):
            plan_tiles((8000, 8000), (64, 64), (8, 8), 32)
