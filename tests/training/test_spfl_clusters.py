"""K-means, and the tree of centres."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.spfl.clusters import Hierarchy, Tree, _lloyd, kmeans, one_thread


def spread(vectors: torch.Tensor, members: torch.Tensor) -> float:
    """Sum of squared distances to the means of the members."""
    groups = [vectors[members == m].double() for m in members.unique()]
    return sum(float(((group - group.mean(0)) ** 2).sum()) for group in groups)


def test_kmeans_is_as_good_as_any_partition() -> None:
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    centres, members = kmeans(vectors, 3, restarts=8)
    partitions = (torch.tensor(p) for p in itertools.product(range(3), repeat=6))
    best = min(spread(vectors, p) for p in partitions if len(p.unique()) == 3)
    assert spread(vectors, members) == pytest.approx(best, rel=1e-5)
    for number in range(3):
        torch.testing.assert_close(centres[number], vectors[members == number].mean(0))


def test_groups_far_apart_are_found() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.arange(400) % 20
    ways = 30 * torch.randn(20, 16, generator=generator)
    vectors = ways[truth] + torch.randn(400, 16, generator=generator)
    _, members = kmeans(vectors, 20, restarts=1)
    pairs = torch.unique(torch.stack([truth, members]), dim=1)
    assert pairs.shape[1] == 20


def test_the_same_bits_for_every_number_of_threads() -> None:
    vectors = torch.randn(3000, 256, generator=torch.Generator().manual_seed(2))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(kmeans(vectors, 20, restarts=1)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_clusters_are_made_on_one_thread() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="no"), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("no")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_seeds_differ() -> None:
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(3))
    one, two = (kmeans(vectors, 20, seed=seed, restarts=1)[1] for seed in (0, 1))
    assert not torch.equal(one, two)


def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="4 different vectors or more for 4 clusters, got 3"):
        kmeans(torch.randn(3, 2), 4)
    with pytest.raises(ValueError, match="got 2"):
        kmeans(torch.eye(2).repeat(5, 1), 4)
    with pytest.raises(ValueError, match="finite"):
        kmeans(torch.tensor([[1.0], [float("nan")], [2.0]]), 2)


def test_no_cluster_stays_empty() -> None:
    vectors = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    far = torch.tensor([[0.0], [500.0], [600.0]])
    apart, centres, members = _lloyd(vectors, far)
    assert sorted(torch.bincount(members, minlength=3).tolist()) == [1, 1, 2]
    assert apart == pytest.approx(0.5)
    assert centres.max() == 10


def tree(seed: int = 0, counts: tuple[int, ...] = (12, 6, 3)) -> Tree:
    vectors = np.random.default_rng(seed).standard_normal((90, 5)).astype(np.float32)
    return Tree.grow(vectors, counts, seed=0, restarts=2)


def test_centres_are_means_of_the_centres_below() -> None:
    grown = tree()
    assert [len(level) for level in grown.centres] == [12, 6, 3]
    assert [int(sizes.sum()) for sizes in grown.sizes] == [90, 90, 90]
    for level, parents in enumerate(grown.parents):
        fine, coarse = grown.centres[level], grown.centres[level + 1]
        for number in range(len(coarse)):
            own = parents == number
            torch.testing.assert_close(coarse[number], fine[own].mean(0))
            assert grown.sizes[level][own].sum() == grown.sizes[level + 1][number]


def test_a_hierarchy_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = Hierarchy(tree(0), tree(1, (10, 4, 2)))
    made.save(tmp_path / "h.safetensors", {"seed": 0})
    read = Hierarchy.load(tmp_path / "h.safetensors")
    assert read.levels == ((12, 10), (6, 4), (3, 2))
    for one, other in ((made.foreground, read.foreground), (made.background, read.background)):
        for name in ("centres", "parents", "sizes"):
            for kept, known in zip(getattr(other, name), getattr(one, name), strict=True):
                assert torch.equal(kept, known)


def test_other_files_are_no_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"abc")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    for name in ("cut", "other"):
        with pytest.raises(ValueError, match=f"{name}: expected a fsseg-latent-hierarchy file"):
            Hierarchy.load(tmp_path / name)
