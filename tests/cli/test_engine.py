"""``fsseg engine``: what it builds, lists and removes, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk.backends.tensorrt import driver as driver_module
from fsseg_sdk.cli import main
from tests.tiny import tiny_bundle

rtx = pytest.importorskip("tests.tensorrt.fake_trt")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TensorRT-RTX is a fake, which is built for no device; so no driver is needed."""
    monkeypatch.setenv("FSSEG_ENGINE_CACHE", str(tmp_path / "engines"))
    monkeypatch.delenv("FSSEG_TENSORRT", raising=False)
    monkeypatch.setattr(driver_module, "LIBRARIES", ("libnothing.so.1",))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", rtx.Fake(None, "1.7.1.116"))
    return tiny_bundle(tmp_path / "tiny.fsseg")


BUILD = ("engine", "build", "--backend", "tensorrt-rtx", "--device", "none")


def run(capsys: Any, *arguments: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    return out, err


def test_build_list_clear(bundle: Path, capsys: Any, caplog: Any) -> None:
    out, err = run(capsys, *BUILD, bundle)
    assert out.startswith("encoder: fp32 on none") and "no engine of this graph" in out
    assert "building a tensorrt-rtx engine for encoder in fp32" in err and caplog.text == ""
    out, _ = run(capsys, *BUILD, bundle)
    assert "was there already" in out
    out, _ = run(capsys, *BUILD, bundle, "--force")
    assert "built: it was asked for" in out
    out, _ = run(capsys, "engine", "list")
    assert "1 engines" in out and "tensorrt-rtx 1.7.1.116" in out
    (path,) = (bundle.parent / "engines").glob("*.engine")
    path.write_bytes(path.read_bytes()[:100])
    out, _ = run(capsys, "engine", "list")
    assert "damaged" in out and "cut off" in out
    out, _ = run(capsys, "engine", "clear", "--damaged")
    assert "removed 1 engines" in out
    out, _ = run(capsys, "engine", "clear")
    assert "removed 0 engines" in out


def test_json(bundle: Path, capsys: Any) -> None:
    out, _ = run(capsys, *BUILD, bundle, "--json")
    (engine,) = json.loads(out)["engines"]
    assert engine["built"] and engine["key"]["precision"] == "fp32"
    assert Path(engine["path"]).stat().st_size > engine["bytes"]
    out, _ = run(capsys, "engine", "list", "--json")
    (listed,) = json.loads(out)["engines"]
    assert listed["key"] == engine["key"] and listed["path"] == engine["path"]
    out, _ = run(capsys, "engine", "clear", "--json")
    assert json.loads(out)["removed"] == [engine["path"]]


def test_other_options_need_a_setting(bundle: Path, capsys: Any) -> None:
    out, err = run(capsys, *BUILD, bundle, "--batch", 2)
    assert "FSSEG_TENSORRT=batch=2" in err
    assert "profiles is" not in out
    out, err = run(capsys, *BUILD, bundle, "--workspace", 64)
    assert "8x3x64x64" in out and "FSSEG_TENSORRT" not in err  # the reason: another profile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "100"), "batch=1..64"),
        (("--dla", "-3"), "dla=0..15"),
        (("--precision", "int8"), "--precision int8"),
        (("--precision", "fp7"), "'fp32' or"),
    ],
)
def test_what_it_refuses(bundle: Path, capsys: Any, arguments: tuple[str, ...], words: str) -> None:
    _, err = run(capsys, *BUILD, bundle, *arguments, code=2)
    assert words in err


def test_without_a_driver(bundle: Path, capsys: Any) -> None:
    _, err = run(capsys, "engine", "build", bundle, code=2)
    assert "no NVIDIA driver here" in err
    _, err = run(capsys, "engine", "build", bundle, "--device", "none", code=2)
    assert "expected 'cuda'" in err


def test_a_full_disk(bundle: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    _, err = run(capsys, *BUILD, bundle, code=2)
    assert "No space left on device" in err
