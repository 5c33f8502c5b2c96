"""Boxes and scribbles as a person might draw them, derived from masks."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP_Geometric
from skimage.measure import label
from skimage.morphology import skeletonize

from fsseg_sdk import Box, Scribble
from training.evaluate import Episode

STRETCH = 0.7  # of the skeleton's longest path that is drawn
STEP = 4  # pixels of the skeleton from point to point


def box_of(mask: NDArray[np.uint8], episode: Episode | None = None) -> Box:
    """The bounding box of the largest connected region of 1."""
    rows, columns = np.nonzero(largest_region(mask))
    return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def scribble_of(mask: NDArray[np.uint8], episode: Episode) -> Scribble:
    """A stroke along the skeleton of the largest connected region of 1, with the default pen.

    Of the skeleton's longest path a stretch of 70 %; which one is drawn by lot, the same for the
    same support and class. Nothing is drawn on the background.
    """
    generator = random.Random(f"{episode.support.key} {episode.identity}")
    skeleton = skeletonize(largest_region(mask))
    path = longest_path(skeleton, generator.randrange(int(skeleton.sum())))
    length = max(1, round(STRETCH * len(path)))
    first = generator.randint(0, len(path) - length)
    drawn = path[first : first + length]
    points = [*drawn[:-1:STEP], drawn[-1]]
    return Scribble([(float(column), float(row)) for row, column in points])


def largest_region(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool [H, W]: of the pixels that are 1, those of the largest 8-connected region."""
    regions = label(mask == 1, connectivity=2)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = regions == sizes.argmax()
    return largest


def longest_path(skeleton: NDArray[np.bool_], start: int) -> list[tuple[int, int]]:
    """(row, column) along a connected skeleton: from the pixel farthest from its ``start``-th pixel
    to the one farthest from there. On a tree, no path is longer."""
    costs = np.where(skeleton, 1.0, -1.0)  # negative: no way through
    rows, columns = np.nonzero(skeleton)
    begin = (int(rows[start]), int(columns[start]))
    for _ in range(2):
        paths = MCP_Geometric(costs)
        distance, _ = paths.find_costs([begin])
        reached = np.where(np.isfinite(distance), distance, -1.0)
        row, column = np.unravel_index(int(reached.argmax()), skeleton.shape)
        begin = (int(row), int(column))
    return [(int(r), int(c)) for r, c in paths.traceback(begin)]
