"""Bundles: what `Bundle.open` hands out, what it refuses field by field, and `verify_bundle`."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk.bundle import Bundle, write_bundle
from fsseg_sdk.errors import BackendError, BundleError
from fsseg_sdk.npy import write_npy
from fsseg_sdk.verify import compare_features, compare_labels, verify_bundle
from tests.archives import edited, tree
from tests.tiny import tiny_bundle, tiny_golden, tiny_manifest, tiny_onnx


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.fsseg")


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert f"bundle {path.name!r}, " in str(caught.value)
    return str(caught.value)


def test_what_it_hands_out(path: Path) -> None:
    bundle = Bundle.open(str(path))
    manifest = bundle.manifest
    assert (manifest.name, manifest.method.name) == ("tiny", "panet")
    assert manifest.input.size == (64, 64)
    assert manifest.features.grid == (8, 8)
    assert manifest.graphs["encoder"].inputs[0].shape == (-1, 3, 64, 64)
    assert bytes(bundle.member("encoder.onnx")) == tiny_onnx()
    assert bundle.member("encoder.onnx").readonly
    assert bundle.graphs["encoder"].nodes == 3
    assert set(manifest.members) == {"encoder.onnx", *tiny_golden()}
    assert bundle.golden is not None
    assert bundle.golden.image.shape == (24, 32, 3)
    assert bundle.golden.features.shape == (16, 22)
    with pytest.raises(BundleError, match=r"member 'head\.onnx': expected one of encoder\.onnx"):
        bundle.member("head.onnx")


def test_nothing_can_be_changed(path: Path) -> None:
    bundle = Bundle.open(path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.manifest.name = "other"  # type: ignore[misc]
    for mapping in (
        bundle.manifest.members,
        bundle.manifest.method.settings,
        bundle.manifest.source,
    ):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]
    assert bundle.golden is not None
    with pytest.raises(ValueError, match="read-only"):
        bundle.golden.labels[0, 0] = 1


def test_a_bundle_can_be_written_again(path: Path, tmp_path: Path) -> None:
    """`to_json` and the members are all there is: the copy has the same bytes."""
    bundle = Bundle.open(path)
    members = {name: bytes(bundle.member(name)) for name in bundle.manifest.members}
    digest = write_bundle(tmp_path / "copy.fsseg", bundle.manifest.to_json(), members)
    assert digest == bundle.digest
    assert (tmp_path / "copy.fsseg").read_bytes() == path.read_bytes()
    json.dumps(bundle.manifest.to_json())


def test_the_digest_names_the_content(tmp_path: Path) -> None:
    digests = {
        Bundle.open(tiny_bundle(tmp_path / "a", name=name, half=half)).digest
        for name in ("one", "two")
        for half in (False, True)
    }
    assert len(digests) == 4


def test_a_changed_file_changes_nothing_that_is_open(path: Path) -> None:
    bundle = Bundle.open(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert bytes(bundle.member("encoder.onnx")) == tiny_onnx()


def test_without_golden_vectors(tmp_path: Path) -> None:
    assert Bundle.open(tiny_bundle(tmp_path / "x", golden=False)).golden is None


REMOVE = object()


def put(manifest: dict[str, Any], place: str, value: object) -> None:
    *parents, last = place.split("/")
    inner: Any = manifest
    for key in parents:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if value is REMOVE:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value


FIELDS = [
    ("name", REMOVE), ("name", ""), ("name", "x" * 101), ("name", 3), ("name", "a\nb"),
    ("created_with", None), ("method", REMOVE), ("method", []), ("method/name", "../x"),
    ("method/name", "Panet"), ("method/settings", None), ("method/settings", []),
    ("method/more", 1), ("input", None), ("input/size", [64]), ("input/size", [64, 64, 3]),
    ("input/size", [64.0, 64]), ("input/size", [True, 64]), ("input/size", [64, 0]),
    ("input/size", [64, -64]), ("input/size", [64, 100_000]), ("input/size", "64"),
    ("input/size", [64, 72]), ("input/geometry", "crop"), ("input/geometry", None),
    ("input/mean", [True, 0, 0]),
    ("input/mean", [0, 0]), ("input/mean", [0, 0, "0"]), ("input/mean", [0, 0, 1e9]),
    ("input/std", [1, 1, 0]), ("input/std", [1, 1, -1]), ("input/std", [1, 1, None]),
    ("input/more", 1), ("features/channels", 0), ("features/channels", 16.0),
    ("features/channels", 17), ("features/grid", [8, 9]), ("features/grid", [0, 8]),
    ("features/grid", [2048, 2048]), ("features/stride", 0), ("features/stride", 32),
    ("features/stride", "8"), ("features/more", 1), ("graphs", {}), ("graphs", []),
    ("graphs/encoder/file", "../encoder.onnx"), ("graphs/encoder/file", "encoder.bin"),
    ("graphs/encoder/file", "other.onnx"), ("graphs/encoder/file", None),
    ("graphs/encoder/storage", "complex"), ("graphs/encoder/compute", REMOVE),
    ("graphs/encoder/more", 1), ("graphs/encoder/inputs", []), ("graphs/encoder/inputs", {}),
    ("graphs/encoder/inputs/0/name", "picture"), ("graphs/encoder/inputs/0/name", "a b"),
    ("graphs/encoder/inputs/0/dtype", "uint8"), ("graphs/encoder/inputs/0/dtype", "O"),
    ("graphs/encoder/inputs/0/shape", [-1, 3, 64]),
    ("graphs/encoder/inputs/0/shape", [0, 3, 64, 64]),
    ("graphs/encoder/inputs/0/shape", [-2, 3, 64, 64]), ("graphs/encoder/inputs/0/shape", 4),
    ("graphs/encoder/inputs/0/shape", [1, 3, 64, 64]), ("graphs/encoder/inputs/0/more", 1),
    ("graphs/encoder/outputs/0/shape", [-1, 17, 8, 8]), ("graphs/encoder/outputs/0/name", "image"),
    ("graphs/Encoder", {}), ("golden", None), ("golden/every", 0), ("golden/every", 4),
    ("golden/every", 1.5), ("golden/image", "golden/mask.npy"), ("golden/image", "image.png"),
    ("golden/labels", REMOVE), ("golden/more", 1), ("provenance", REMOVE), ("provenance", "x"),
    ("more", 1), ("format_version", "2.0.0"),
]  # fmt: skip


def shown(value: object) -> str:
    """The same in every process, for the name of a test: an object's own text has its address."""
    return "removed" if value is REMOVE else str(value)[:40]


