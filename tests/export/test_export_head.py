"""A method with a head of its own: its graphs in the bundle, and what must agree before it is
written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import export.build as build
import export.head as heads
from export.build import ExportError, ExportReport, ExportSettings, export_bundle
from export.derive import Derivation
from export.head import check_head, head_to_onnx
from export.onnx_graph import SMALL
from export.settings import PrecisionSettings
from export.written import write_derived
from fsseg_sdk import BundleError, InputError, Segmenter
from fsseg_sdk.backends import open_graph
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.cli.__main__ import main as fsseg
from tests.export.heads import check_evaluation, episode
from training.checkpoint import load_checkpoint, save_checkpoint
from training.encoders import build_encoder
from training.heads import Part, parts_of
from training.scenes import draw_pair
from training.smcp.head import Head, HeadSettings
from training.smcp.split import HEAD, PROTOTYPE, QUERY, head_specs, trained_head

SIZE = (64, 64)
ENCODER, TAPS = "vgg16", {"taps": ["conv3"]}  # few nodes, so that it is exported fast
FORMS = (
    HeadSettings("official", width=32),
    HeadSettings("paper", width=16),
    HeadSettings(pyramid=False, width=24),
)


def written(folder: Path, form: HeadSettings, spoil: str = "") -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(1)
    encoder = build_encoder(ENCODER, TAPS)
    head = Head(int(encoder.channels), form)
    for part in head.classifier.parts:  # as training leaves it: both answers occur
        torch.nn.init.normal_(part.weight, 0.0, 0.1)
    header = {
        "method": {"name": "smcp", "settings": {"fusion": "shots"}},
        "encoder": {"name": ENCODER, "settings": TAPS},
    }
    tensors = {f"encoder.{k}": t for k, t in encoder.state_dict().items()}
    tensors |= {f"head.{k}": t for k, t in head.state_dict().items() if k != spoil}
    path = folder / "checkpoint.safetensors"
    save_checkpoint(path, tensors, header)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("smcp"), FORMS[0])


@pytest.fixture(scope="module")
def report(checkpoint: Path) -> Iterator[ExportReport]:
    yield export_bundle(checkpoint, checkpoint.parent / "small.fsseg", ExportSettings("x", SIZE))


def graph_of(report: ExportReport, name: str) -> bytes:
    bundle = Bundle.open(report.path)
    return bytes(bundle.member(bundle.manifest.graphs[name].file))


def test_the_bundle_has_the_graphs(report: ExportReport) -> None:
    bundle = Bundle.open(report.path)
    graphs = bundle.manifest.graphs
    assert set(graphs) == {"encoder", QUERY, PROTOTYPE, HEAD}
    assert graphs[QUERY].outputs[0].shape == (-1, 32, 16, 16)
    assert graphs[PROTOTYPE].outputs[0].shape == (-1, 32, 9)
    assert [info.shape[0] for info in graphs[HEAD].inputs] == [1, -1]
    assert bundle.manifest.method.settings == {"fusion": "shots"}
    assert set(report.parities) == {"encoder", "head", "whole"}
    assert report.parity.ok and report.verified.ok
    assert "whole: largest difference" in str(report)


def test_no_weight_is_in_two_graphs(checkpoint: Path, report: ExportReport) -> None:
    found = 0
    for name in (QUERY, PROTOTYPE, HEAD):
        model = onnx.load_from_string(graph_of(report, name))
        for initialiser in model.graph.initializer:
            size = int(np.prod(initialiser.dims))
            half = initialiser.data_type == onnx.TensorProto.FLOAT16
            assert half == (size >= SMALL), initialiser.name
            counted = not {"inside.float16", "head.classifier.sums.weight.float16"} & {
                initialiser.name
            }
            found += size if half and counted else 0
    tensors = load_checkpoint(checkpoint)[0]
    own = [t.numel() for k, t in tensors.items() if re.match(r"head\.(?!classifier)", k)]
    assert found == sum(size for size in own if size >= SMALL)


def test_any_number_of_classes_and_shots(report: ExportReport, tmp_path: Path) -> None:
    segmenter = Segmenter.load(report.path, threads=1)
    assert segmenter.method == "smcp"
    shown, mask, query = episode()
    rest = ~mask
    task = segmenter.prepare({"a": [(shown, mask), (query, rest)], "b": [(shown, rest)]})
    result = task.segment(query)
    assert result.logits.shape == (3, 16, 16) and not result.logits[0].any()
    assert np.abs(result.logits[1:]).max() > 0
    task.save(tmp_path / "two.task")
    again = segmenter.load_task(tmp_path / "two.task").segment(query)
    assert np.array_equal(again.logits, result.logits)
    assert not np.array_equal(
        Segmenter.load(report.path, threads=1, settings={"passes": 1})
        .segment(shown, mask, query)
        .logits,
        segmenter.segment(shown, mask, query).logits,
    )


def test_other_methods_of_the_same_bundle(report: ExportReport) -> None:
    shown, mask, query = episode()
    panet = Segmenter.load(report.path, method="panet", threads=1).segment(shown, mask, query)
    assert panet.activation == "softmax"
    with pytest.raises(BundleError, match="lacks smcp_query, smcp_prototype, smcp_head"):
        Segmenter.load("default", method="smcp")
    with pytest.raises(InputError, match="passes"):
        Segmenter.load(report.path, settings={"passes": 3})


def test_the_command_line(report: ExportReport, tmp_path: Path, capsys: Any) -> None:
    shown, mask, query = episode()
    files = {"shown.png": shown, "mask.png": mask.astype(np.uint8) * 255, "query.png": query}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(tmp_path / name)
    support, own, asked = (str(tmp_path / name) for name in files)
    words = ["segment", "--bundle", str(report.path), "--method", "smcp", "--support", support]
    words += ["--mask", own, asked, "--out", str(tmp_path / "found"), "--json", "--threads", "1"]
    assert fsseg([*words, "--setting", "passes=2", "--setting", "guide=pseudo"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"][0]["status"] == "segmented"
    assert (tmp_path / "found" / "query_mask.png").exists()
    assert fsseg([*words, "--setting", "guide=none"]) == 2


def test_the_base_network_agrees() -> None:
    torch.manual_seed(2)
    form = FORMS[2]
    grid, head = (9, 7), Head(12, form).eval()
    specs = head_specs(12, form.width, grid)
    data = head_to_onnx(parts_of(head, "smcp", grid))
    graphs = {n: open_graph(g, specs[n], threads=1) for n, g in data.items()}
    features = np.random.default_rng(1).normal(size=(2, 12, *grid)).astype(np.float32)
    images = np.zeros((1, 3, 8, 8), np.float32)  # this head reads none
    assert check_head(head, graphs, features, images).ok
    with torch.no_grad():
        head.fuse.weight[3, 20, 0, 2] += 0.5  # of the prototype's share, at one tap
    assert not check_head(head, graphs, features, images).ok


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_read_off_the_tensors(tmp_path: Path, form: HeadSettings) -> None:
    assert trained_head(written(tmp_path, form)).settings == form


def test_evaluation_runs_the_head_on_torch(checkpoint: Path, report: ExportReport) -> None:
    labels = check_evaluation(checkpoint, report, "smcp")
    assert 0.05 < labels.mean() < 0.95


@pytest.mark.parametrize("part", ["head", "whole"])
def test_a_head_that_disagrees_is_not_written(
    report: ExportReport,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    load = build.trained_module
    loaded: list[Head] = []

    def keep(path: Path, method: str) -> torch.nn.Module:
        head = load(path, method)
        assert isinstance(head, Head)
        loaded.append(head)
        return head

    def other(parts: dict[str, Part]) -> dict[str, bytes]:
        with torch.no_grad():  # torch is asked after the export
            loaded[0].classifier.parts[2].bias[1] += 0.05
            parts[HEAD].module.head.classifier.shifts[2].bias[1] += 0.05
        return {name: graph_of(report, name) for name in (QUERY, PROTOTYPE, HEAD)}

    monkeypatch.setattr(build, "to_onnx", lambda *given: graph_of(report, "encoder"))
    monkeypatch.setattr(build, "trained_module", keep)
    monkeypatch.setattr(build, "head_to_onnx", other)
    if part == "whole":
        monkeypatch.setattr(build, "check_head", lambda *given: build.Parity(0.0, 0.0))
    with pytest.raises(ExportError, match=rf"disagree by 0\.05.*\({part}\)"):
        export_bundle(checkpoint, tmp_path / "x.fsseg", ExportSettings("x", SIZE))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_its_head(tmp_path: Path) -> None:
    for spoil in ("fuse.weight", "blocks.1.2.weight"):
        path = written(tmp_path, FORMS[0], spoil)
        with pytest.raises(ValueError, match=rf"head\.{spoil}".replace(".w", r"\.w")):
            export_bundle(path, tmp_path / "x.fsseg", ExportSettings("x", SIZE))


def test_the_whole_is_asked_for_two_classes_too() -> None:
    seeds = range(1, heads.EPISODES)
    pairs = [draw_pair(np.random.default_rng(seed), heads.SIDE)[0][1] for seed in seeds]
    assert any((families == 2).any() for families in pairs)


def test_a_head_is_in_every_half_precision_and_in_float32_beside_int8(
    report: ExportReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMCP's: the Segmenter says which graph computes in what."""
    monkeypatch.setattr("export.accuracy.DRAWN", 2)
    made = Derivation(report.path, PrecisionSettings(("fp16", "int8"), ("u8s8",), most_loss=20.0))
    write_derived(made, tmp_path / "two.fsseg")
    computes = {
        name: [file.compute for file in spec.files]
        for name, spec in Bundle.open(tmp_path / "two.fsseg").manifest.graphs.items()
    }
    assert computes.pop("encoder") == ["float16", "int8"]
    assert set(map(tuple, computes.values())) == {("float32", "float16")} and len(computes) == 3
    given: Any = {"backend": "onnxruntime", "device": "cpu", "threads": 1}
    for precision, others in (("fp16", "fp16"), ("int8", "fp32")):
        segmenter = Segmenter.load(tmp_path / "two.fsseg", precision=precision, **given)
        found = dict(segmenter.precisions)
        assert found.pop("encoder") == precision and set(found.values()) == {others}
