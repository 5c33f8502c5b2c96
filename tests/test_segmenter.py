"""Segmenter: from a bundle to a mask, and what it says when it cannot."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import (
    BackendError,
    Box,
    FssegError,
    InputError,
    Scribble,
    Segmenter,
)
from fsseg_sdk.bundle import Bundle
from tests import opened, pictures, tiny

IMAGE, MASK = tiny.tiny_scene()
QUERY, TRUTH = tiny.tiny_scene((96, 128), (64, 40, 112, 80))


class TestOneCall:
    def test_finds_the_object(self) -> None:
        result = opened.tiny_segmenter().segment(IMAGE, MASK, QUERY)
        assert result.classes == ("object",)
        assert result.labels.shape == result.mask.shape == TRUTH.shape
        assert opened.iou(result.mask, TRUTH) >= 0.8
        assert result.scores.shape == (2, *TRUTH.shape)
        assert result.present["object"] > 0.5

    @pytest.mark.parametrize("geometry", ["squash", "fit"])
    def test_either_geometry(self, geometry: str) -> None:
        tall, truth = tiny.tiny_scene((150, 90), (8, 70, 60, 130))
        result = opened.tiny_segmenter(geometry).segment(IMAGE, MASK, tall)
        assert opened.iou(result.mask, truth) >= 0.7

    @pytest.mark.parametrize(
        "annotation",
        [Box(16, 12, 40, 36), Scribble([(22, 20), (34, 28)]), MASK.astype(bool), MASK * 255],
        ids=["box", "scribble", "bool", "0/255"],
    )
    def test_any_annotation(self, annotation: object) -> None:
        result = opened.tiny_segmenter().segment(IMAGE, annotation, QUERY)
        assert opened.iou(result.mask, TRUTH) >= 0.7

    def test_lists_are_shots(self) -> None:
        other, other_mask = tiny.tiny_scene((70, 50), (10, 20, 40, 60))
        seg = opened.tiny_segmenter()
        result = seg.segment([IMAGE, other], [MASK, Box(10, 20, 40, 60)], QUERY)
        shots = [(IMAGE, MASK), (other, other_mask)]
        expected = seg.prepare({"object": shots}).segment(QUERY)
        assert np.array_equal(result.logits, expected.logits)
        with pytest.raises(InputError, match="2 pictures and 1 annotations"):
            seg.segment([IMAGE, other], [MASK], QUERY)

    def test_says_what_ran_and_how_long(self) -> None:
        result = opened.tiny_segmenter().segment(IMAGE, MASK, QUERY)
        ran = (result.bundle, result.method, result.backend, result.device, result.precision)
        assert ran == ("tiny", "panet", "onnxruntime", "cpu", "fp32")
        parts = ["decode", "preprocess", "encoder", "match", "label"]
        assert list(result.timings) == [*parts, "total"]
        assert all(result.timings[part] >= 0 for part in parts)
        assert result.timings["total"] == pytest.approx(sum(result.timings[p] for p in parts))
        assert any("not calibrated" in warning for warning in result.warnings)

    def test_says_which_graph_ran_in_another_precision(self) -> None:
        class Embedding(opened.NumpyGraph):
            def run(self, feeds: Any) -> dict[str, Any]:
                return {"embedding": feeds["features"]}

        graphs = {
            "encoder": opened.NumpyGraph(precision="int8"),
            "siamese_embedding": Embedding(),
        }
        settings = {**opened.settings(), "method": {"name": "siamese", "settings": {}}}
        segmenter = Segmenter(graphs, settings, threads=1)
        assert dict(segmenter.precisions) == {"encoder": "int8", "siamese_embedding": "fp32"}
        (text,) = segmenter.warnings
        assert "'siamese_embedding' runs in fp32" in text and "no int8" in text
        result = segmenter.segment(IMAGE, MASK, QUERY)
        assert (result.precision, result.warnings[0]) == ("int8", text)
        graphs["encoder"] = opened.NumpyGraph()
        assert Segmenter(graphs, settings, threads=1).warnings == ()

    def test_agrees_with_the_double_precision_reference(self, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
        golden = Bundle.open(path).golden
        assert golden is not None
        result = Segmenter.load(path).segment(golden.image, golden.mask, golden.image)
        assert np.array_equal(result.raw_labels, golden.labels)

    def test_every_kind_of_source(self, tmp_path: Path) -> None:
        file = tmp_path / "picture.png"
        data = pictures.encode(QUERY)
        file.write_bytes(data)
        task = opened.tiny_segmenter().prepare({"x": (IMAGE, MASK)})
        expected = task.segment(QUERY)
        rows = np.zeros((192, 130, 3), np.uint8)[::2, 1:-1]
        rows[...] = QUERY
        for source in (str(file), file, data, pictures.Image.open(file), rows):
            assert np.array_equal(task.segment(source).logits, expected.logits)
        for apart in (np.zeros((96, 256, 3), np.uint8)[:, ::2], np.zeros((96, 128, 4), np.uint8)):
            apart[..., :3] = QUERY  # read in place, summed in another order
            result = task.segment(apart[..., :3])
            assert np.abs(result.logits - expected.logits).max() <= 1e-4
            assert np.array_equal(result.labels, expected.labels)


BAD: dict[str, tuple[Any, str]] = {
    "truncated": (pictures.encode(QUERY)[:300], "query"),
    "empty bytes": (b"", "query"),
    "a GIF": (pictures.gif(), "GIF"),
    "a bomb": (pictures.claiming("PNG", 60000, 60000), "pixels"),
    "no such file": ("/no/such/picture.png", "no/such"),
    "floats": (QUERY.astype(np.float32) / 255, "float32"),
    "NaN": (np.full((8, 8, 3), np.nan), "NaN"),
    "objects": (np.full((8, 8, 3), None), "object"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), "query"),
    "grey": (QUERY[..., 0], "H, W, 3"),
    "None": (None, "None"),
}
BAD_MASKS: dict[str, tuple[Any, str]] = {
    "empty": (MASK * 0, "empty"),
    "of another size": (MASK[:-1], "size"),
    "swapped": (MASK.T, "swapped"),
    "of labels": (MASK * 7, "7"),
    "box outside": (Box(0, 0, 65, 40), "box"),
    "scribble outside": (Scribble([(100, 100)]), "scribble"),
    "NaN": (np.where(MASK, np.nan, 0.0), "finite"),
}


class TestBadInput:
    """A typed error in under a second, and the same Segmenter then gives the right answer."""

    def check(self, call: Any, word: str) -> None:
        seg = opened.tiny_segmenter()
        before = seg.segment(IMAGE, MASK, QUERY)
        begin = time.perf_counter()
        with pytest.raises(InputError, match=word):
            call(seg)
        assert time.perf_counter() - begin < 1.0
        after = seg.segment(IMAGE, MASK, QUERY)
        assert np.array_equal(after.logits, before.logits)
        assert np.array_equal(after.labels, before.labels)

    @pytest.mark.parametrize("name", BAD)
    def test_queries(self, name: str) -> None:
        bad, word = BAD[name]
        self.check(lambda seg: seg.segment(IMAGE, MASK, bad), word)

    @pytest.mark.parametrize("name", BAD_MASKS)
    def test_masks(self, name: str) -> None:
        bad, word = BAD_MASKS[name]
        self.check(lambda seg: seg.segment(IMAGE, bad, QUERY), word)
        shots = [(IMAGE, MASK), (IMAGE, bad)]
        self.check(lambda seg: seg.prepare({"bolt": shots}), "class 'bolt', shot 2")

    def test_auxiliary_pictures_need_a_method_for_them(self) -> None:
        auxiliary = {"x": [QUERY]}
        self.check(lambda seg: seg.prepare({"x": (IMAGE, MASK)}, auxiliary), "auxiliary")

    @pytest.mark.parametrize("tile", ["yes", 3, 0, -64, 2.5, "AUTO"])
    def test_tile(self, tile: Any) -> None:
        self.check(lambda seg: seg.segment(IMAGE, MASK, QUERY, tile=tile), "tile")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, BackendError])
    def test_interrupted(self, error: type[BaseException]) -> None:
        class Interrupted(opened.NumpyGraph):
            def run(self, feeds: Any) -> Any:
                if len(self.calls) == 3:
                    self.calls.clear()
                    if error is BackendError:
                        raise BackendError("x", expected="y", got="z", remedy="w")
                    raise error
                return super().run(feeds)

        task = opened.numpy_segmenter(Interrupted()).prepare({"x": (IMAGE, MASK)})
        expected = task.segment(QUERY)
        task.segment(QUERY)
        with pytest.raises(error):
            task.segment(QUERY)
        assert np.array_equal(task.segment(QUERY).logits, expected.logits)

    def test_features_that_are_not_finite(self) -> None:
        class Broken(opened.NumpyGraph):
            def run(self, feeds: Any) -> Any:
                features = super().run(feeds)["features"]
                features[0, 3, 2, 1] = np.nan
                return {"features": features}

        seg = opened.numpy_segmenter(Broken())
        with pytest.raises(FssegError, match="finite"):
            seg.segment(IMAGE, MASK, QUERY)


def test_nothing_can_be_set() -> None:
    seg = opened.tiny_segmenter()
    for name in ("method", "threads", "anything"):
        with pytest.raises(AttributeError):
            setattr(seg, name, 1)
