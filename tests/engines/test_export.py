"""`python -m export --engine`: for real with TensorRT-RTX, which builds without a GPU (`make
tensorrt` installs it), and what it says where nothing can be built."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import export.__main__ as command
from export.__main__ import main
from fsseg_sdk.backends.tensorrt import probe_driver
from tests.tiny import tiny_bundle

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed: make tensorrt",
)
WITHOUT_GPU = ["--engine-backend", "tensorrt-rtx", "--engine-device", "none"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.fsseg")


@needs_rtx
def test_every_precision(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, triton = tmp_path / "engines", tmp_path / "repository"
    words = ["--from", str(source), "--precision", "fp32,fp16,bf16,int8", "--most-loss", "50"]
    words += ["--engine", str(folder), "--batch", "2", "--triton", str(triton), *WITHOUT_GPU]
    assert main(words) == 0
    files = {"encoder": "fp32", "encoder.fp16": "fp16", "encoder.bf16": "bf16"}
    files["encoder.int8-s8s8"] = "int8"  # TensorRT takes no u8s8
    assert {p.name for p in folder.iterdir()} == {
        f"{name}.{kind}" for name in files for kind in ("plan", "json", "log")
    }
    for name, precision in files.items():
        assert (folder / f"{name}.plan").stat().st_size > 1000
        assert "info:" in (folder / f"{name}.log").read_text()
        key = json.loads((folder / f"{name}.json").read_text())["key"]
        assert (key["precision"], key["gpu"], key["runtime"]) == (precision, "none", "tensorrt-rtx")
        assert key["profiles"][0].split()[-1].startswith("2x3x")
    assert "Triton runs no plans of tensorrt-rtx" in capsys.readouterr().err
    assert {p.name for p in triton.glob("*/1/*")} == {"model.onnx"}


@needs_rtx
def test_one_picture_a_call(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed graph needs no profile; without --batch the environment says what an engine takes."""
    folder = tmp_path / "engines"
    words = ["--from", str(source), "--precision", "fp16", "--engine", str(folder), *WITHOUT_GPU]

    def profiles() -> list[str]:
        return json.loads((folder / "encoder.fp16.json").read_text())["key"]["profiles"]

    assert main([*words, "--batch", "1"]) == 0 and profiles() == []
    monkeypatch.setenv("FSSEG_TENSORRT", "batch=3")
    assert main(words) == 0 and profiles()[0].split()[-1].startswith("3x3x")


@needs_rtx
def test_nothing_that_tensorrt_takes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--from", str(source), "--precision", "int8", "--flavour", "u8s8", "--most-loss", "50"]
    assert main([*words, "--engine", str(tmp_path / "engines"), *WITHOUT_GPU]) == 2
    assert "of int8 the flavour s8s8" in capsys.readouterr().err
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "an NVIDIA driver and a GPU"),
        (["--engine-backend", "tensorrt-rtx"], "an NVIDIA driver and a GPU"),
        (["--engine-device", "cuda:99"], "an NVIDIA driver and a GPU"),
        (["--engine-device", "none"], "expected 'cuda'"),
        (["--engine-device", "gpu"], "expected 'cuda'"),
    ],
)
def test_said_before_anything_is_computed(
    options: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if probe_driver().devices and "NVIDIA" in expected and "cuda:99" not in options:
        pytest.skip("there is a GPU")
    monkeypatch.setattr(command, "Derivation", None)
    words = ["--from", "default", "--precision", "fp16", "--out", str(tmp_path / "x.fsseg")]
    assert main([*words, "--engine", str(tmp_path / "engines"), *options]) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_options_that_need_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--from", "default", "--out", "x.fsseg", *WITHOUT_GPU])
    assert "add --engine DIR" in capsys.readouterr().err
