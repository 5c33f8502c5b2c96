"""TensorRT-RTX builds what the export writes: the default bundle's encoder in each precision, and
the graphs of every method that has some of its own. Skipped where it is not installed, as in
`test_real`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from export.build import ExportSettings, export_bundle
from export.calibrate import inputs_of, measure, read_pictures
from export.half import to_half
from export.int8 import file_of
from export.plain import plain
from export.quantize import tensors_to_measure
from fsseg_sdk.backends.graph import GraphFile, GraphSpec
from fsseg_sdk.backends.tensorrt import build_engine
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.engines import EngineCache
from fsseg_sdk.segmenter import find_bundle
from tests.export import test_export_head, test_export_oslsm
from tests.tensorrt.test_real import needs_rtx
from training.oslsm.settings import OslsmSettings

pytestmark = [needs_rtx, pytest.mark.slow]
SIZE = (64, 64)
PICTURES = 8


@pytest.fixture(scope="module")
def default() -> Bundle:
    return Bundle.open(find_bundle("default"))


@pytest.fixture(scope="module")
def encoder(default: Bundle) -> ModelProto:
    return plain(bytes(default.member(default.manifest.graphs["encoder"].file)))


def engine_bytes(folder: Path, data: bytes, spec: GraphSpec) -> int:
    key, built = build_engine(
        "tensorrt-rtx", data, spec, device="none", cache=EngineCache(folder / "engines")
    )
    print(f"{key.graph} in {key.precision}: {len(built.plan) / 1e6:.1f} MB, {built.notes}")
    return len(built.plan)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_the_default_in_each_precision(
    default: Bundle, encoder: ModelProto, kind: str, tmp_path: Path
) -> None:
    """int8 without the search for layers that stay in float32: all of them are quantised."""
    flavour = "s8s8" if kind == "int8" else ""
    file = GraphFile(f"encoder.{kind}.onnx", kind, kind, flavour)
    if kind == "int8":
        entry = default.manifest.to_json()["input"]
        assert isinstance(entry, dict)
        feeds = inputs_of(read_pictures(None, PICTURES), entry)
        ranges = measure(encoder, tensors_to_measure(encoder), feeds)
        data = file_of(encoder, ranges["s8s8"], "s8s8", ())
    else:
        data = to_half(encoder, "float16" if kind == "float16" else "bfloat16")
    spec = default.manifest.graphs["encoder"].only(file)
    assert engine_bytes(tmp_path, data, spec) > 0.2 * len(data)


@pytest.mark.parametrize("method", ["smcp", "oslsm", "siamese"])
def test_the_graphs_of_methods(method: str, tmp_path: Path) -> None:
    """Random weights and small pictures: what counts are the operators. In fp32 and in fp16."""
    if method == "smcp":
        path = test_export_head.written(tmp_path, test_export_head.FORMS[0])
    else:
        own = OslsmSettings(hashed=40, side=48) if method == "oslsm" else None
        path = test_export_oslsm.written(tmp_path, method, own)
    report = export_bundle(path, tmp_path / "x.fsseg", ExportSettings("x", SIZE))
    bundle = Bundle.open(report.path)
    heads = [name for name in bundle.manifest.graphs if name != "encoder"]
    assert heads
    for name in heads:
        spec = bundle.manifest.graphs[name]
        data = bytes(bundle.member(spec.file))
        assert engine_bytes(tmp_path, data, spec) > 1000
        half = spec.only(GraphFile(f"{name}.fp16.onnx", "float16", "float16"))
        assert engine_bytes(tmp_path, to_half(plain(data), "float16"), half) > 1000
