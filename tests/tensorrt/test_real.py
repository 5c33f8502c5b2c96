"""Against the real TensorRT-RTX, which builds engines without a GPU. Skipped where it is not
installed; `make tensorrt` installs it and runs all of this.

FSSEG_BUNDLES: a folder with more bundles (`*.fsseg`) of which every file is built, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fsseg_sdk.backends.graph import GraphFile, GraphSpec
from fsseg_sdk.backends.tensorrt import FILES, build_engine
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.engines import EngineCache
from fsseg_sdk.errors import BackendError
from fsseg_sdk.segmenter import find_bundle, shipped
from tests.tensorrt import check_api, fake_trt
from tests.tensorrt.fake_trt import Fake
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx

try:
    import tensorrt_rtx_bindings as rtx
except ImportError:
    rtx = None
needs_rtx = pytest.mark.skipif(rtx is None, reason="TensorRT-RTX is not installed: make tensorrt")


@needs_rtx
def test_every_name_is_there() -> None:
    assert check_api.check(rtx) == []


@needs_rtx
def test_the_check_sees_what_is_missing() -> None:
    class Config(rtx.IBuilderConfig):
        set_flag: Any = property(lambda self: None, doc="set_flag(self: X, name: str) -> None")

    parts = {name: getattr(rtx, name) for name in dir(rtx) if name != "Runtime"}
    problems = check_api.check(
        SimpleNamespace(**{**parts, "IBuilderConfig": Config, "Runtime": object})
    )
    assert "Runtime.deserialize_cuda_engine is missing" in problems
    assert any(t.startswith("IBuilderConfig.set_flag: expected (flag)") for t in problems)


def test_the_fake_has_the_same_names() -> None:
    """What the other tests run against is no easier than the real one."""
    from fsseg_sdk.backends.tensorrt import api

    fake = Fake(None)
    for protocol in api.PROTOCOLS:
        real = getattr(fake, protocol.__name__)
        if not isinstance(real, type):  # Builder and the like, which the module makes
            real = getattr(fake_trt, protocol.__name__)
        assert isinstance(real, type)
        for name in vars(protocol):
            if not name.startswith("_"):
                assert hasattr(real, name), (protocol, name)


@needs_rtx
def test_the_tiny_graph_and_the_cache(tmp_path: Path) -> None:
    cache, seen = EngineCache(tmp_path / "engines"), []
    settings = {"device": "none", "cache": cache}
    key, built = build_engine(
        "tensorrt-rtx", tiny_onnx(), SPEC, progress=lambda *a: seen.append(a), **settings
    )
    assert (key.gpu, key.runtime_version) == ("none", rtx.__version__)
    assert len(built.plan) > 1000 and built.notes["layers"] and seen
    _, again = build_engine("tensorrt-rtx", tiny_onnx(), SPEC, **settings)
    assert again.reason == "" and bytes(again.plan) == bytes(built.plan)


@needs_rtx
def test_progress_can_end_a_build(tmp_path: Path) -> None:
    def interrupted(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    cache = EngineCache(tmp_path / "engines")
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            "tensorrt-rtx", tiny_onnx(), SPEC, device="none", cache=cache, progress=interrupted
        )
    assert cache.entries() == []


@needs_rtx
def test_what_the_real_parser_refuses(tmp_path: Path) -> None:
    data = tiny_onnx().replace(b"Tanh", b"Tang")
    with pytest.raises(BackendError, match=r"one that TensorRT can parse.*Tang"):
        build_engine(
            "tensorrt-rtx", data, SPEC, device="none", cache=EngineCache(tmp_path / "engines")
        )


def bundles() -> Iterator[Path]:
    yield from (find_bundle(name) for name in shipped())
    folder = os.environ.get("FSSEG_BUNDLES", "")
    yield from sorted(Path(folder).glob("*.fsseg")) if folder else ()


def graphs() -> Iterator[Any]:
    """Every file of every graph that TensorRT shall run."""
    kinds = {kind: name for name, files in FILES.items() for kind in files}
    for path in bundles():
        for name, spec in Bundle.open(path).manifest.graphs.items():
            for file in spec.files:
                if (file.compute, file.flavour) in kinds:
                    yield pytest.param(
                        path, spec, file, id=f"{path.stem}-{name}-{file.compute}{file.flavour}"
                    )


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(("path", "spec", "file"), list(graphs()))
def test_every_graph_is_built(path: Path, spec: GraphSpec, file: GraphFile, tmp_path: Path) -> None:
    data = bytes(Bundle.open(path).member(file.file))
    key, built = build_engine(
        "tensorrt-rtx", data, spec.only(file), device="none", cache=EngineCache(tmp_path / "e")
    )
    assert len(built.plan) > 0.2 * len(data)
    print(f"{key.graph} in {key.precision}: {len(built.plan) / 1e6:.1f} MB, {built.notes}")
