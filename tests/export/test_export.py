"""Export: a checkpoint becomes a bundle that answers as torch does, or nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

import export.build as build
from export.__main__ import main
from export.build import ExportError, ExportReport, ExportSettings, export_bundle
from export.onnx_graph import SMALL, fold_norms, round_to_half, store_half, to_onnx
from export.parity import Parity, compare
from fsseg_sdk import Segmenter
from fsseg_sdk.bundle import Bundle
from training.checkpoint import save_checkpoint
from training.encoders import build_encoder
from training.scenes import draw_pair
from training.torch_graph import TorchGraph, trained_encoder

SIZE = (64, 64)
ENCODER = "vit_tiny_detail"
SMALLER = ExportSettings("small", SIZE, storage="float16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the default bundle's encoder; the branch does not start at zero."""
    torch.manual_seed(3)
    encoder = build_encoder(ENCODER)
    torch.nn.init.normal_(encoder.fuse[-1].weight, std=0.05)
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    header = {
        "method": {"name": "panet", "settings": {"scale": 20.0, "background_parts": 2}},
        "encoder": {"name": ENCODER, "settings": {}},
        "settings": {"panet": {"scale": 20.0}},
        "iteration": 7,
        "initial": None,
    }
    save_checkpoint(path, {f"encoder.{k}": t for k, t in encoder.state_dict().items()}, header)
    return path


@pytest.fixture(scope="module")
def half(checkpoint: Path) -> Iterator[ExportReport]:
    yield export_bundle(checkpoint, checkpoint.parent / "half.fsseg", SMALLER)


def pair() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    return [(pixels, (mask == 1).astype(np.uint8)) for pixels, mask in draw_pair(rng(), 96)]


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def encoder_of(checkpoint: Path, rounded: bool) -> Any:
    encoder, _ = trained_encoder(checkpoint)
    if rounded:
        round_to_half(encoder)
    return encoder


def test_the_bundle_answers_as_torch_does(half: ExportReport, checkpoint: Path) -> None:
    (support, mask), (query, _) = pair()
    loaded = Segmenter.load(half.path, threads=1)
    graph = TorchGraph(encoder_of(checkpoint, rounded=True), SIZE)
    settings = Bundle.open(half.path).manifest.to_json()
    direct = Segmenter({"encoder": graph}, settings, threads=1)
    for picture in (support, query):
        got, expected = (s.segment(support, mask, picture) for s in (loaded, direct))
        np.testing.assert_allclose(got.scores, expected.scores, atol=2e-3)
        assert (got.labels != expected.labels).mean() < 0.002
        assert picture is query or got.mask.any()  # random weights find at least what was shown


def test_the_manifest_says_where_it_comes_from(half: ExportReport) -> None:
    manifest = Bundle.open(half.path).manifest
    assert manifest.name == "small"
    assert manifest.input.size == SIZE
    assert (manifest.features.channels, manifest.features.grid) == (256, (8, 8))
    assert manifest.source["provenance"]["encoder"] == ENCODER
    assert manifest.source["provenance"]["iteration"] == 7
    assert half.parity.ok and half.verified.ok
    assert half.size == half.path.stat().st_size


def test_half_storage_is_behind_casts_and_within_tolerance(
    half: ExportReport, checkpoint: Path
) -> None:
    model = onnx.load_from_string(bytes(Bundle.open(half.path).member("encoder.onnx")))
    casts = {n.input[0]: n.output[0] for n in model.graph.node if n.op_type == "Cast"}
    stored = [i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16]
    assert len(stored) > 10
    for initialiser in stored:
        assert casts[initialiser.name] == initialiser.name.removesuffix(".float16")
    large = [
        initialiser.name
        for initialiser in model.graph.initializer
        if initialiser.data_type == TensorProto.FLOAT
        and numpy_helper.to_array(initialiser).size >= SMALL
    ]
    assert len(large) == 1  # positions, which were interpolated beforehand
    assert not any(node.op_type == "Resize" and node.input[0] in large for node in model.graph.node)
    feeds = {"image": rng().standard_normal((1, 3, *SIZE)).astype(np.float32)}
    full, rounded = (
        TorchGraph(encoder_of(checkpoint, rounded=r), SIZE).run(feeds)["features"]
        for r in (False, True)
    )
    assert not np.array_equal(full, rounded)
    assert np.abs(full - rounded).max() < 0.01 * np.abs(full).max()


def test_float32_storage_keeps_the_weights(half: ExportReport, checkpoint: Path) -> None:
    report = export_bundle(
        checkpoint,
        checkpoint.parent / "full.fsseg",
        ExportSettings("full", SIZE, storage="float32"),
    )
    model = onnx.load_from_string(bytes(Bundle.open(report.path).member("encoder.onnx")))
    assert not any(i.data_type == TensorProto.FLOAT16 for i in model.graph.initializer)
    assert report.size > 1.8 * half.size


