"""Objects and regions, their vectors, and the labels of pixels."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.folders import write_voc
from tests.training.squares import draw_voc
from training.datasets import Sample, fold_of, open_dataset
from training.datasets.folds import BaseOnly
from training.spfl.clusters import Hierarchy, Tree
from training.spfl.labels import pseudo_labels
from training.spfl.vectors import (
    Part,
    in_lots,
    parts_of,
    pooled,
    read_vectors,
    write_vectors,
)


def test_pooling_is_that_of_upsampled_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, 4, generator=generator)
    masks = [torch.rand(37, 45, generator=generator).numpy() > 0.6 for _ in range(3)]
    masks[0][:] = False
    masks[0][3:5, 40:42] = True  # smaller than a cell
    large = F.interpolate(features[None], (37, 45), mode="bilinear", align_corners=False)[0]
    expected = torch.stack([large[:, torch.from_numpy(mask)].mean(1) for mask in masks])
    torch.testing.assert_close(pooled(features, masks), expected, rtol=1e-4, atol=1e-4)


def sample_of(folder: Path, *squares: tuple[int, int, int]) -> Sample:
    return open_dataset(write_voc(folder, {"a": list(squares)}, {"b": [(1, 0, 4)]})).samples[0]


def test_objects_are_instances_and_regions_are_of_the_background(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, (2, 1, 8), (2, 9, 8), (5, 20, 6))  # two of class 2 side by side
    labels = sample.read()[1]
    regions = np.zeros(labels.shape, np.uint16)
    regions[:, 16:] = 7
    parts = parts_of(sample, labels, regions, 0.0)
    assert [part.identity for part in parts] == [2, 2, 5, 0, 0]
    assert [int(part.mask.sum()) for part in parts[:3]] == [64, 64, 36]
    assert not (parts[0].mask & parts[1].mask).any()
    for part, number in zip(parts[3:], (0, 7), strict=True):
        np.testing.assert_array_equal(part.mask, (labels == 0) & (regions == number))
    assert (labels == 255).any()  # and none of it in any part
    assert not any(part.mask[labels == 255].any() for part in parts)


def test_tiny_parts_are_left_out(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, (2, 1, 8), (5, 20, 3))
    labels = sample.read()[1]
    regions = np.zeros(labels.shape, np.uint16)
    regions[0, :5] = 1
    least = 10 / labels.size
    assert [part.identity for part in parts_of(sample, labels, regions, least)] == [2, 0]
    assert len(parts_of(sample, labels, regions, 0.0)) == 4


def test_without_instances_objects_are_connected_pixels(tmp_path: Path) -> None:
    sample = draw_voc(tmp_path / "set", 2).samples[0]  # classes 1, 2, 3; no instances
    labels = sample.read()[1].copy()
    labels[:] = 0
    labels[5:9, 5:9] = labels[20:26, 40:44] = 2
    parts = parts_of(sample, labels, np.zeros(labels.shape, np.uint16), 0.0)
    assert [(part.identity, int(part.mask.sum())) for part in parts[:-1]] == [(2, 16), (2, 24)]
    assert parts[-1].identity == 0


class Overlapping(Sample):
    """As COCO's: an instance keeps what another object hides of it."""

    def instances(self, identity: int) -> list[np.ndarray]:
        return [np.ones((24, 32), np.bool_)]


def test_hidden_parts_of_objects_are_not_theirs(tmp_path: Path) -> None:
    inner = sample_of(tmp_path, (2, 1, 8), (5, 20, 6))
    own = {f.name: getattr(inner, f.name) for f in fields(Sample)}
    labels = inner.read()[1]
    parts = parts_of(Overlapping(**own), labels, np.zeros(labels.shape, np.uint16), 0.0)
    assert [(part.identity, int(part.mask.sum())) for part in parts[:2]] == [(2, 64), (5, 36)]


