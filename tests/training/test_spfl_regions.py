"""Regions of pictures without labels, and the folder that keeps them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data import data_root
from tests.training.squares import draw_parts
from training.datasets import open_dataset
from training.scenes import draw_pair
from training.spfl import region_maps
from training.spfl.compare import scores
from training.spfl.region_maps import RegionMaps
from training.spfl.regions import RegionSettings, segment


def flags() -> tuple[np.ndarray, np.ndarray]:
    """A speckled picture of a square on two stripes, and where they are."""
    truth = np.zeros((60, 80), np.int64)
    truth[:, 40:] = 1
    truth[20:44, 28:56] = 2
    colours = np.array([(60, 90, 40), (90, 120, 70), (200, 60, 60)])
    speckle = np.random.default_rng(0).integers(-6, 7, (60, 80, 3))
    return (colours[truth] + speckle).astype(np.uint8), truth


def test_regions_are_what_differs_in_colour() -> None:
    pixels, truth = flags()
    found = segment(pixels, RegionSettings())
    assert found.max() == 2
    for number in range(3):
        own = truth[found == number]
        assert np.bincount(own).max() / own.size > 0.97


def test_weaker_contours_go_first() -> None:
    """A contour map is ultrametric: what a higher threshold finds are unions."""
    pixels, _ = draw_pair(np.random.default_rng(3), 96)[0]
    cuts = [segment(pixels, RegionSettings(threshold=t)) for t in (0.1, 0.5, 2.0, 8.0)]
    counts = [int(cut.max()) + 1 for cut in cuts]
    assert counts[0] > counts[1] > counts[-1]
    for fine, coarse in pairwise(cuts):
        pairs = np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1)
        assert pairs.shape[1] == fine.max() + 1


def test_regions_are_connected_numbered_and_not_tiny() -> None:
    pixels, _ = draw_pair(np.random.default_rng(5), 96)[1]
    found = segment(pixels, RegionSettings(threshold=0.05, least=0.01))
    assert found.max() > 3
    for number in range(found.max() + 1):
        mask = (found == number).astype(np.uint8)
        assert mask.sum() >= int(0.01 * mask.size)
        assert cv2.connectedComponents(mask, connectivity=4)[0] == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (2, 3), (5, 5), (3, 40), (33, 64)])
def test_any_picture_has_regions(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for pixels in (np.zeros_like(noise), np.full_like(noise, 255), noise):
        found = segment(pixels, RegionSettings())
        assert found.shape == size
        assert set(np.unique(found)) == set(range(found.max() + 1))


def test_a_long_picture_is_segmented_at_the_given_length() -> None:
    pixels, truth = flags()
    large = cv2.resize(pixels, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    found = segment(large, RegionSettings(side=80))
    assert found.shape == (240, 320)
    np.testing.assert_array_equal(found, found[::4, ::4].repeat(4, 0).repeat(4, 1))
    assert found.max() == 2
    truth = cv2.resize(truth.astype(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST)
    assert scores(found.astype(np.int64), truth)[1] > 0.97


@pytest.mark.parametrize(
    ("change", "name"),
    [({"threshold": 0}, "threshold"), ({"least": 1.0}, "least"), ({"scales": ()}, "scales"),
     ({"threshold": float("nan")}, "threshold"), ({"side": 3}, "side")],
)  # fmt: skip
def test_impossible_settings_are_refused(change: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        RegionSettings(**change)  # type: ignore[arg-type]


def test_regions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = draw_parts(tmp_path / "set", 3).samples
    maps = RegionMaps.open(tmp_path / "regions", RegionSettings())
    assert maps.make(samples) == 3
    assert maps.make(samples) == 0
    pixels = samples[0].read()[0]
    kept = maps.of(samples[0].key, pixels)
    np.testing.assert_array_equal(kept, segment(pixels, maps.settings))
    calls = []

    def counted(pixels: np.ndarray, settings: RegionSettings) -> np.ndarray:
        calls.append(pixels)
        return segment(pixels, settings)

    monkeypatch.setattr(region_maps, "segment", counted)
    maps.of(samples[0].key, pixels)
    assert not calls
    maps.of(samples[0].key, 255 - pixels)  # other pixels under that name
    assert len(calls) == 1
    maps.file(samples[1].key).write_bytes(maps.file(samples[1].key).read_bytes()[:40])
    np.testing.assert_array_equal(
        maps.of(samples[1].key, samples[1].read()[0]),
        segment(samples[1].read()[0], maps.settings),
    )
    assert len(calls) == 2
    assert not [*(tmp_path / "regions").rglob("*.partial")]


def test_a_folder_of_other_regions_is_refused(tmp_path: Path) -> None:
    RegionMaps.open(tmp_path, RegionSettings())
    RegionMaps.open(tmp_path, RegionSettings())
    with pytest.raises(ValueError, match=r"settings.threshold: 2.0, now 3.0.*--regions"):
        RegionMaps.open(tmp_path, RegionSettings(threshold=3.0))
    (tmp_path / "regions.json").write_text("{")
    with pytest.raises(ValueError, match="does not parse"):
        RegionMaps.open(tmp_path, RegionSettings())


def test_scores_of_known_regions() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 3
    halves = (labels > 0).astype(np.int64)
    assert scores(halves, labels)[:3] == (1.0, 1.0, 1.0)
    iou, accuracy, recall, near = scores(np.zeros((8, 8), np.int64), labels)
    assert (iou, accuracy, recall, near) == (0.0, 0.5, 0.0, 0.0)
    labels[:, 6:] = 255  # unknown pixels count nowhere
    assert scores(halves, labels)[:2] == (1.0, 1.0)


def test_true_objects_are_unions_of_regions() -> None:
    root = data_root()
    if root is None or not (root / "voc2012").is_dir():
        pytest.skip("no VOC pictures")
    samples = [s for s in open_dataset(root / "voc2012").samples if s.split == "train"][::900]
    found = []
    for sample in samples:
        pixels, labels = sample.read()
        regions = segment(pixels, RegionSettings())
        assert 2 <= regions.max() + 1 <= 150
        found.append(scores(regions.astype(np.int64), labels)[1])
    assert np.mean(found) > 0.85