def test_a_graph_that_disagrees_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(encoder: Any, size: tuple[int, int]) -> bytes:
        with torch.no_grad():
            encoder.project.bias += 0.01  # torch is asked again after the graph is made
        return graph

    graph = bytes(onnx_of(checkpoint))
    monkeypatch.setattr(build, "to_onnx", other)
    out = tmp_path / "x.fsseg"
    for old in (None, b"the good one"):
        if old is not None:
            out.write_bytes(old)
        with pytest.raises(ExportError, match=r"torch and ONNX Runtime disagree by 0\.01"):
            export_bundle(checkpoint, out, SMALLER)
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == (
            [] if old is None else [("x.fsseg", old)]
        )


def onnx_of(checkpoint: Path) -> memoryview:
    return Bundle.open(checkpoint.parent / "half.fsseg").member("encoder.onnx")


def test_a_bundle_that_does_not_verify_is_not_written(
    half: ExportReport, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, golden = bytes(onnx_of(checkpoint)), build._golden

    def wrong(*arguments: Any) -> dict[str, bytes]:
        members = golden(*arguments)
        features = bytearray(members["golden/features.npy"])
        features[-2] ^= 0x7F
        return members | {"golden/features.npy": bytes(features)}

    monkeypatch.setattr(build, "to_onnx", lambda encoder, size: graph)
    monkeypatch.setattr(build, "store_half", lambda data: data)
    monkeypatch.setattr(build, "_golden", wrong)
    (tmp_path / "x.fsseg").write_bytes(b"the good one")
    with pytest.raises(ExportError, match="golden features"):
        export_bundle(checkpoint, tmp_path / "x.fsseg", SMALLER)
    assert [p.name for p in tmp_path.iterdir()] == ["x.fsseg"]
    assert (tmp_path / "x.fsseg").read_bytes() == b"the good one"


def test_a_weight_beyond_half_is_refused_by_name() -> None:
    module = torch.nn.Linear(64, 64)
    with torch.no_grad():
        module.weight[3, 4] = 1e6
    with pytest.raises(ValueError, match=r"weight: .*1e\+06"):
        round_to_half(module)


def test_parity_counts_nan_and_other_shapes_as_disagreement() -> None:
    right = np.ones((2, 3), np.float32)
    assert compare(right, right) == Parity(0.0, 0.0)
    assert compare(right, right + np.float32(5e-4)).ok
    assert not compare(right, right + np.float32(5e-3)).ok
    assert not compare(right, np.full_like(right, np.nan)).ok
    assert not compare(right, right.T).ok


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", b"\x08" + bytes(7) + b"{}      "])
def test_no_checkpoint_is_one_line_and_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "--out", str(tmp_path / "out" / "x.fsseg")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("export: ") and err.count("\n") == 1 and "x.safetensors" in err
    assert not (tmp_path / "out").exists()


def test_wrong_requests_are_one_line_and_exit_code_2(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(checkpoint)
    for options, word in (
        (["--out", "x.zip"], ".fsseg"),
        (["--out", "x.fsseg", "--input-size", "65"], "multiples of 16"),
        (["--out", "x.fsseg", "--card", str(tmp_path / "none.json")], "none.json"),
    ):
        options[1] = str(tmp_path / options[1])
        assert main([path, *options]) == 2
        err = capfd.readouterr().err
        assert err.startswith("export: ") and err.count("\n") == 1 and word in err
    assert list(tmp_path.iterdir()) == []


def test_the_grid_is_the_one_that_the_encoder_has(tmp_path: Path) -> None:
    """Not the input divided by the stride: 68 pixels are 9 cells of 8."""
    torch.manual_seed(3)
    encoder = build_encoder("resnet18")
    header = {
        "method": {"name": "panet", "settings": {}},
        "encoder": {"name": "resnet18", "settings": {}},
    }
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {f"encoder.{k}": t for k, t in encoder.state_dict().items()}, header)
    report = export_bundle(path, tmp_path / "odd.fsseg", ExportSettings("odd", (68, 68)))
    assert Bundle.open(report.path).manifest.to_json()["features"]["grid"] == [9, 9]


def test_norms_are_folded_before_weights_are_rounded() -> None:
    """The exporter folds them anyway; weights that were rounded before would not be any more."""
    torch.manual_seed(5)
    encoder = build_encoder("resnet18").eval()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.4, 1.3)
            torch.nn.init.normal_(layer.bias, std=0.3)
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.3, 3.0)
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        before = encoder(image)
        fold_norms(encoder, image)
        torch.testing.assert_close(encoder(image), before, rtol=1e-4, atol=1e-4)
        assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in encoder.modules())
        round_to_half(encoder)
        expected = encoder(image).numpy()
    data = store_half(to_onnx(encoder, SIZE))
    for weight in onnx.load_from_string(data).graph.initializer:
        assert weight.data_type != TensorProto.FLOAT or numpy_helper.to_array(weight).size < SMALL
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    assert compare(expected, found).ok