@pytest.mark.parametrize("label", [0, 255])
def test_novel_objects_are_no_foreground(tmp_path: Path, label: int) -> None:
    inner = sample_of(tmp_path, (2, 1, 8), (6, 16, 8))  # 2 is novel in fold 0, 6 is not
    sample = BaseOnly.of(inner, fold_of("pascal-5i", 0), label)
    labels = sample.read()[1]
    parts = parts_of(sample, labels, np.zeros(labels.shape, np.uint16), 0.0)
    assert [part.identity for part in parts] == [6, 0]
    novel = inner.read()[1] == 2
    assert parts[1].mask[novel].all() == (label == 0)
    assert not parts[0].mask[novel].any()


def hierarchy(channels: int, generator: torch.Generator) -> Hierarchy:
    def one(*counts: int) -> Tree:
        centres = tuple(torch.randn(k, channels, generator=generator) for k in counts)
        return Tree(centres, tuple(torch.zeros(k) for k in counts[:-1]), ())

    return Hierarchy(one(7, 3), one(5, 2))


def test_labels_are_the_nearest_prototype_of_the_pixels_kind() -> None:
    generator = torch.Generator().manual_seed(4)
    known, features = hierarchy(6, generator), torch.randn(6, 5, 4, generator=generator)
    labels = torch.randint(0, 3, (31, 26), generator=generator).numpy().astype(np.uint8)
    labels[:4] = 255
    found = pseudo_labels(features, labels, known)
    assert found.shape == (2, 31, 26)
    assert found.dtype == np.uint8
    for level, (first, second) in enumerate(known.levels):
        best = []
        for tree in (known.foreground, known.background):
            units = F.normalize(tree.centres[level], dim=1)
            cosines = torch.einsum("kc,chw->khw", units, F.normalize(features, dim=0))
            large = F.interpolate(cosines[None], (31, 26), mode="bilinear", align_corners=False)
            best.append(large[0].argmax(0).numpy())
        expected = np.where(labels > 0, best[0], first + best[1])
        expected[labels == 255] = 255
        np.testing.assert_array_equal(found[level], expected)
        assert first <= found[level][labels == 0].min() <= found[level][labels == 0].max()
        assert found[level][labels == 0].max() < first + second


def test_labels_do_not_depend_on_the_length_of_prototypes() -> None:
    generator = torch.Generator().manual_seed(5)
    known, features = hierarchy(6, generator), torch.randn(6, 4, 4, generator=generator)
    longer = [
        Tree(tuple(c * (1 + torch.arange(len(c)))[:, None] for c in t.centres), t.parents, ())
        for t in (known.foreground, known.background)
    ]
    labels = np.tile(np.array([0, 1], np.uint8), (16, 8))
    np.testing.assert_array_equal(
        pseudo_labels(features, labels, known), pseudo_labels(features, labels, Hierarchy(*longer))
    )


def test_vectors_are_read_as_they_were_written(tmp_path: Path) -> None:
    mask = np.ones((2, 2), np.bool_)
    found = [(3, [Part(mask, 2), Part(mask, 0)], torch.arange(8.0).reshape(2, 4))]
    write_vectors(tmp_path / "0", found, 4)
    write_vectors(tmp_path / "1", [], 4)  # pictures without parts
    corpus = read_vectors([tmp_path / "0", tmp_path / "1"])
    assert corpus.vectors.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (corpus.picture.tolist(), corpus.part.tolist()) == ([3, 3], [0, 1])
    assert corpus.of(True).vectors.tolist() == [[0, 1, 2, 3]]
    assert corpus.of(False).part.tolist() == [1]
    with pytest.raises(ValueError, match="Delete that folder"):
        read_vectors([tmp_path / "0", tmp_path / "2"])


def test_lots_number_all_pictures(tmp_path: Path) -> None:
    samples = draw_voc(tmp_path / "set", 7).samples
    lots = in_lots(samples, 3)
    assert [[number for number, _ in lot] for lot in lots] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [sample for lot in lots for _, sample in lot] == list(samples)
