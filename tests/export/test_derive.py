"""A bundle in other precisions: what is written, what is refused, and what opens it afterwards."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from PIL import Image

from export.__main__ import main
from export.accuracy import Cost, Judge
from export.derive import Derivation
from export.int8 import _most
from export.parity import LIMITS
from export.settings import PrecisionError, PrecisionSettings
from export.triton import Model, models_of
from export.written import derive_bundle
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import GraphSpec, TensorInfo
from fsseg_sdk.backends.onnxruntime import OnnxRuntimeGraph
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.verify import verify_bundle
from tests.test_backends import INSTALLED
from tests.tiny import CHANNELS, GRID, SIZE, tiny_bundle, tiny_scene

ALL = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("source") / "tiny.fsseg")


@pytest.fixture(scope="module")
def derived(source: Path) -> Path:
    settings = PrecisionSettings(ALL, most_loss=5.0)
    derive_bundle(source, source.parent / "all.fsseg", settings, lambda text: None)
    return source.parent / "all.fsseg"


def test_every_precision_is_in_one_bundle(source: Path, derived: Path) -> None:
    manifest = Bundle.open(derived).manifest
    spec = manifest.graphs["encoder"]
    assert [(f.compute, f.flavour) for f in spec.files] == [
        ("float32", ""),
        ("float16", ""),
        ("bfloat16", ""),
        ("int8", "s8s8"),
        ("int8", "u8s8"),
    ]
    errors = {f.flavour: f.error for f in spec.files if f.compute == "int8"}
    assert all(f.error is None for f in spec.files[:3])
    assert all(error is not None and 1e-4 < error < 0.1 for error in errors.values())
    facts: Any = manifest.to_json()["provenance"]
    assert facts["derived_from"] == Bundle.open(source).digest
    assert facts["precisions"]["int8"]["calibration_pictures"] >= 8
    image, mask = tiny_scene((24, 32), (8, 6, 20, 18))
    expected = Segmenter.load(source, threads=1).segment(image, mask, image).raw_labels
    for precision in ("fp32", "fp16", "int8"):
        segmenter = Segmenter.load(
            derived, backend="onnxruntime", precision=precision, device="cpu", threads=1
        )
        assert segmenter.precision == precision
        found = segmenter.segment(image, mask, image).raw_labels
        assert (found != expected).mean() < 0.02


def test_each_int8_file_is_verified_by_itself(source: Path, tmp_path: Path) -> None:
    """s8s8 by OpenVINO where that is installed, u8s8 by ONNX Runtime, whatever else is there."""
    settings = PrecisionSettings(("fp32", "int8"), most_loss=5.0)
    report = derive_bundle(source, tmp_path / "both.fsseg", settings, lambda text: None)
    first = "openvino" if "openvino" in INSTALLED else "onnxruntime"
    found = {name: each.backend for name, each in report.verified.items()}
    assert found == {"int8 s8s8": first, "int8 u8s8": "onnxruntime", "fp32": "onnxruntime"}
    assert f"int8 s8s8 on {first}, golden features" in str(report)
    assert [p.name for p in tmp_path.iterdir()] == ["both.fsseg"]


def test_a_broken_int8_layer_is_seen(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far below what any int8 may be off by: the file says what it is off by itself."""
    path = tmp_path / "x.fsseg"
    derive_bundle(source, path, PrecisionSettings(("int8",), ("u8s8",), most_loss=5.0), str)
    assert verify_bundle(path, backend="onnxruntime", device="cpu", threads=1).ok
    run = OnnxRuntimeGraph.run

    def broken(self: OnnxRuntimeGraph, feeds: Any) -> Any:
        return {name: value * 1.1 for name, value in run(self, feeds).items()}

    monkeypatch.setattr(OnnxRuntimeGraph, "run", broken)
    report = verify_bundle(path, backend="onnxruntime", device="cpu", threads=1)
    assert not report.ok and [c.name for c in report.checks if not c.ok] == ["golden features"]


