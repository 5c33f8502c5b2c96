"""Clusters of vectors, then of their centres: prototypes of latent semantics, fine to coarse."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from training.files import write_whole

FORMAT = "fsseg-latent-hierarchy"
LOT = 4096
STEPS = 300  # of Lloyd's algorithm; it mostly stands still after a tenth of them


@contextmanager
def one_thread() -> Iterator[None]:
    """A sum's last bits depend on how many threads share it; a cluster's members may then, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kmeans(vectors: Tensor, count: int, seed: int = 0, restarts: int = 4) -> tuple[Tensor, Tensor]:
    """``[n, C] float32 -> (centres [count, C], the centre of each vector [n] int64)``.

    Lloyd's algorithm from greedy k-means++ starts (Arthur and Vassilvitskii, 2007), the best of
    ``restarts``. On one machine the same vectors give the same bits, whatever the threads.

    Raises:
        ValueError: there are fewer different vectors than centres, or they are not finite.
    """
    if not torch.isfinite(vectors).all():
        raise ValueError("vectors: expected finite numbers, got NaN or infinite ones")
    different = len(torch.unique(vectors, dim=0)) if len(vectors) < 10 * count else count
    if min(len(vectors), different) < count:
        raise ValueError(
            f"expected {count} different vectors or more for {count} clusters, got "
            f"{min(len(vectors), different)}. Ask for fewer clusters, or train on more pictures."
        )
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, Tensor, Tensor] | None = None
    with one_thread():
        for _ in range(restarts):
            found = _lloyd(vectors, _starts(vectors, count, generator))
            if best is None or found[0] < best[0]:
                best = found
    if best is None:
        raise ValueError(f"restarts: expected 1 or more, got {restarts}")
    return best[1], best[2]


def _distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """``[n, k]`` squared distances, without the vectors' own squares' rounding below 0."""
    squares = (vectors * vectors).sum(1, keepdim=True) + (centres * centres).sum(1)
    return (squares - 2 * vectors @ centres.T).clamp_(min=0)


def _starts(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Vectors far from each other: each of several drawn by squared distance, the best taken."""
    tries = 2 + int(math.log(count))
    first = int(torch.randint(len(vectors), (1,), generator=generator))
    chosen = [first]
    nearest = _distances(vectors, vectors[first, None])[:, 0]
    while len(chosen) < count:
        mass = nearest.double().cumsum(0)
        drawn = torch.rand(tries, generator=generator, dtype=torch.float64) * mass[-1]
        candidates = torch.searchsorted(mass, drawn).clamp_(max=len(vectors) - 1)
        after = torch.minimum(_distances(vectors, vectors[candidates]), nearest[:, None])
        best = int(after.double().sum(0).argmin())
        chosen.append(int(candidates[best]))
        nearest = after[:, best]
    return vectors[chosen]


def _lloyd(vectors: Tensor, centres: Tensor) -> tuple[float, Tensor, Tensor]:
    """``(sum of squared distances, centres, the centre of each vector)`` where nothing moves."""
    members = torch.full((len(vectors),), -1)
    for _ in range(STEPS):
        distances, nearest = _distances(vectors, centres).min(1)
        for empty in (torch.bincount(nearest, minlength=len(centres)) == 0).nonzero()[:, 0]:
            # the vector that is worst off gets the centre that nobody has
            alone = torch.bincount(nearest, minlength=len(centres))[nearest] == 1
            furthest = int(torch.where(alone, -1.0, distances).argmax())
            nearest[furthest], distances[furthest] = empty, 0.0
        if torch.equal(nearest, members):
            break
        members = nearest
        sums = torch.zeros(centres.shape, dtype=torch.float64)
        for at in range(0, len(vectors), LOT):  # in double, but not all at once
            sums.index_add_(0, members[at : at + LOT], vectors[at : at + LOT].double())
        centres = (sums / torch.bincount(members, minlength=len(centres))[:, None]).float()
    apart = _distances(vectors, centres).gather(1, members[:, None])
    return float(apart.double().sum()), centres, members


@dataclass(frozen=True)
class Tree:
    """Prototypes of one kind. centres: ``[K, C]`` of each level, fine to coarse; parents: for each
    level but the last, the centre one level up of each centre; sizes: vectors below each centre."""

    centres: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]
    sizes: tuple[Tensor, ...]

    @classmethod
    def grow(
        cls, vectors: NDArray[np.float32], counts: Sequence[int], seed: int, restarts: int
    ) -> Tree:
        """Cluster the vectors, then the centres of each level (eq. 2)."""
        points = torch.from_numpy(np.ascontiguousarray(vectors))
        weight = torch.ones(len(points), dtype=torch.int64)
        centres, parents, sizes = [], [], []
        for level, count in enumerate(counts):
            points, members = kmeans(points, count, seed + level, restarts)
            weight = torch.zeros(count, dtype=torch.int64).index_add_(0, members, weight)
            centres.append(points)
            sizes.append(weight)
            if level:
                parents.append(members)
        return cls(tuple(centres), tuple(parents), tuple(sizes))


@dataclass(frozen=True)
class Hierarchy:
    """The latent semantics of a training set: prototypes of objects and of the background."""

    foreground: Tree
    background: Tree

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        pairs = zip(self.foreground.centres, self.background.centres, strict=True)
        return tuple((len(f), len(b)) for f, b in pairs)

    def save(self, file: Path, settings: dict[str, Any]) -> None:
        """Write safetensors with a JSON header, whole or not at all."""
        tensors = {
            f"{kind}.{name}.{level}": value.contiguous()
            for kind in ("foreground", "background")
            for name in ("centres", "parents", "sizes")
            for level, value in enumerate(getattr(getattr(self, kind), name))
        }
        header = {"format": FORMAT, "levels": self.levels, "settings": settings}
        write_whole(file, save(tensors, {"format": FORMAT, "header": json.dumps(header)}))

    @classmethod
    def load(cls, file: Path) -> Hierarchy:
        """
        Raises:
            ValueError: the file is not a hierarchy.
        """
        try:
            with safe_open(str(file), "pt") as opened:
                facts = opened.metadata() or {}
                if facts.get("format") != FORMAT:
                    raise ValueError(f"format {facts.get('format')!r}")
                count = len(json.loads(facts["header"])["levels"])
                trees = [
                    Tree(
                        *(
                            tuple(opened.get_tensor(f"{kind}.{name}.{n}") for n in range(levels))
                            for name, levels in zip(
                                Tree.__annotations__, _counts(count), strict=True
                            )
                        )
                    )
                    for kind in ("foreground", "background")
                ]
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{file}: expected a {FORMAT} file, got another ({error}). Delete it and run "
                "`python -m training latents` again."
            ) from error
        return cls(*trees)


def _counts(levels: int) -> tuple[int, int, int]:
    return levels, levels - 1, levels