@pytest.mark.parametrize(("place", "value"), FIELDS, ids=shown)
def test_every_field_is_checked(path: Path, place: str, value: object) -> None:
    """Hashes are right, the content is not; the message names the field."""
    edited(path, lambda manifest, members: put(manifest, place, value))
    message = refused(path)
    key = place.split("/")[-1]
    words = (f".{key}", f"'{key}'", "member '", "graphs.encoder", "features.stride")
    assert any(word in message for word in words), message


def test_unknown_fields_of_a_newer_minor_version(path: Path) -> None:
    """They are what a reader can do without; what is known is still checked, members as well."""

    def newer(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
        manifest.update({"format_version": "1.2.0", "more": {"a": 1}})
        manifest["input"]["more"] = 1
        members["more.bin"] = b"1"

    assert Bundle.open(edited(path, newer)).manifest.format_version == "1.2.0"
    edited(path, lambda manifest, members: put(manifest, "input/std", [1, 1, 0]))
    assert "input.std" in refused(path)


def test_members_without_a_purpose(path: Path) -> None:
    edited(path, lambda manifest, members: members.update({"more.bin": b""}))
    assert "member 'more.bin': expected only members that graphs or golden name" in refused(path)


@pytest.mark.parametrize("name", ["encoder.onnx", *tiny_golden()])
def test_members_that_are_gone(path: Path, name: str) -> None:
    edited(path, lambda manifest, members: members.pop(name))
    assert f"member {name!r}" in refused(path)


def saved(array: np.ndarray[Any, Any], **settings: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


IMAGE = np.zeros((24, 32, 3), np.uint8)
MASK = np.eye(24, 32, dtype=np.uint8)
FEATURES = np.zeros((16, 22), np.float32)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("image", saved(IMAGE.astype(np.float32)), "expected type uint8, got float32"),
        ("image", saved(IMAGE[..., 0]), "expected shape [any, any, 3], got [24, 32]"),
        ("image", saved(IMAGE[..., :2]), "expected shape"),
        ("image", saved(IMAGE[:0]), "expected shape [0, 32]"),
        ("image", saved(np.asfortranarray(IMAGE)), "C order"),
        ("image", saved(np.array([None, {}]), allow_pickle=True), "expected type uint8, got '|O'"),
        ("image", saved(IMAGE.view([("a", "u1")])), "C order"),
        ("image", saved(IMAGE)[:-1], "2304 values after the header"),
        ("image", saved(IMAGE) + b"\0", "2304 values after the header"),
        ("image", b"", "a plain .npy array"),
        ("image", b"\x93NUMPY\x01\x00\xff\xff", "a plain .npy array"),
        ("image", b"\x89PNG\r\n", "a plain .npy array"),
        ("image", saved(IMAGE).replace(b"\x01\x00", b"\x02\x00", 1), "a plain .npy array"),
        ("image", saved(IMAGE).replace(b"(24, 32, 3)", b"(24,  32,3)"), "header that numpy writes"),
        ("image", saved(IMAGE).replace(b"(24, ", b"(99999999999, "), "a plain .npy array"),
        ("mask", saved(MASK * 255), "0 and 1"),
        ("mask", saved(MASK * 0), "with some pixel 1"),
        ("mask", saved(MASK[:23]), "expected shape [24, 32], got [23, 32]"),
        ("mask", saved(MASK > 0), "expected type uint8, got bool"),
        ("features", saved(FEATURES.astype(">f4")), "'>f4'"),
        ("features", saved(FEATURES.astype(np.float64)), "expected type float32, got float64"),
        ("features", saved(FEATURES[:, :21]), "expected shape [16, 22]"),
        ("features", saved(FEATURES + np.float32("nan")), "finite values"),
        ("features", saved(FEATURES + np.float32("inf")), "finite values"),
        ("labels", saved(MASK * 2), "labels 0 and 1"),
        ("labels", saved(MASK[None]), "expected shape"),
    ],
)
def test_golden_arrays_are_checked(path: Path, name: str, data: bytes, words: str) -> None:
    edited(path, lambda manifest, members: members.update({f"golden/{name}.npy": data}))
    message = refused(path)
    assert words in message
    named = "mask" if "[0, 32]" in words else name  # whose size must be the image's
    assert f"member 'golden/{named}.npy'" in message