def test_a_runtime_that_is_far_from_what_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and what it was judged with is what the file states."""
    run = OnnxRuntimeGraph.run

    def coarse(self: OnnxRuntimeGraph, feeds: Any) -> Any:
        factor = 1.1 if self.precision == "int8" else 1.0
        return {name: value * np.float32(factor) for name, value in run(self, feeds).items()}

    said: list[str] = []
    settings = PrecisionSettings(("int8",), ("u8s8",), most_loss=50.0)
    exact = Derivation(source, settings, said.append).files["encoder"][0][0].error
    assert exact is not None and not any("golden picture" in text for text in said)
    monkeypatch.setattr(OnnxRuntimeGraph, "run", coarse)
    stated = Derivation(source, settings, said.append).files["encoder"][0][0].error
    assert stated is not None and 0.09 < stated < 0.12
    assert any("onnxruntime is " in text and "golden picture" in text for text in said)


def test_a_flavour_that_cannot_be_measured_is_too_bad() -> None:
    """A loss of NaN is no loss below the limit, of the second flavour as of the first."""
    assert _most(Cost(np.nan, np.nan, np.nan, np.nan)) > _most(Cost(0.0, 99.0, 98.0, 99.9))


def test_int8_alone(source: Path, tmp_path: Path) -> None:
    settings = PrecisionSettings(("int8",), ("u8s8",), most_loss=5.0, name="small")
    out = tmp_path / "int8.fsseg"
    report = derive_bundle(source, out, settings, lambda text: None)
    spec = Bundle.open(out).manifest.graphs["encoder"]
    assert [f.flavour for f in spec.files] == ["u8s8"] and "points lost" in str(report)
    assert Bundle.open(out).manifest.name == "small"
    assert verify_bundle(out, backend="onnxruntime", device="cpu", threads=1).ok
    with pytest.raises(PrecisionError, match="a file that computes in float32"):
        derive_bundle(out, tmp_path / "again.fsseg", settings, lambda text: None)


def test_one_picture_a_call(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.fsseg"
    derive_bundle(source, out, PrecisionSettings(("fp32",), one=True), lambda text: None)
    assert Bundle.open(out).manifest.graphs["encoder"].inputs[0].shape == (1, 3, *SIZE)
    image, mask = tiny_scene((24, 32), (8, 6, 20, 18))
    Segmenter.load(out, threads=1).segment(image, mask, image)


def test_a_precision_that_disagrees_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {k: dataclasses.replace(v, features=1e-9) for k, v in LIMITS.items()}
    monkeypatch.setattr("export.parity.LIMITS", strict)
    for precision in ("fp16", "int8"):
        settings = PrecisionSettings((precision,), most_loss=50.0)
        with pytest.raises(PrecisionError, match=r"nothing was written\n(.*\n)*.*Conv +"):
            derive_bundle(source, tmp_path / "x.fsseg", settings, lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_int8_that_loses_too_much_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PrecisionSettings(("int8",), most_loss=1e-9)
    monkeypatch.setattr(Judge, "cost", lambda *given: Cost(10.0, 3.0, 2.0, 4.0))
    with pytest.raises(PrecisionError, match="may lose 1e-09 points of mean-IoU or more even with"):
        derive_bundle(source, tmp_path / "x.fsseg", settings, lambda text: None)
    monkeypatch.setattr(Judge, "cost", lambda *given: Cost(10.0, 0.0, -1.0, 1.0))
    with pytest.raises(PrecisionError, match=r"too few episodes to tell; .*--episodes"):
        derive_bundle(source, tmp_path / "x.fsseg", settings, lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_settings_out_of_range() -> None:
    for bad in (("fp8",), (), ("fp32", "fp32")):
        with pytest.raises(ValueError, match="precisions: expected some of fp32"):
            PrecisionSettings(bad)
    with pytest.raises(ValueError, match="flavours"):
        PrecisionSettings(("int8",), ("u8u8",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="most_loss"):
        PrecisionSettings(("int8",), most_loss=float("nan"))


def test_onnx_only_and_its_example(source: Path, tmp_path: Path) -> None:
    """What is written runs under plain onnxruntime, with numpy and Pillow beside it; of bf16 and
    fp16 it runs the second."""
    folder = tmp_path / "plain"
    words = ["--from", str(source), "--precision", "bf16,fp16", "--onnx-only", str(folder)]
    assert main(words) == 0
    assert {p.name for p in folder.iterdir()} == {
        "encoder.bf16.onnx",
        "encoder.fp16.onnx",
        "bundle.json",
        "match.py",
    }
    image, mask = tiny_scene((24, 32), (8, 6, 20, 18))
    Image.fromarray(image).save(folder / "picture.png")
    Image.fromarray(mask * 255).save(folder / "mask.png")
    command = [sys.executable, "match.py", "picture.png", "mask.png", "picture.png", "found.png"]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run(command, cwd=folder, check=True, timeout=60, env=environment)
    found = np.asarray(Image.open(folder / "found.png")) > 0
    both, either = (found & (mask > 0)).sum(), (found | (mask > 0)).sum()
    assert found.shape == mask.shape and both / either > 0.6


def schema() -> Any:
    """Triton's ModelConfig, as far as we write it: names, numbers and types as its documentation
    has them (protobuf/model_config.proto). A field that it does not have is an error."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference")
    file.syntax = "proto3"
    kinds = file.enum_type.add(name="DataType")
    for number, name in {0: "INVALID", 9: "INT64", 10: "FP16", 11: "FP32"}.items():
        kinds.value.add(name=f"TYPE_{name}", number=number)
    text, integer, enum, message = 9, 3, 14, 11

    def tensor(name: str, dims: int) -> None:
        own = file.message_type.add(name=name)
        own.field.add(name="name", number=1, type=text, label=1)
        own.field.add(
            name="data_type", number=2, type=enum, label=1, type_name=".inference.DataType"
        )
        own.field.add(name="dims", number=dims, type=integer, label=3)

    tensor("ModelInput", 4)
    tensor("ModelOutput", 3)
    batching = file.message_type.add(name="ModelDynamicBatching")
    batching.field.add(name="max_queue_delay_microseconds", number=2, type=4, label=1)
    config = file.message_type.add(name="ModelConfig")
    config.field.add(name="name", number=1, type=text, label=1)
    config.field.add(name="platform", number=2, type=text, label=1)
    config.field.add(name="max_batch_size", number=4, type=5, label=1)
    for name, number, kind in (("input", 5, "ModelInput"), ("output", 6, "ModelOutput")):
        config.field.add(
            name=name, number=number, type=message, label=3, type_name=f".inference.{kind}"
        )
    config.field.add(
        name="dynamic_batching",
        number=11,
        type=message,
        label=1,
        type_name=".inference.ModelDynamicBatching",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def test_a_triton_repository(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    words = ["--from", str(source), "--precision", "fp32,fp16", "--triton", str(folder)]
    assert main(words) == 0
    names = {p.name for p in folder.iterdir()}
    assert names == {"tiny_encoder_float32", "tiny_encoder_float16"}
    for name in names:
        config = text_format.Parse((folder / name / "config.pbtxt").read_text(), schema()())
        assert config.name == name and config.platform == "onnxruntime_onnx"
        assert config.max_batch_size == 8 and config.HasField("dynamic_batching")
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
            ("image", 11, [3, *SIZE])
        ]
        assert [(o.name, list(o.dims)) for o in config.output] == [("features", [CHANNELS, *GRID])]
        assert (folder / name / "1" / "model.onnx").stat().st_size > 0
        about = json.loads((folder / name / "preprocessing.json").read_text())
        assert about["size"] == list(SIZE)
    assert main(words) == 2  # nothing is overwritten


def test_triton_shapes_without_a_common_batch() -> None:
    spec = GraphSpec(
        "head.onnx",
        (TensorInfo("query", "float32", (1, 8, 4, 4)), TensorInfo("shares", "float32", (-1, 8))),
        (TensorInfo("logits", "float32", (-1, 2, 4, 4)),),
    )
    config = text_format.Parse(Model("m", spec, b"x", plan=True).config, schema()())
    assert config.max_batch_size == 0 and config.platform == "tensorrt_plan"
    assert [list(i.dims) for i in config.input] == [[1, 8, 4, 4], [-1, 8]]
    assert not config.HasField("dynamic_batching")


def test_a_plan_takes_the_place_of_its_onnx(source: Path) -> None:
    made = Derivation(source, PrecisionSettings(("fp32",)))
    (model,) = models_of("my bundle", made.specs, made.files, {"encoder.onnx": b"plan"}, 4)
    assert text_format.Parse(model.config, schema()()).max_batch_size == 4
    (file,) = models_of("my bundle", made.specs, made.files, {}, 4)
    assert text_format.Parse(file.config, schema()()).max_batch_size == 8
    assert (model.name, model.plan, model.data) == ("my-bundle_encoder", True, b"plan")


def test_the_command_line(source: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "half.fsseg"
    assert main(["--from", str(source), "--precision", "fp16", "--out", str(out)]) == 0
    assert "fp16 against float32" in capsys.readouterr().out and out.exists()
    for words, expected in (
        (["--from", str(source), "--precision", "fp64", "--out", str(out)], "fp64"),
        (["--from", str(source), "--precision", "fp16", "--out", "x.onnx"], r"ends in \.fsseg"),
        (
            [
                "--from",
                str(source),
                "--precision",
                "int8",
                "--calibration",
                "no",
                "--out",
                "x.fsseg",
            ],
            "no folder 'no'",
        ),
    ):
        assert main(words) == 2
        assert re.search(expected, capsys.readouterr().err)
    for words, expected in (
        ([], "a CHECKPOINT, or --from"),
        (["--from", "default"], "say what to write"),
        (["x.safetensors", "--from", "default", "--out", "x"], "a CHECKPOINT, or --from"),
        (["--from", "default", "--out", "x.fsseg", "--batch", "4"], "add --engine DIR"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert expected in capsys.readouterr().err


def test_engines_without_tensorrt(source: Path, tmp_path: Path, capsys: Any) -> None:
    """A typed error: no driver here, or TensorRT is not installed."""
    words = ["--from", str(source), "--precision", "fp16", "--engine", str(tmp_path / "engines")]
    try:
        status = main(words)
    finally:
        error = capsys.readouterr().err
    assert status == 0 or "tensorrt" in error
