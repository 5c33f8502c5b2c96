"""Boxes and scribbles as a person might draw them, made from masks.

They stand in for masks at test time only; models are trained on dense masks.

Box rules: PANet's paper and code take the largest object, SMCP's paper one by lot. Objects are the
set's own instances where it has them, else connected components of the class's mask; the name of
the kind says which (:func:`name_of`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP_Geometric
from skimage.measure import label
from skimage.morphology import skeletonize

from fsseg_sdk import Box, Scribble
from training.datasets import IGNORE, Sample

KINDS = (
    "dense",
    "scribble",
    "box-largest",
    "box-random",
    "box-component",
    "box-component-random",
)
SMALLEST = 0.01  # of the picture: smaller components are specks, unless there is no larger one
STRETCH = 0.7  # of the skeleton's longest path that is drawn
STEP = 4  # pixels of the skeleton from point to point

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]
Annotation = Mask | Box | Scribble


def make(
    kind: str,
    mask: Mask,
    seed: str,
    instances: Sequence[Region] | None = None,
    width: float | None = None,
) -> Annotation:
    """An annotation of one class in one picture; the same for the same arguments.

    Args:
        kind: one of :data:`KINDS`: ``dense`` is the mask itself; ``box-largest`` and
            ``box-random`` box the largest instance or one drawn by lot, of components where
            ``instances`` is None; ``box-component`` and ``box-component-random`` box components
            in any case.
        mask: ``[H, W] uint8``, 1 for the class, 0 for all else, 255 for ignore.
        seed: as of :func:`seed_of`.
        instances: ``[H, W] bool`` for each object of the class (``Sample.instances``).
        width: of the scribble's pen in pixels (what is drawn is dilated by half of it); None is
            the runtime's default, one per cent of the shorter side, at least 3.

    Raises:
        ValueError: no such kind, or the mask has no pixel of 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if not (mask == 1).any():
        raise ValueError("mask: expected a pixel of 1, got none. Leave this picture out.")
    if kind == "dense":
        return mask
    if kind == "scribble":
        return scribble_of(mask, seed, width)
    objects = instances if instances is not None and kind in ("box-largest", "box-random") else None
    return box_of(mask, seed if kind.endswith("random") else None, objects)


def annotate(kind: str, sample: Sample, identity: int, seed: int = 0) -> Annotation:
    """:func:`make` for class ``identity`` of ``sample``, with its instances where it has them."""
    labels = sample.read_labels()
    mask = np.where(labels == IGNORE, IGNORE, labels == identity).astype(np.uint8)
    instances = sample.instances(identity) if kind in ("box-largest", "box-random") else None
    return make(kind, mask, seed_of(sample.key, identity, seed), instances)


def seed_of(key: str, identity: int, seed: int = 0) -> str:
    """The seed of an annotation: it depends on the picture, the class and ``seed`` alone."""
    return f"{key} {identity}" + (f" {seed}" if seed else "")


def name_of(kind: str, has_instances: bool) -> str:
    """What a table calls ``kind``: boxes of components are never called boxes of instances."""
    if has_instances or not kind.startswith("box-"):
        return kind
    return {"box-largest": "box-component", "box-random": "box-component-random"}.get(kind, kind)


def box_of(mask: Mask, seed: str | None = None, instances: Sequence[Region] | None = None) -> Box:
    """The bounding box of the largest object, or of one drawn by lot where ``seed`` is given."""
    objects = components(mask) if instances is None else [i for i in instances if i.any()]
    if not objects:
        raise ValueError("instances: expected one with a pixel, got none. Pass None for none.")
    if seed is None:
        chosen = max(objects, key=lambda region: int(region.sum()))
    else:
        chosen = random.Random(seed).choice(objects)
    return bounds(chosen)


def bounds(region: Region) -> Box:
    """The smallest box of whole pixels around the pixels of a region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def components(mask: Mask) -> list[Region]:
    """The 8-connected regions of 1 that cover 1 % or more of the picture, each bool ``[H, W]``, in
    the order of their first pixels; of smaller ones the largest alone, if there is no other."""
    regions, count = label(mask == 1, connectivity=2, return_num=True)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    chosen = np.flatnonzero(sizes >= SMALLEST * mask.size)
    if not len(chosen):
        chosen = np.array([sizes.argmax()]) if count else chosen
    return [regions == number for number in chosen]


def scribble_of(mask: Mask, seed: str, width: float | None = None) -> Scribble:
    """A stroke along the skeleton of the largest connected region of 1.

    Of the skeleton's longest path a stretch of 70 %; which one is drawn by lot. Its points are of
    the class; the pen between them may cross a thin object's edge, as people's do. Nothing is
    drawn on the background.
    """
    generator = random.Random(seed)
    skeleton = skeletonize(largest_region(mask))
    path = longest_path(skeleton, generator.randrange(int(skeleton.sum())))
    length = max(1, round(STRETCH * len(path)))
    first = generator.randint(0, len(path) - length)
    drawn = path[first : first + length]
    points = [*drawn[:-1:STEP], drawn[-1]]
    return Scribble([(float(column), float(row)) for row, column in points], width=width)


def largest_region(mask: Mask) -> Region:
    """bool [H, W]: of the pixels that are 1, those of the largest 8-connected region."""
    regions = label(mask == 1, connectivity=2)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    largest: Region = regions == sizes.argmax()
    return largest


def longest_path(skeleton: Region, start: int) -> list[tuple[int, int]]:
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


def as_mask(
    annotation: Annotation, size: tuple[int, int], others: Sequence[Box] = ()
) -> NDArray[np.uint8]:
    """``[H, W] uint8`` for code that takes masks only: 1 is the class, 0 background, 255 neither.

    Args:
        size: (H, W) of the picture.
        others: boxes whose pixels are no background either. PANet's code passes those of all
            other objects of the class here.
    """
    if isinstance(annotation, np.ndarray):
        return annotation
    marked = annotation.mark(size, "annotation")
    left_out = np.zeros(size, np.bool_)
    for box in others:
        left_out |= box.mark(size, "others").foreground
    background = marked.background & ~left_out
    return np.where(marked.foreground, 1, np.where(background, 0, IGNORE)).astype(np.uint8)