def test_golden_vectors_are_small(path: Path) -> None:
    size = (300, 400)
    arrays = {
        "image": np.zeros((*size, 3), np.uint8),
        "mask": np.ones(size, np.uint8),
        "labels": np.ones(size, np.uint8),
    }
    new = {f"golden/{name}.npy": write_npy(array) for name, array in arrays.items()}
    edited(path, lambda manifest, members: members.update(new))
    assert "golden vectors: expected at most 524288 bytes" in refused(path)


@pytest.mark.parametrize(
    ("place", "value"), [("input/std", [0, 0, 0]), ("graphs/encoder/outputs/0/name", "x")]
)
def test_a_writer_refuses_what_a_reader_would(tmp_path: Path, place: str, value: object) -> None:
    manifest = tiny_manifest()
    put(manifest, place, value)
    with pytest.raises(BundleError, match=r"new file 'x\.fsseg'"):
        write_bundle(tmp_path / "x.fsseg", manifest, {"encoder.onnx": tiny_onnx(), **tiny_golden()})
    assert tree(tmp_path) == {}


# --- verify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["squash", "fit"])
@pytest.mark.parametrize("half", [False, True])
def test_verify(tmp_path: Path, geometry: str, half: bool) -> None:
    report = verify_bundle(tiny_bundle(tmp_path / "x", geometry=geometry, half=half), threads=1)
    assert report.ok, report
    names = [check.name for check in report.checks]
    assert names == ["hashes", "golden features", "golden labels"]
    assert (report.backend, report.device, report.precision) == ("onnxruntime", "cpu", "fp32")
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_verify_without_evidence_is_not_ok(tmp_path: Path) -> None:
    report = verify_bundle(tiny_bundle(tmp_path / "x", golden=False))
    assert not report.ok
    assert [check.ok for check in report.checks] == [True, False]


@pytest.mark.parametrize("name", ["features", "labels"])
def test_verify_sees_other_results(path: Path, name: str) -> None:
    """Golden vectors that the graph does not compute, behind right hashes."""
    golden = Bundle.open(path).golden
    assert golden is not None
    other = getattr(golden, name).copy()
    if name == "features":
        other[3, 7] += 0.01
    else:
        other[:2, :2] = 1
    edited(path, lambda _, members: members.update({f"golden/{name}.npy": write_npy(other)}))
    report = verify_bundle(path)
    assert not report.ok
    wrong = [check for check in report.checks if not check.ok]
    assert [check.name for check in wrong] == [f"golden {name}"]
    if name == "features":
        assert "1 of 352 values" in wrong[0].detail
        assert "channel 3, sample 7" in wrong[0].detail


def test_verify_raises_for_damage_and_missing_backends(path: Path) -> None:
    with pytest.raises(BackendError):
        verify_bundle(path, backend="tensorrt")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError):
        verify_bundle(path)


def test_the_comparison_of_features() -> None:
    expected = np.linspace(-5, 5, 40, dtype=np.float32).reshape(4, 10)
    assert compare_features(expected, expected).ok
    assert compare_features(expected, expected * np.float32(1.0005)).ok
    assert not compare_features(expected, expected * np.float32(1.01)).ok
    for bad in (np.nan, np.inf):
        broken = expected.copy()
        broken[2, 3] = bad
        check = compare_features(expected, broken)
        assert not check.ok
        assert "channel 2, sample 3" in check.detail


def test_the_comparison_of_labels() -> None:
    expected = np.zeros((60, 60), np.uint8)
    expected[:50] = 1
    found = expected.copy()
    logits = np.stack([1.0 - expected, expected]).astype(np.float32) * 20
    assert compare_labels(expected, found, logits).ok
    found[50, :3] = 1
    assert not compare_labels(expected, found, logits).ok  # three pixels by a wide margin
    logits[:, 50, :3] = 10.0
    assert compare_labels(expected, found, logits).ok  # by nothing at all
    logits[1, 50, 0] = np.nan
    assert not compare_labels(expected, found, logits).ok
    logits[:, 50] = 10.0
    found[50, :4] = 1
    assert not compare_labels(expected, found, logits).ok  # IoU below 0.999
