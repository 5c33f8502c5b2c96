"""What is asked of TensorRT when an engine is built, and how the cache stands between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk.backends import tensorrt
from fsseg_sdk.backends.graph import GraphSpec, TensorInfo
from fsseg_sdk.backends.tensorrt import BuildOptions, read_options
from fsseg_sdk.backends.tensorrt import driver as driver_module
from fsseg_sdk.engines import EngineCache
from fsseg_sdk.errors import BackendError, InputError
from tests.tensorrt.fake_trt import Fake
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_features, tiny_onnx

Install = Callable[..., Fake]
HALF = replace(SPEC, compute="float16")  # the fake does not look


def opened(spec: GraphSpec = SPEC, precision: str = "fp32", data: bytes | None = None) -> Any:
    return tensorrt.open_graph(
        data or tiny_onnx(), spec, device="cuda", precision=precision, threads=None
    )


def works(graph: Any) -> bool:
    image = np.ones((1, 3, 64, 64), np.float32)
    return bool(
        np.allclose(graph.run({"image": image})["features"], tiny_features(image), atol=1e-5)
    )


def files(tmp_path: Path, suffix: str = ".engine") -> list[Path]:
    return sorted((tmp_path / "engines").glob(f"*{suffix}"))


# --- the build -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_strongly_typed_without_tf32(install: Install, version: str) -> None:
    fake = install(version)
    assert works(opened())
    assert ("network", 1 << 1) in fake.said
    assert ("clear_flag", "TF32") in fake.said
    shape = (3, 64, 64)
    assert ("profile", "image", (1, *shape), (1, *shape), (8, *shape)) in fake.said
    assert not any(kind == "workspace" for kind, *_ in fake.said)


def test_tf32_only_where_precision_is_reduced_anyway(install: Install) -> None:
    fake = install()
    opened(HALF, "fp16")
    assert ("clear_flag", "TF32") not in fake.said


def test_a_small_board_gets_a_cap(install: Install, driver: Any, monkeypatch: Any) -> None:
    fake = install()
    driver.fake_reset(1, 1)
    driver_module._probe.cache_clear()
    opened()
    assert ("workspace", 1 << 30) in fake.said  # an eighth of 8 GiB
    monkeypatch.setenv("FSSEG_TENSORRT", "workspace=256,batch=2")
    opened()
    assert ("workspace", 256 << 20) in fake.said
    assert fake.said[[s[0] for s in fake.said].index("profile", 8)][-1] == (2, 3, 64, 64)


def test_a_fixed_batch_needs_no_profile(install: Install) -> None:
    fake = install()
    fixed = GraphSpec(
        SPEC.file,
        (TensorInfo("image", "float32", (1, 3, 64, 64)),),
        (TensorInfo("features", "float32", (1, 16, 8, 8)),),
    )
    assert works(opened(fixed, data=tiny_onnx(batch=1)))
    assert not any(kind == "profile" for kind, *_ in fake.said)


def test_an_axis_that_cannot_be_free(install: Install) -> None:
    install()
    free = GraphSpec(SPEC.file, (TensorInfo("image", "float32", (-1, 3, -1, 64)),), SPEC.outputs)
    with pytest.raises(BackendError, match="whose first axis alone is free"):
        opened(free)


def test_the_accelerator(install: Install, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("FSSEG_TENSORRT", "dla=1")
    fake = install("11.4.1", dla=2)
    opened(HALF, "fp16")
    assert ("network", 2) in fake.said and ("set_flag", "GPU_FALLBACK") in fake.said
    assert any(said[0] == "build" and said[2] == 1 for said in fake.said)
    fake = install("10.3.0", dla=2)  # no strongly typed network there
    opened(HALF, "fp16")
    assert ("network", 0) in fake.said and ("set_flag", "FP16") in fake.said


@pytest.mark.parametrize(
    ("version", "cores", "spec", "precision", "words"),
    [
        ("11.4.1", 0, HALF, "fp16", "a deep learning accelerator"),
        ("11.4.1", 1, HALF, "fp16", "a core from 0 to 0"),
        ("11.4.1", 2, SPEC, "fp32", "precision fp16 or int8"),
        ("10.3.0", 2, replace(SPEC, compute="int8"), "int8", "precision fp16"),
    ],
)
def test_no_accelerator(
    install: Install, monkeypatch: Any, version: str, cores: int, spec: GraphSpec, precision: str,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FSSEG_TENSORRT", "dla=1")
    install(version, dla=cores)
    with pytest.raises(BackendError) as caught:
        opened(spec, precision)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("parse", "node 65 'resize' (Resize): Antialiasing is not supported"),
        ("build", "no engine: out of tactics"),
    ],
)
def test_what_tensorrt_cannot_build(
    install: Install, tmp_path: Path, fail: str, words: str
) -> None:
    install().fail.add(fail)
    with pytest.raises(BackendError) as caught:
        opened()
    assert words in str(caught.value)
    assert files(tmp_path) == [] and files(tmp_path, ".part") == []


def test_progress_and_its_end(install: Install, tmp_path: Path) -> None:
    install()
    cache, seen = EngineCache(tmp_path / "c"), []
    settings = {"precision": "fp32", "cache": cache}
    tensorrt.build_engine(
        "tensorrt", tiny_onnx(), SPEC, progress=lambda *a: seen.append(a), rebuild=True, **settings
    )
    assert seen[0] == ("Building engine", 0, 3) and seen[-1] == ("Building engine", 3, 3)

    def interrupted(phase: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorrt.build_engine(
            "tensorrt", tiny_onnx(), SPEC, progress=interrupted, rebuild=True, **settings
        )


@pytest.mark.parametrize(
    "text",
    ["batch", "batch=0", "batch=65", "batch=1,batch=2", "size=3", "batch=-1", "dla=x", "batch=１"],
)
def test_options_that_are_wrong(text: str) -> None:
    with pytest.raises(InputError, match="FSSEG_TENSORRT"):
        read_options(text)


def test_options() -> None:
    assert read_options("") == BuildOptions()
    assert read_options(" batch=4, workspace=128,dla=0,") == BuildOptions(4, 128, 0)


def test_flavours_of_int8(install: Install) -> None:
    install()
    spec = replace(SPEC, compute="int8")
    assert opened(replace(spec, flavour="s8s8"), "int8").precision == "int8"
    with pytest.raises(BackendError, match="u8s8"):
        opened(replace(spec, flavour="u8s8"), "int8")


# --- the cache between ---------------------------------------------------------------------------


def builds(fake: Fake) -> int:
    return sum(kind == "build" for kind, *_ in fake.said)


def test_built_once(install: Install, tmp_path: Path, caplog: Any) -> None:
    fake = install()
    assert works(opened()) and works(opened())
    assert builds(fake) == 1 and len(files(tmp_path)) == 1
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "building a tensorrt engine for encoder in fp32" in said
    assert "no engine of this graph is there yet" in said


def test_measurements_are_used_again(install: Install, tmp_path: Path) -> None:
    fake = install()
    opened()
    opened(HALF, "fp16")
    assert ("timing", b"t") in fake.said
    assert len(files(tmp_path, ".timing")) == 1
    fake = install("11.3.0")  # those of another version are of no use
    opened()
    assert not any(kind == "timing" for kind, *_ in fake.said)


def test_another_version_says_so(install: Install, caplog: Any) -> None:
    install("10.3.0")
    opened()
    fake = install("11.4.0.106")
    assert works(opened())
    assert builds(fake) == 1
    assert "runtime_version is 11.4.0.106 here, 10.3.0 in the engine" in caplog.text


def test_tampered_with(install: Install, tmp_path: Path, caplog: Any) -> None:
    """The plan of another never reaches TensorRT."""
    fake = install()
    opened()
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    fake.said.clear()
    assert works(opened())
    assert [kind for kind, *_ in fake.said if kind in ("build", "deserialize")] == [
        "build",
        "deserialize",
    ]
    assert "a plan with sha256" in caplog.text


def test_a_plan_that_tensorrt_refuses(install: Install, caplog: Any) -> None:
    """All that we know fits, and it is refused: built once more."""
    fake = install()
    opened()
    fake.fail.add("deserialize-once")
    assert works(opened())
    assert builds(fake) == 2
    assert "TensorRT refused it: an engine of another platform" in caplog.text
    fake.fail.add("deserialize")
    with pytest.raises(BackendError, match=r"load again, got TensorRT refused it: magic tag"):
        opened()
    assert builds(fake) == 3


def test_a_new_plan_that_is_refused_is_not_built_again(install: Install) -> None:
    fake = install()
    fake.fail.add("deserialize")
    with pytest.raises(BackendError, match="TensorRT refused it"):
        opened()
    assert builds(fake) == 1


def test_a_full_disk_loses_nothing(install: Install, monkeypatch: Any, caplog: Any) -> None:
    import os

    install()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert works(opened())
    assert "could not be kept" in caplog.text and "No space left" in caplog.text
