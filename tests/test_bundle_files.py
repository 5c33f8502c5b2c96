"""Bundles with several files for a graph: one function in several precisions (format 1.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fsseg_sdk import Segmenter
from fsseg_sdk.backends.onnx_check import check_onnx
from fsseg_sdk.bundle import Bundle, write_bundle
from fsseg_sdk.errors import BackendError, BundleError, TaskError
from fsseg_sdk.segmenter import find_bundle
from fsseg_sdk.verify import _TOLERANCES, compare_features, compare_labels, verify_bundle
from tests.archives import edited
from tests.quantised import tiny_fp16, tiny_int8
from tests.test_backends import INSTALLED
from tests.test_onnx_safety import REFUSE, SPEC
from tests.tiny import tiny_bundle, tiny_golden, tiny_manifest, tiny_onnx, tiny_scene

FULL = {"file": "encoder.onnx", "storage": "float32", "compute": "float32"}
HALF = {"file": "encoder.fp16.onnx", "storage": "float16", "compute": "float16"}
S8 = {"file": "encoder.s8s8.onnx", "storage": "int8", "compute": "int8", "flavour": "s8s8"}
U8 = {"file": "encoder.u8s8.onnx", "storage": "int8", "compute": "int8", "flavour": "u8s8"}


def data_of(entry: dict[str, Any]) -> bytes:
    flavour = entry.get("flavour")
    if flavour:
        return tiny_int8(flavour)
    return tiny_fp16() if entry["compute"] == "float16" else tiny_onnx()


def several(path: Path, *files: dict[str, Any]) -> Path:
    """The tiny bundle with these files for its encoder."""
    manifest = tiny_manifest()
    encoder = manifest["graphs"]["encoder"]
    encoder.update(files[0])
    if files[1:]:
        encoder["others"] = [dict(file) for file in files[1:]]
    members = {file["file"]: data_of(file) for file in files}
    write_bundle(path, manifest, {**members, **tiny_golden()})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return several(tmp_path / "several.fsseg", FULL, HALF, S8, U8)


def test_what_it_hands_out(path: Path) -> None:
    bundle = Bundle.open(path)
    spec = bundle.manifest.graphs["encoder"]
    assert bundle.manifest.format_version == "1.1.0"
    assert [file.file for file in spec.files] == [f["file"] for f in (FULL, HALF, S8, U8)]
    assert [(f.compute, f.flavour) for f in spec.others] == [
        ("float16", ""),
        ("int8", "s8s8"),
        ("int8", "u8s8"),
    ]
    assert bundle.graphs["encoder"].quantised == ""  # of the first
    assert bytes(bundle.member("encoder.s8s8.onnx")) == tiny_int8("s8s8")


def test_one_file_is_written_as_ever(tmp_path: Path) -> None:
    """Not only the version: every byte of a bundle that an older package wrote."""
    assert Bundle.open(tiny_bundle(tmp_path / "x")).manifest.format_version == "1.0.0"
    shipped = find_bundle("default")
    bundle = Bundle.open(shipped)
    if bundle.manifest.format_version != "1.0.0":
        pytest.skip("the shipped bundle has several files")
    manifest = bundle.manifest.to_json()
    members = {name: bytes(bundle.member(name)) for name in bundle.manifest.members}
    write_bundle(tmp_path / "again.fsseg", manifest, members)
    assert (tmp_path / "again.fsseg").read_bytes() == shipped.read_bytes()


def test_one_int8_file_alone(tmp_path: Path) -> None:
    path = several(tmp_path / "x", U8)
    assert Bundle.open(path).manifest.format_version == "1.1.0"
    segmenter = Segmenter.load(path, backend="onnxruntime", threads=1)
    assert segmenter.precision == "int8"
    with pytest.raises(BackendError, match=r"a file for fp32: float32, got int8 u8s8"):
        Segmenter.load(path, backend="onnxruntime", precision="fp32")


Change = Callable[[dict[str, Any], dict[str, bytes]], object]


def changed(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda manifest, members: change(manifest["graphs"]["encoder"])


def renamed(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    """The int8 files for one another."""
    s8, u8 = S8["file"], U8["file"]
    members[s8], members[u8] = members[u8], members[s8]


def lost(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    members.pop(U8["file"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(lambda e: e.update(others=[])), "others: expected an array of 1 to 8 objects"),
        (changed(lambda e: e.update(others={})), "others: expected an array"),
        (changed(lambda e: e["others"][0].update(more=1)), "others[0].more"),
        (changed(lambda e: e["others"][0].pop("storage")), "others[0].storage"),
        (changed(lambda e: e["others"][1].update(compute="int4")), "others[1].compute"),
        (changed(lambda e: e["others"][1].update(flavour="s8u8")), "others[1].flavour"),
        (changed(lambda e: e["others"][0].update(flavour="s8s8")), "others[0].flavour"),
        (changed(lambda e: e.update(flavour="s8s8")), "encoder.flavour: expected only fields"),
        (changed(lambda e: e["others"][0].update(file="../x.onnx")), "others[0].file"),
        (changed(lambda e: e["others"][0].update(file=FULL["file"])), "a member of its own"),
        (changed(lambda e: e["others"].pop()), "only members that graphs or golden name"),
        (
            changed(lambda e: e["others"][2].update(flavour="s8s8")),
            "others: expected one file for each compute type and flavour",
        ),
        (changed(lambda e: e["others"][0].update(compute="float32")), "each compute type"),
        (renamed, "member 'encoder.s8s8.onnx': expected a graph that computes in int8 s8s8"),
        (lost, "member 'encoder.u8s8.onnx'"),
    ],
)
def test_what_is_refused(path: Path, change: Change, words: str) -> None:
    edited(path, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert words in str(caught.value)


def test_every_file_is_the_graph_of_the_manifest(tmp_path: Path) -> None:
    """Another file with another output is no other form of the same function."""
    with pytest.raises(BundleError, match=r"member 'encoder\.fp16\.onnx': expected outputs"):
        manifest = tiny_manifest()
        manifest["graphs"]["encoder"]["others"] = [HALF]
        wrong = tiny_fp16().replace(b"features", b"featurez")
        members = {"encoder.onnx": tiny_onnx(), HALF["file"]: wrong, **tiny_golden()}
        write_bundle(tmp_path / "x", manifest, members)
    assert not (tmp_path / "x").exists()


def zero_points(change: Callable[[onnx.TensorProto], object], flavour: str = "s8s8") -> str:
    """How the tiny encoder is quantised, after a change of all its zero points."""
    model = onnx.load_from_string(tiny_int8(flavour))
    names = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            change(tensor)
    compute = replace(SPEC, compute="int8")
    return check_onnx(model.SerializeToString(), compute, REFUSE).quantised


def typed(value: int) -> Callable[[onnx.TensorProto], object]:
    """As ONNX may also store it: a number, not a byte."""

    def change(tensor: onnx.TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.ClearField("int32_data")
        tensor.int32_data.append(value)

    return change


def test_how_a_file_is_quantised() -> None:
    assert zero_points(lambda tensor: None) == "s8s8"
    assert zero_points(lambda tensor: None, "u8s8") == "u8s8"
    assert zero_points(typed(0)) == "s8s8"
    assert zero_points(typed(3)) == "mixed"  # TensorRT would refuse it
    assert zero_points(lambda tensor: raw(tensor, b"\0")) == "s8s8"
    assert zero_points(lambda tensor: raw(tensor, b"\1")) == "mixed"


def raw(tensor: onnx.TensorProto, value: bytes) -> None:
    tensor.ClearField("int32_data")
    tensor.raw_data = value


def test_float32_at_the_borders(path: Path) -> None:
    """Of a head as of the encoder."""

    def change(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
        head = copy.deepcopy(manifest["graphs"]["encoder"])
        head["inputs"][0]["dtype"] = "float16"
        for entry in (head, *head["others"]):
            name = f"head.{entry['file']}"
            members[name], entry["file"] = members[entry["file"]], name
        manifest["graphs"]["head"] = head

    edited(path, change)
    with pytest.raises(BundleError, match=r"graphs\.head\.others: expected a graph with float32"):
        Bundle.open(path)


def test_a_reader_of_1_0_takes_the_first_file(path: Path) -> None:
    """It knows neither `others` nor their members, and is told by the version that it may."""
    edited(
        path,
        lambda manifest, members: (
            manifest.update(format_version="1.2.0"),
            manifest["graphs"]["encoder"].update(ways=[{"file": "more.onnx"}]),
            members.update({"more.onnx": b"of a later format"}),
        ),
    )
    assert Segmenter.load(path, threads=1).precision == "fp32"


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16", "int8"])
def test_segmenting_in_every_precision(path: Path, backend: str, precision: str) -> None:
    try:
        segmenter = Segmenter.load(path, backend=backend, precision=precision, threads=1)
    except BackendError as error:
        assert "precision" in error.argument
        assert (backend, precision) in (
            ("onnxruntime", "bf16"),
            ("openvino", "fp16"),
            ("openvino", "bf16"),  # on a processor without
        )
        return
    asked = "fp32" if precision == "auto" else precision
    assert (segmenter.backend, segmenter.precision) == (backend, asked)
    assert dict(segmenter.precisions) == {"encoder": asked}
    slow = (backend, precision) == ("onnxruntime", "fp16")
    assert [text for text in segmenter.warnings if "may saturate" not in text] == [
        text for text in segmenter.warnings if slow and "fp16 is slow" in text
    ]
    image, mask = tiny_scene()
    result = segmenter.segment(image, mask, image)
    assert (result.backend, result.precision) == (backend, asked)
    union = np.logical_or(result.mask, mask)
    assert np.logical_and(result.mask, mask).sum() / union.sum() >= 0.9
    report = verify_bundle(path, backend=backend, precision=precision, threads=1)
    assert report.ok, report


def test_auto_takes_the_backend_that_has_the_file(tmp_path: Path) -> None:
    """OpenVINO, the first for int8, takes no u8s8; where it is installed that is said."""
    segmenter = Segmenter.load(several(tmp_path / "x", U8), device="cpu", threads=1)
    assert (segmenter.backend, segmenter.precision) == ("onnxruntime", "int8")
    said = [text for text in segmenter.warnings if "'openvino' on 'cpu' was passed over" in text]
    assert len(said) == ("openvino" in INSTALLED)
    assert all("a file for int8: int8 s8s8, got int8 u8s8" in text for text in said)


def test_the_slow_flavour_is_told(tmp_path: Path) -> None:
    path = several(tmp_path / "x", FULL, S8)
    segmenter = Segmenter.load(path, backend="onnxruntime", precision="int8", threads=1)
    assert len(segmenter.warnings) == 1 and "s8s8 is slow" in segmenter.warnings[0]
    assert verify_bundle(path, backend="onnxruntime", precision="int8").warnings
    image, mask = tiny_scene()
    assert segmenter.segment(image, mask, image).warnings[:1] == segmenter.warnings
    assert Segmenter.load(path, backend="onnxruntime", threads=1).warnings == ()


def test_a_task_belongs_to_a_precision(path: Path, tmp_path: Path) -> None:
    image, mask = tiny_scene()
    exact = Segmenter.load(path, backend="onnxruntime", threads=1)
    exact.prepare({"square": [(image, mask)]}).save(tmp_path / "t.task")
    narrow = Segmenter.load(path, backend="onnxruntime", precision="int8", threads=1)
    with pytest.raises(TaskError, match=r"encoder\.precision: expected int8, got fp32"):
        narrow.load_task(tmp_path / "t.task")


def test_the_comparison_of_narrow_features() -> None:
    """As a whole, where single values say little; NaN never passes."""
    expected = np.linspace(-5, 5, 400, dtype=np.float32).reshape(4, 100)
    noise = np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32)
    size = np.sqrt((expected.astype(np.float64) ** 2).mean())
    for precision, passes, fails in (("bf16", 0.03, 0.07), ("int8", 0.3, 0.5)):
        tolerance = _TOLERANCES[precision]
        near, far = (expected + np.float32(s * size) * noise for s in (passes, fails))
        assert compare_features(expected, near, tolerance).ok
        assert not compare_features(expected, far, tolerance).ok
        far = expected.copy()
        far[2, 3] = np.nan
        assert not compare_features(expected, far, tolerance).ok
        assert not compare_features(expected, 0 * expected, tolerance).ok


def test_the_comparison_of_narrow_labels() -> None:
    """Any number of ties may fall the other way, and no pixel that is none; in fp32 few may."""
    expected = np.zeros((20, 20), np.uint8)
    expected[5:15, 5:15] = 1
    found = expected.copy()
    found[5:15, 5:10] = 0
    logits = np.zeros((2, 20, 20), np.float32)
    logits[0], logits[1] = 10.0, 10.0005
    for precision, right in (("fp32", False), ("fp16", True), ("bf16", True), ("int8", True)):
        assert compare_labels(expected, found, logits, _TOLERANCES[precision]).ok == right
        logits[1, 6, 6] = 14.5
        check = compare_labels(expected, found, logits, _TOLERANCES[precision])
        assert not check.ok and "1 of them by a margin above" in check.detail
        logits[1, 6, 6] = 10.0005


@pytest.mark.parametrize("compute", ["float32", "int8"])
def test_an_error_is_of_int8_alone(tmp_path: Path, compute: str) -> None:
    """Read, written as 1.1, and refused where it is no number or not of an int8 file."""
    entry: dict[str, Any] = {**(U8 if compute == "int8" else FULL), "error": 0.02}
    if compute == "float32":
        with pytest.raises(BundleError, match=r"encoder\.error: expected only fields"):
            several(tmp_path / "x", entry)
        return
    bundle = Bundle.open(several(tmp_path / "x", FULL, entry))
    assert [file.error for file in bundle.manifest.graphs["encoder"].files] == [None, 0.02]
    assert Bundle.open(several(tmp_path / "y", entry)).manifest.format_version == "1.1.0"
    for wrong in (-0.1, 2.0, "much", True):
        with pytest.raises(BundleError, match=r"encoder\.error: expected a number from 0 to 1"):
            several(tmp_path / "z", {**entry, "error": wrong})
