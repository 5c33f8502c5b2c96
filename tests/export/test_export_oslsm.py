"""OSLSM and its baselines as bundles: the graphs, what must agree, and that each answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import export.build as build
from export.build import ExportError, ExportReport, ExportSettings, export_bundle
from fsseg_sdk import BundleError, Segmenter
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.methods.settings import settings_to_json
from tests.export.heads import check_evaluation, episode
from training.checkpoint import load_checkpoint, save_checkpoint
from training.encoders import build_encoder
from training.heads import CONDITIONER, EMBEDDING, Part, head_graphs, trained_module
from training.oslsm.conditioner import Conditioner, Pooled
from training.oslsm.settings import OslsmSettings
from training.torch_graph import TorchGraph, trained_encoder

SIZE = (64, 64)
ENCODER, TAPS = "vgg16", {"taps": ["conv3"]}  # few nodes, so that it is exported fast
CHANNELS = 256


def written(folder: Path, method: str, own: OslsmSettings | None = None) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(1)
    encoder = build_encoder(ENCODER, TAPS)
    header: dict[str, Any] = {
        "method": {"name": method, "settings": {}},
        "encoder": {"name": ENCODER, "settings": TAPS},
    }
    tensors = {f"encoder.{k}": t for k, t in encoder.state_dict().items()}
    if own is not None:
        header["settings"] = {"oslsm": settings_to_json(own)}
        conditioner = Conditioner(encoder, own)
        conditioner.standard.mean.normal_(0.0, 0.05)
        assert isinstance(conditioner.head, Pooled)
        # with zeros a picture that is masked to nothing would be zeros in both
        torch.nn.init.normal_(conditioner.head.last.bias)
        tensors |= {f"conditioner.{k}": t for k, t in conditioner.state_dict().items()}
    elif method == "siamese":
        tensors["embedding.weight"] = torch.randn(24, CHANNELS, 1, 1) / CHANNELS**0.5
    else:
        tensors["classifier.1.weight"] = torch.zeros(16, CHANNELS, 1, 1)
    path = folder / f"{method}.safetensors"
    save_checkpoint(path, tensors, header)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("oslsm"), "oslsm", OslsmSettings(hashed=40, side=48))


@pytest.fixture(scope="module")
def report(checkpoint: Path) -> Iterator[ExportReport]:
    yield export_bundle(checkpoint, checkpoint.parent / "small.fsseg", ExportSettings("x", SIZE))


def test_the_bundle_has_the_conditioner(report: ExportReport) -> None:
    bundle = Bundle.open(report.path)
    graphs = bundle.manifest.graphs
    assert set(graphs) == {"encoder", CONDITIONER}
    assert graphs[CONDITIONER].inputs[0].shape == (-1, 3, *SIZE)
    assert graphs[CONDITIONER].outputs[0].shape == (-1, CHANNELS + 1)
    assert bundle.manifest.method.name == "oslsm"
    assert set(report.parities) == {"encoder", "head", "whole"}
    assert report.parity.ok and report.verified.ok


def test_the_hash_is_a_gather(report: ExportReport) -> None:
    """40 numbers to 257 weights: no matrix of that shape is in the file."""
    import onnx

    bundle = Bundle.open(report.path)
    model = onnx.load_from_string(bytes(bundle.member(bundle.manifest.graphs[CONDITIONER].file)))
    shapes = [tuple(item.dims) for item in model.graph.initializer]
    assert (CHANNELS + 1,) in shapes
    assert not {(40, CHANNELS + 1), (CHANNELS + 1, 40)} & set(shapes)


def test_it_answers_as_the_checkpoint_does(checkpoint: Path, report: ExportReport) -> None:
    shown, mask, query = episode()
    segmenter = Segmenter.load(report.path, threads=1)
    task = segmenter.prepare({"a": [(shown, mask), (query, ~mask)], "b": [(shown, ~mask)]})
    result = task.segment(query)
    assert result.planes is not None and result.planes.tolist() == [0, 1, 1, 2]
    assert np.abs(result.logits[1:]).max() > 0 and not np.isnan(result.scores).any()
    for method in ("panet", "nearest", "logreg"):
        other = Segmenter.load(report.path, method=method, threads=1)
        assert other.segment(shown, mask, query).labels.shape == query.shape[:2]


def test_in_torch(checkpoint: Path, report: ExportReport) -> None:
    graph = head_graphs(checkpoint, "oslsm", (16, 16))[CONDITIONER]
    image = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype(np.float32)
    image[:, :, 20:] = 0
    module = trained_module(checkpoint, "oslsm")
    assert module is not None
    with torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()
    assert np.array_equal(graph.run({"image": image})["parameters"], expected)
    half = head_graphs(checkpoint, "oslsm", (16, 16), True)[CONDITIONER]
    found = half.run({"image": image})["parameters"]
    assert half.precision == "bf16" and found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert head_graphs(checkpoint, "panet", (16, 16)) == {}


@pytest.mark.parametrize("part", ["head", "whole"])
def test_a_conditioner_that_disagrees_is_not_written(
    report: ExportReport,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    bundle = Bundle.open(report.path)
    members = {
        name: bytes(bundle.member(spec.file)) for name, spec in bundle.manifest.graphs.items()
    }

    def other(parts: dict[str, Part]) -> dict[str, bytes]:
        with torch.no_grad():  # torch is asked after the export
            parts[CONDITIONER].module.head.last.bias += 0.5  # type: ignore[operator, union-attr]
        return {CONDITIONER: members[CONDITIONER]}

    monkeypatch.setattr(build, "to_onnx", lambda *given: members["encoder"])
    monkeypatch.setattr(build, "head_to_onnx", other)
    if part == "whole":
        monkeypatch.setattr(build, "check_head", lambda *given: build.Parity(0.0, 0.0))
    with pytest.raises(ExportError, match=rf"disagree by .*\({part}\)"):
        export_bundle(checkpoint, tmp_path / "x.fsseg", ExportSettings("x", SIZE))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_conditioner(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint of method oslsm"):
        export_bundle(written(tmp_path, "oslsm"), tmp_path / "x.fsseg", ExportSettings("x", SIZE))


def test_the_base_network_is_a_bundle_of_nearest(tmp_path: Path) -> None:
    """Its classifier stays behind."""
    path = written(tmp_path, "nearest")
    report = export_bundle(path, tmp_path / "base.fsseg", ExportSettings("base", SIZE))
    assert set(Bundle.open(report.path).manifest.graphs) == {"encoder"}
    assert set(report.parities) == {"encoder"}
    shown, mask, query = episode()
    own = Segmenter.load(report.path, threads=1)
    assert own.method == "nearest"
    found = own.segment(shown, mask, query)
    encoder, header = trained_encoder(path)
    graph = TorchGraph(encoder, SIZE)
    entry = {
        "method": header["method"],
        "input": {
            "size": list(SIZE),
            "geometry": "squash",
            "mean": list(encoder.mean),
            "std": list(encoder.std),
        },
        "features": {"channels": CHANNELS, "grid": list(graph.outputs[0].shape[2:])},
    }
    expected = Segmenter({"encoder": graph}, entry, threads=1).segment(shown, mask, query)
    scale = np.abs(expected.logits).max()
    assert np.abs(found.logits - expected.logits).max() < 1e-3 * scale
    assert (found.raw_labels == expected.raw_labels).mean() > 0.99
    assert len(np.unique(expected.raw_labels)) == 2
    with pytest.raises(BundleError, match="lacks siamese_embedding"):
        Segmenter.load(report.path, method="siamese")


def test_the_siamese_bundle_has_the_embedding(tmp_path: Path) -> None:
    report = export_bundle(
        written(tmp_path, "siamese"), tmp_path / "x.fsseg", ExportSettings("x", SIZE)
    )
    graphs = Bundle.open(report.path).manifest.graphs
    assert set(graphs) == {"encoder", EMBEDDING}
    assert graphs[EMBEDDING].outputs[0].shape == (-1, 24, 16, 16)
    assert set(report.parities) == {"encoder", "head", "whole"} and report.parity.ok
    shown, mask, query = episode()
    own = Segmenter.load(report.path, threads=1)
    task = own.prepare({"a": [(shown, mask)]})
    assert task.state.arrays["cells"].shape == (1, 24, 256)
    other = Segmenter.load(report.path, method="nearest", threads=1).segment(shown, mask, query)
    assert not np.array_equal(task.segment(query).logits, other.logits)


def test_evaluation_runs_it_on_torch(checkpoint: Path, report: ExportReport) -> None:
    check_evaluation(checkpoint, report, "oslsm")
    assert "conditioner" in "".join(load_checkpoint(checkpoint)[0])
