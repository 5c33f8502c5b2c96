"""Pictures of what was found: regions, the parts nearest to each prototype, pseudo labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fsseg_sdk.palette import palette
from training.datasets import IGNORE
from training.spfl.latents import UNKNOWN, label_file, read_labels
from training.spfl.vectors import parts_of

if TYPE_CHECKING:
    from training.spfl.clusters import Hierarchy, Tree
    from training.spfl.make import Maker
    from training.spfl.vectors import Corpus

Pixels = NDArray[np.uint8]

SMALL, LARGE, MARGIN, CAPTION = 112, 224, 4, 14  # pixels
NEAREST = 8  # parts that a prototype is shown by, each from another picture
PICTURES = 8  # that show regions and labels
OUTLINE = np.array((255, 60, 0), np.uint8)


def draw_pages(maker: Maker, corpus: Corpus, hierarchy: Hierarchy, folder: Path) -> None:
    """``regions.png``, ``labels.png`` and, for each kind and level, ``foreground-1.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (
        ("foreground", True, hierarchy.foreground),
        ("background", False, hierarchy.background),
    )
    for name, foreground, tree in kinds:
        own = corpus.of(foreground)
        for level in range(len(tree.centres)):
            page = prototype_page(maker, own, tree, level)
            page.save(folder / f"{name}-{level + 1}.png")
    # pictures evenly spread over the set, not picked
    chosen = np.linspace(0, len(maker.samples) - 1, min(PICTURES, len(maker.samples)))
    numbers = sorted({int(number) for number in chosen})
    region_page(maker, numbers).save(folder / "regions.png")
    label_page(maker, hierarchy, numbers).save(folder / "labels.png")


def prototype_page(maker: Maker, corpus: Corpus, tree: Tree, level: int) -> Image.Image:
    """A row for each prototype of a level: the parts of the largest cosine with it."""
    centres = tree.centres[level].numpy()
    cosines = _unit(corpus.vectors) @ _unit(centres).T
    rows, captions = [], []
    for number in range(len(centres)):
        rows.append(
            [_cut_out(maker, corpus, part) for part in _nearest(corpus, cosines[:, number])]
        )
        up = f", in {tree.parents[level][number]}" if level < len(tree.parents) else ""
        captions.append(f"{number}: {tree.sizes[level][number]}{up}")
    return sheet(rows, SMALL, captions)


def region_page(maker: Maker, numbers: Sequence[int]) -> Image.Image:
    """Pictures with the outlines of their regions, and with the regions of the background in the
    mean colour of each, objects being white."""
    rows = []
    for number in numbers:
        sample = maker.samples[number]
        if (content := maker.read(sample)) is None:
            continue
        pixels, labels = content
        regions = maker.maps.of(sample.key, pixels)
        means = np.zeros_like(pixels)
        for part in parts_of(sample, labels, regions, maker.settings.least):
            means[part.mask] = 255 if part.identity else pixels[part.mask].mean(0)
        rows.append([pixels, outlined(pixels, regions.astype(np.int32)), means])
    return sheet(rows, LARGE, [""] * len(rows), ("picture", "regions", "parts; white: objects"))


def label_page(maker: Maker, hierarchy: Hierarchy, numbers: Sequence[int]) -> Image.Image:
    """As the paper's Fig. 4: pictures with the objects of base classes in blue, then the labels of
    each level in colours; a colour means the same prototype in all pictures."""
    rows = []
    for number in numbers:
        sample = maker.samples[number]
        file = label_file(maker.folder, sample.key)
        if (content := maker.read(sample)) is None or not file.is_file():
            continue
        pixels, labels = content
        found = read_labels(file, len(hierarchy.levels), (labels.shape[0], labels.shape[1]))
        objects = pixels.copy()
        known = (labels > 0) & (labels != IGNORE)
        objects[known] = objects[known] // 2 + np.array((10, 40, 127), np.uint8)
        rows.append([objects, *(_coloured(pixels, of_level) for of_level in found)])
    heads = ["picture", *(f"level {n + 1}" for n in range(len(hierarchy.levels)))]
    return sheet(rows, LARGE, [""] * len(rows), heads)


def outlined(pixels: Pixels, regions: NDArray[np.int32]) -> Pixels:
    """A picture with a line where its regions meet."""
    edge = np.zeros(regions.shape, np.bool_)
    edge[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    edge[1:] |= regions[1:] != regions[:-1]
    return np.where(edge[..., None], OUTLINE, pixels)


def sheet(
    rows: Sequence[Sequence[Pixels]], side: int, captions: Sequence[str], heads: Sequence[str] = ()
) -> Image.Image:
    """Rows of pictures, each fitted into a square, below a caption; heads: of the columns."""
    top = CAPTION if heads else 0
    above = CAPTION if any(captions) else 0
    heights = [
        above + MARGIN + max((_fitted(picture, side).shape[0] for picture in row), default=0)
        for row in rows
    ]
    columns = max((len(row) for row in rows), default=1)
    size = (columns * (side + MARGIN) + MARGIN, top + sum(heights) + MARGIN)
    made = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(made)
    for column, head in enumerate(heads):
        pen.text((MARGIN + column * (side + MARGIN), 1), head, fill="black")
    down = top
    for row, caption, height in zip(rows, captions, heights, strict=True):
        pen.text((MARGIN, down + 1), caption, fill="black")
        for column, picture in enumerate(row):
            place = MARGIN + column * (side + MARGIN), down + above
            made.paste(Image.fromarray(_fitted(picture, side)), place)
        down += height
    return made


def _fitted(picture: Pixels, side: int) -> Pixels:
    height, width = picture.shape[:2]
    ratio = side / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)


def _nearest(corpus: Corpus, cosines: NDArray[np.float32]) -> list[int]:
    """The parts of the largest cosines, one of a picture."""
    found: dict[int, int] = {}
    for part in np.argsort(-cosines, kind="stable"):
        found.setdefault(int(corpus.picture[part]), int(part))
        if len(found) == NEAREST:
            break
    return list(found.values())


def _cut_out(maker: Maker, corpus: Corpus, row: int) -> Pixels:
    """A part with some of its surroundings, and its outline."""
    sample = maker.samples[int(corpus.picture[row])]
    content = maker.read(sample)
    if content is None:
        return np.full((SMALL, SMALL, 3), 255, np.uint8)
    pixels, labels = content
    regions = maker.maps.of(sample.key, pixels)
    mask = parts_of(sample, labels, regions, maker.settings.least)[int(corpus.part[row])].mask
    down, across = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    reach = max(8, round(0.15 * max(np.ptp(down), np.ptp(across))))
    rows = slice(max(0, down[0] - reach), down[-1] + reach + 1)
    columns = slice(max(0, across[0] - reach), across[-1] + reach + 1)
    cut, own = _fitted(pixels[rows, columns], SMALL), mask[rows, columns].astype(np.uint8)
    small = cv2.resize(own, (cut.shape[1], cut.shape[0]), interpolation=cv2.INTER_NEAREST)
    return outlined(cut, small.astype(np.int32))


def _coloured(pixels: Pixels, labels: NDArray[np.uint8]) -> Pixels:
    """Labels in colours over a hint of the picture; unknown pixels in white."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    colours = palette()[(labels.astype(np.int32) + 1) % 255].astype(np.float32)
    drawn = (0.75 * colours + 0.25 * grey).astype(np.uint8)
    drawn[labels == UNKNOWN] = 255
    return drawn
