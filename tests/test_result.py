"""Results: absent classes, scores on demand, and files that can be read again."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import Result
from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image, read_mask
from fsseg_sdk.preprocess import Geometry, plan
from tests.pictures import scene, stored, turned

SCENE = scene(60, 80)


def result(present: dict[str, float] | None = None, seed: int = 0, **changes: Any) -> Result:
    """Two classes on a 6 x 8 grid; labels are what the logits say."""
    present = {"bolt": 0.9, "nut": 0.7} if present is None else present
    logits = np.random.default_rng(seed).normal(size=(len(present) + 1, 6, 8)) * 3
    settings: dict[str, Any] = {
        "classes": tuple(present),
        "raw_labels": np.zeros((60, 80), np.uint8),
        "logits": logits.astype(np.float32),
        "geometry": plan("squash", (60, 80), (48, 64)),
        "present": present,
        "picture": read_image(SCENE.pixels),
        "timings": {"encoder": 12.34567, "total": 15.0},
        "backend": "onnxruntime",
        **changes,
    }
    made = Result(**settings)
    if "raw_labels" not in changes:
        made = dataclasses.replace(made, raw_labels=made.scores.argmax(axis=0).astype(np.uint8))
    return made


# --- what is there ------------------------------------------------------------------------------


def test_all_found() -> None:
    made = result()
    assert made.found == ("bolt", "nut")
    assert made.labels is made.raw_labels
    np.testing.assert_array_equal(made.mask, made.raw_labels > 0)
    assert set(np.unique(made.labels)) == {0, 1, 2}
    assert made.size == (60, 80)


def test_absent_classes_become_background() -> None:
    made = result({"bolt": 0.2, "nut": 0.7})
    assert made.found == ("nut",)
    np.testing.assert_array_equal(made.labels == 2, made.raw_labels == 2)
    assert not (made.labels == 1).any()
    assert (made.raw_labels == 1).any()
    np.testing.assert_array_equal(made.mask, made.raw_labels == 2)


def test_nothing_found() -> None:
    made = result({"bolt": 0.2, "nut": float("nan")})
    assert made.found == ()
    assert not made.mask.any()
    assert made.raw_labels.any()


def test_the_threshold_itself_counts_as_found() -> None:
    assert result({"bolt": 0.5, "nut": 0.4999}).found == ("bolt",)
    assert result({"bolt": 0.5, "nut": 0.49}, threshold=0.6).found == ()


def test_frozen() -> None:
    made = result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.raw_labels = made.labels  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.present["bolt"] = 0.0  # type: ignore[index]
    with pytest.raises(TypeError):
        made.timings["total"] = 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    "changes",
    [
        {"raw_labels": np.zeros((61, 80), np.uint8)},
        {"raw_labels": np.zeros((1, 60, 80), np.uint8)},
        {"logits": np.zeros((2, 6, 8), np.float32)},
        {"logits": np.zeros((3, 6), np.float32)},
        {"classes": ("nut", "bolt")},
        {"classes": ("bolt",)},
    ],
)
def test_parts_that_do_not_fit_together(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="result"):
        result(**changes)


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry", [plan("squash", (60, 80), (48, 64)), plan("fit", (60, 80), (64, 64))]
)
def test_scores_equal_torch_interpolate(geometry: Geometry) -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    made = result(geometry=geometry, logits=logits)
    rows, columns = geometry.extent((8, 8))
    assert rows == int(rows)
    inside = torch.from_numpy(logits[None, :, : int(rows), : int(columns)])
    up = torch.nn.functional.interpolate(inside, size=(60, 80), mode="bilinear")
    expected = torch.softmax(up, dim=1)[0].numpy()
    assert made.scores.shape == (3, 60, 80)
    assert made.scores.dtype == np.float32
    np.testing.assert_allclose(made.scores, expected, atol=1e-6)
    assert made.scores is made.scores


def test_activations() -> None:
    softmax, sigmoid, plain = (
        result(activation=name).scores for name in ("softmax", "sigmoid", "none")
    )
    np.testing.assert_allclose(softmax.sum(axis=0), 1, atol=1e-6)
    own = 1 / (1 + np.exp(-plain.astype(np.float64)))
    np.testing.assert_allclose(sigmoid[1:], own[1:], atol=1e-6)
    np.testing.assert_allclose(sigmoid[0], 1 - own[1:].max(axis=0), atol=1e-6)
    np.testing.assert_array_equal(softmax.argmax(axis=0), plain.argmax(axis=0))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_huge_logits_stay_finite(activation: str) -> None:
    logits = np.full((3, 6, 8), -1e30, np.float32)
    logits[1] = 1e30
    scores = result(logits=logits, activation=activation).scores
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[1], 1)


PLANES = np.array([0, 1, 1, 2, 2, 2], np.uint8)


def of_planes(activation: str = "sigmoid", planes: Any = PLANES, **changes: Any) -> Result:
    logits = np.random.default_rng(3).normal(size=(len(PLANES), 6, 8)).astype(np.float32) - 0.5
    logits[0] = 0
    return result(logits=logits, activation=activation, planes=planes, **changes)


def test_a_class_of_several_planes_has_the_largest() -> None:
    made = of_planes()
    every = [
        result(logits=made.logits[[0, a, b]], activation="none").scores[1:].astype(np.float64)
        for a, b in ((1, 3), (2, 4), (1, 5))
    ]
    shown = np.stack(
        [np.maximum(every[0][0], every[1][0]), np.maximum.reduce([e[1] for e in every])]
    )
    plain = of_planes("none").scores
    np.testing.assert_allclose(plain, np.concatenate([0 * shown[:1], shown]), atol=1e-6)
    probability = 1 / (1 + np.exp(-shown))
    np.testing.assert_allclose(made.scores[1:], probability, atol=1e-6)
    np.testing.assert_allclose(made.scores[0], 1 - probability.max(axis=0), atol=1e-6)
    # the largest score is the threshold of each plane at 0.5, and the OR
    found = made.scores.argmax(axis=0)
    assert np.array_equal(found > 0, (shown > 0).any(axis=0)) and 0.2 < (found > 0).mean() < 1.0


def test_planes_that_do_not_fit() -> None:
    for planes in (PLANES[:-1], PLANES[PLANES < 2], np.minimum(PLANES, 1), PLANES + np.uint8(1)):
        with pytest.raises(InputError, match="result"):
            of_planes(planes=planes, raw_labels=np.zeros((60, 80), np.uint8))


def test_scores_agree_with_the_label_kernel() -> None:
    from fsseg_sdk import ops

    geometry = plan("fit", (60, 80), (64, 64))
    made = result(geometry=geometry)
    extent = geometry.extent((6, 8))
    labels = ops.upsample_argmax(made.logits[None], (60, 80), extent, threads=1)[0]
    ranked = np.sort(made.scores, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], made.scores.argmax(axis=0)[clear])


# --- reports ------------------------------------------------------------------------------------


def test_json_describes_every_class() -> None:
    made = result({"bolt": 0.91234567, "nut": 0.1}, warnings=("two shots overlap",))
    report = json.loads(made.to_json())
    assert report == made.to_dict()
    assert report["size"] == {"width": 80, "height": 60}
    assert report["timings_ms"] == {"encoder": 12.346, "total": 15.0}
    assert report["warnings"] == ["two shots overlap"]
    assert report["backend"] == "onnxruntime"
    bolt, nut = report["classes"]["bolt"], report["classes"]["nut"]
    region = made.labels == 1
    assert (bolt["label"], bolt["score"], bolt["found"]) == (1, 0.9123, True)
    assert bolt["pixels"] == region.sum()
    assert bolt["share"] == pytest.approx(region.mean(), abs=1e-6)
    left, top, right, bottom = bolt["box"]
    assert region[top:bottom, left:right].sum() == region.sum()
    assert region[top, left:right].any()
    assert region[bottom - 1, left:right].any()
    assert region[top:bottom, left].any()
    assert region[top:bottom, right - 1].any()
    assert nut == {
        "label": 2,
        "score": 0.1,
        "found": False,
        "pixels": 0,
        "share": 0.0,
        "box": None,
    }


def test_scores_that_are_no_numbers_are_null() -> None:
    report = json.loads(result({"bolt": float("nan"), "nut": 0.5}).to_json())
    assert report["classes"]["bolt"]["score"] is None


# --- files --------------------------------------------------------------------------------------


def test_save(tmp_path: Path) -> None:
    made = result({"bolt": 0.9, "schräge Mutter": 0.8})
    files = made.save(tmp_path / "new" / "folder", "query 1")
    assert {kind: path.name for kind, path in files.items()} == {
        "mask": "query 1_mask.png",
        "overlay": "query 1_overlay.jpg",
        "json": "query 1.json",
    }
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        path.name for path in files.values()
    )
    with Image.open(files["mask"]) as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), made.labels)
    overlay = read_image(files["overlay"]).pixels
    assert np.abs(overlay.astype(int) - made.overlay()).mean() < 6
    report = json.loads(files["json"].read_text(encoding="utf-8"))
    assert report == made.to_dict()
    assert "schräge Mutter" in files["json"].read_text(encoding="utf-8")


def test_save_without_a_picture_and_over_older_files(tmp_path: Path) -> None:
    made = result(picture=None)
    assert set(made.save(tmp_path, "a")) == {"mask", "json"}
    files = made.save(str(tmp_path), "a", picture=SCENE.pixels)
    assert set(files) == {"mask", "overlay", "json"}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_saved_mask_serves_as_a_mask_of_its_picture(tmp_path: Path, orientation: int) -> None:
    """Also of a picture that EXIF turns without changing its size: the mask says it is upright."""
    shown = scene(60, 60)
    disc = shown.masks["red disc"]
    made = result(
        {"disc": 0.9},
        raw_labels=disc.astype(np.uint8),
        geometry=plan("squash", (60, 60), (48, 48)),
        picture=None,
    )
    path = made.save(tmp_path, "a")["mask"]
    picture = read_image(turned(shown.pixels, orientation))
    np.testing.assert_array_equal(read_mask(path, picture)[0], disc)
    if orientation in (3, 6):  # and the test can tell: without the tag it would be turned
        plain = np.asarray(Image.open(path))
        assert (read_mask(plain, picture)[0] != disc).any()
        np.testing.assert_array_equal(read_mask(stored(disc, orientation), picture)[0], disc)


@pytest.mark.parametrize("stem", ["", ".", "..", "a/b", "a\\b", "../a", "a\0", "C:a", "x" * 201])
def test_stems_with_folders_are_refused(stem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stem"):
        result().save(tmp_path / "inner", stem)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        result().save(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder"):
        result().save(tmp_path / "file", "a")


def test_a_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="folder"):
        result().save(tmp_path, "a")
