"""Opening: bundles by path and name, methods, and graphs of one's own."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import (
    BackendError,
    BundleError,
    FssegError,
    InputError,
    Segmenter,
    methods,
    segmenter,
)
from fsseg_sdk.backends import onnx_check
from fsseg_sdk.backends.onnx_summary import OnnxSummary, summarise
from fsseg_sdk.methods.panet import Panet
from tests import opened, pictures, tiny

IMAGE, MASK = tiny.tiny_scene()
QUERY, TRUTH = tiny.tiny_scene((96, 128), (64, 40, 112, 80))


class TestLoad:
    def test_paths(self, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
        for given in (path, str(path)):
            seg = Segmenter.load(given)
            assert (seg.bundle, seg.method, seg.input_size) == ("tiny", "panet", (64, 64))
            assert repr(seg).startswith("Segmenter('tiny', method='panet', backend='onnxruntime'")

    def test_a_graph_is_checked_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By `Bundle.open`: no runtime has seen it then, and checks take milliseconds."""
        path, seen = tiny.tiny_bundle(tmp_path / "tiny.fsseg"), []

        def counted(data: bytes) -> OnnxSummary:
            seen.append(data)
            return summarise(data)

        monkeypatch.setattr(onnx_check, "summarise", counted)
        Segmenter.load(path, backend="onnxruntime")
        assert len(seen) == 1

    def test_an_unknown_name_lists_what_is_shipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(segmenter, "_ASSETS", tmp_path)
        tiny.tiny_bundle(tmp_path / "small.fsseg")
        assert segmenter.shipped() == ("small",)
        assert Segmenter.load("small").bundle == "tiny"
        with pytest.raises(BundleError, match=r"shipped bundle \(small\), got 'smal'"):
            Segmenter.load("smal")

    @pytest.mark.parametrize("name", ["nowhere.fsseg", "no/such/file", "."])
    def test_no_such_file(self, name: str) -> None:
        with pytest.raises(BundleError):
            Segmenter.load(name)

    def test_not_a_bundle(self, tmp_path: Path) -> None:
        path = tmp_path / "x.fsseg"
        path.write_bytes(pictures.encode(QUERY))
        with pytest.raises(BundleError, match=r"x\.fsseg"):
            Segmenter.load(path)

    @pytest.mark.parametrize("option", ["backend", "device", "precision"])
    def test_what_cannot_be_had(self, option: str, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "tiny.fsseg")
        with pytest.raises(BackendError, match="magic"):
            Segmenter.load(path, **{option: "magic"})

    def test_method_settings_of_the_bundle(self, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "a.fsseg", settings={"scale": 7.0})
        assert Segmenter.load(path).settings.scale == 7.0
        assert Segmenter.load(path, method="panet").settings.scale == 7.0
        path = tiny.tiny_bundle(tmp_path / "b.fsseg", settings={"scale": -7.0})
        with pytest.raises(BundleError, match=r"'tiny'.*scale"):
            Segmenter.load(path)

    def test_settings_that_differ(self, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "a.fsseg", settings={"scale": 7.0})
        seg = Segmenter.load(path, settings={"background_parts": 2})
        assert (seg.settings.scale, seg.settings.background_parts) == (7.0, 2)
        changes = {"panet": {"background_parts": 3}}
        fast = Segmenter.load(path, method="srofb-fast", settings=changes)
        assert (fast.settings.panet.scale, fast.settings.panet.background_parts) == (7.0, 3)
        assert fast.settings.warm_start
        for wrong, named in (
            ({"parts": 1}, r"settings\.parts"),
            ({"scale": "x"}, r"settings\.scale"),
            ({"scale": -1.0}, "scale"),
        ):
            with pytest.raises(InputError, match=named):
                Segmenter.load(path, settings=wrong)
        with pytest.raises(InputError, match=r"settings\.panet"):
            Segmenter.load(path, method="srofb", settings={"panet": 3})
        assert Segmenter.load(path).settings.scale == 7.0

    def test_unknown_methods(self, tmp_path: Path) -> None:
        path = tiny.tiny_bundle(tmp_path / "a.fsseg")
        with pytest.raises(InputError, match="panet"):
            Segmenter.load(path, method="pannet")
        other = tiny.tiny_bundle(tmp_path / "b.fsseg", method="of_the_future")
        with pytest.raises(FssegError, match="of_the_future"):
            Segmenter.load(other)
        assert Segmenter.load(other, method="panet").method == "panet"

    def test_a_method_that_needs_more_graphs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Headed(Panet):
            name = "headed"
            graphs = ("head",)

        known = {"panet": methods.get("panet"), "headed": Headed()}
        monkeypatch.setattr(methods, "_METHODS", MappingProxyType(known))
        path = tiny.tiny_bundle(tmp_path / "a.fsseg")
        with pytest.raises(BundleError, match=r"encoder, head, got 'tiny', which lacks head"):
            Segmenter.load(path, method="headed")
        graphs = {"encoder": opened.NumpyGraph(), "head": opened.NumpyGraph()}
        assert Segmenter(graphs, opened.settings(), method="headed").method == "headed"

    def test_calibration_travels_in_the_bundle(self, tmp_path: Path) -> None:
        presence = {
            "names": ["top_margin"],
            "mean": [0.0],
            "scale": [1.0],
            "weights": [0.0],
            "bias": -4.0,
            "threshold": 0.5,
        }
        path = tiny.tiny_bundle(tmp_path / "a.fsseg", settings={"presence": presence})
        result = Segmenter.load(path).segment(IMAGE, MASK, QUERY)
        assert result.calibrated
        assert result.warnings == ()
        assert result.present["object"] == pytest.approx(1 / (1 + np.exp(4)), abs=1e-6)
        assert result.found == ()
        assert result.raw_labels.any()
        assert not result.labels.any()


