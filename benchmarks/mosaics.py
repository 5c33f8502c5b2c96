"""Pictures larger than an encoder's input, from real ones: sixteen of them, four by four.

Every cell is as large as the encoder's input, squashed as the encoder would squash that picture
alone. So a window over a cell sees exactly what the ordinary picture would give, and what a mosaic
loses against its sixteen pictures is lost by size alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label

from training.datasets import IGNORE, Sample
from training.evaluation import Episode

ACROSS = 4
CELLS = ACROSS * ACROSS


@dataclass(frozen=True)
class Mosaic(Sample):
    """pieces: sixteen pictures, row by row. cell: (height, width) of each."""

    pieces: tuple[Sample, ...]
    cell: tuple[int, int]

    @property
    def key(self) -> str:
        names = "+".join(piece.image.stem for piece in self.pieces)
        return f"{self.dataset}/mosaic of {names}"

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """``([4 h, 4 w, 3] uint8 RGB, [4 h, 4 w] uint8 class ids)``."""
        height, width = self.cell
        pixels = np.empty((ACROSS * height, ACROSS * width, 3), np.uint8)
        labels = np.empty(pixels.shape[:2], np.uint8)
        for number, piece in enumerate(self.pieces):
            top, left = number // ACROSS * height, number % ACROSS * width
            place = np.s_[top : top + height, left : left + width]
            picture, classes = (Image.fromarray(array) for array in piece.read())
            pixels[place] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
            labels[place] = np.asarray(classes.resize((width, height), Image.Resampling.NEAREST))
        return pixels, labels


def in_mosaics(
    episodes: Sequence[Episode],
    samples: Sequence[Sample],
    cell: tuple[int, int],
    count: int,
    least_fraction: float,
    seed: int = 0,
) -> list[Episode]:
    """Up to ``count`` of the episodes of one set, each with its query somewhere in a mosaic, among
    15 others of that set that show the class. Classes that too few pictures show are left out."""
    generator = random.Random(seed)
    result: list[Episode] = []
    for episode in generator.sample(list(episodes), len(episodes)):
        query, identity = episode.query, episode.identity
        others = [
            s
            for s in samples
            if s.classes.get(identity, 0.0) >= least_fraction
            and s.key not in (query.key, episode.support.key)
        ]
        if len(result) == count or len(others) < CELLS - 1:
            continue
        pieces = generator.sample(others, CELLS - 1)
        pieces.insert(generator.randrange(CELLS), query)
        mosaic = Mosaic(
            dataset=query.dataset,
            image=query.image,
            mask=query.mask,
            split=query.split,
            classes={identity: sum(p.classes[identity] for p in pieces) / CELLS},
            source=query.source,
            licence=query.licence,
            pieces=tuple(pieces),
            cell=cell,
        )
        result.append(Episode(episode.dataset, identity, episode.support, mosaic))
    return result


def object_share(episode: Episode) -> float:
    """Share of the picture that an object of the class covers: the size of connected region in
    which the class's middle pixel lies, when regions are put in order of size."""
    _, labels = episode.query.read()
    sizes = np.sort(np.bincount(label(labels == episode.identity, connectivity=2).ravel())[1:])
    if not len(sizes):
        return 0.0
    middle = sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)]
    return float(middle / np.count_nonzero(labels != IGNORE))