class TestOwnGraphs:
    def test_equals_the_bundle(self) -> None:
        own = opened.numpy_segmenter().segment(IMAGE, MASK, QUERY)
        bundle = opened.tiny_segmenter().segment(IMAGE, MASK, QUERY)
        assert np.abs(own.logits - bundle.logits).max() <= 1e-3
        assert (own.bundle, own.backend) == ("by hand", "numpy")

    @pytest.mark.parametrize(
        ("part", "change", "word"),
        [
            ("input", {"geometry": "stretch"}, "input.geometry"),
            ("input", {"size": [64]}, "input.size"),
            ("input", {"mean": None}, "input.mean"),
            ("input", {"std": [1, 1, 0]}, "input.std"),
            ("features", {"channels": 0}, "features.channels"),
            ("features", {"grid": "8x8"}, "features.grid"),
            ("method", {"name": "none"}, "method"),
            ("method", {"settings": {"scale": "x"}}, "method.settings.scale"),
        ],
    )
    def test_settings_are_checked(self, part: str, change: dict[str, Any], word: str) -> None:
        settings = opened.settings()
        settings[part] = {**settings[part], **change}
        with pytest.raises(InputError, match=word):
            Segmenter({"encoder": opened.NumpyGraph()}, settings)

    def test_graphs_are_checked(self) -> None:
        settings = opened.settings()
        with pytest.raises(BundleError, match="lacks encoder"):
            Segmenter({}, settings)
        settings["features"] = {"channels": 8, "grid": (8, 8)}
        with pytest.raises(BackendError, match=r"output.*\[any, 8, 8, 8\]"):
            Segmenter({"encoder": opened.NumpyGraph()}, settings)

    def test_a_graph_of_a_fixed_batch(self) -> None:
        graph = opened.NumpyGraph(batch=4)
        seg = opened.numpy_segmenter(graph)
        task = seg.prepare({"object": (IMAGE, MASK)})
        batch = task.segment_batch([QUERY] * 6, batch=8)
        assert set(graph.calls) == {4}
        assert len(graph.calls) == 1 + 2
        expected = opened.numpy_segmenter().segment(IMAGE, MASK, QUERY)
        assert all(np.array_equal(result.logits, expected.logits) for result in batch)

    def test_a_graph_that_breaks_its_word(self) -> None:
        class Wrong(opened.NumpyGraph):
            def run(self, feeds: Any) -> Any:
                return {"features": super().run(feeds)["features"][..., 1:]}

        with pytest.raises(BackendError, match="shape"):
            opened.numpy_segmenter(Wrong()).segment(IMAGE, MASK, QUERY)
