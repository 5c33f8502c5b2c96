"""Regions of a picture without labels: a hierarchy of contours, cut at one strength.

The paper cuts MCG's ultrametric contour map at 0.45. Here superpixels of an oriented watershed of
the colour gradient (Arbelaez et al., PAMI 2011) are merged by Mumford-Shah energy: the strength of
a contour is the scale at which it is no longer worth its length (Guigues et al., IJCV 2006). Both
are higra's; docs/spfl.md compares them with other libraries' regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FINEST = 0.8  # pixels: what is averaged before colours are compared, since cameras and JPEG speckle


@dataclass(frozen=True)
class RegionSettings:
    """threshold: strength of contours that stay; more means fewer regions. It does not depend on
        the picture's size.
    least: the share of the picture that a region has at least; smaller ones join a neighbour.
    scales: of the Gaussian derivatives that find contours, in pixels.
    side: pictures that are longer than this are segmented at this length.
    """

    threshold: float = 2.0
    least: float = 0.003
    scales: tuple[float, ...] = (1.0, 2.0)
    side: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.threshold < float("inf"):
            raise ValueError(f"threshold: expected a number above 0, got {self.threshold}")
        if not 0 <= self.least < 1:
            raise ValueError(f"least: expected a share in [0, 1), got {self.least}")
        if not self.scales or not all(0 < scale <= 32 for scale in self.scales):
            raise ValueError(f"scales: expected pixels in (0, 32], got {self.scales}")
        if self.side < 16:
            raise ValueError(f"side: expected 16 or more pixels, got {self.side}")


def higra() -> Any:
    """
    Raises:
        ModuleNotFoundError: the package is not installed; the message says what to do.
    """
    try:
        import higra as module
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "latents: regions of the background need the package higra. pip install higra, or "
            "the extra [train]."
        ) from error
    return module


def segment(pixels: NDArray[np.uint8], settings: RegionSettings) -> NDArray[np.uint16]:
    """``[H, W, 3] uint8 -> [H, W]`` numbers of connected regions, from 0."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest > settings.side:
        ratio = settings.side / longest
        small = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        regions = _segment(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), settings)
        return cv2.resize(regions, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return _segment(pixels, settings)


def _segment(pixels: NDArray[np.uint8], settings: RegionSettings) -> NDArray[np.uint16]:
    hg = higra()
    size = pixels.shape[:2]
    contours = contour_tree(pixels, settings)
    if contours is None:
        return np.zeros(size, np.uint16)
    # variance over length grows with the picture: this does not
    threshold = settings.threshold * np.sqrt(size[0] * size[1])
    tree, scale, of_pixel = contours
    cut = hg.labelisation_horizontal_cut_from_threshold(tree, scale, threshold)
    numbers = np.unique(cut, return_inverse=True)[1].ravel()[of_pixel].reshape(size)
    if numbers.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"threshold: {numbers.max() + 1} regions in a picture. Raise it.")
    return numbers.astype(np.uint16)


def contour_tree(
    pixels: NDArray[np.uint8], settings: RegionSettings
) -> tuple[Any, Any, NDArray[np.int64]] | None:
    """The tree of regions, the scale at which each appears, and the leaf of each pixel ``[H * W]``;
    None where all is one superpixel."""
    hg = higra()
    size = pixels.shape[:2]
    if min(size) < 2:
        return None
    colours = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    grid = hg.get_4_adjacency_graph(size)
    strength = gradient(colours, settings.scales).astype(np.float64)
    edges = hg.weight_graph(grid, strength, hg.WeightFunction.mean)
    superpixels, _ = hg.oriented_watershed(grid, edges, size)
    if superpixels.num_vertices() == 1:
        return None
    of_pixel = hg.CptRegionAdjacencyGraph.construct(superpixels)["vertex_map"].ravel()
    tree, scale = _merged(hg, superpixels, of_pixel, cv2.GaussianBlur(colours, (0, 0), FINEST))
    least = int(settings.least * size[0] * size[1])
    return *hg.filter_small_nodes_from_tree(tree, scale, least), of_pixel


def gradient(colours: NDArray[np.float32], scales: tuple[float, ...]) -> NDArray[np.float32]:
    """``[H, W, 3] -> [H, W]``: the largest change of colour in any direction, over all scales.

    The root of the structure tensor's larger eigenvalue. A step's derivative falls as 1/scale, so
    each is scaled by the root of its scale: between a step's measure and a line's.
    """
    xx, yy, xy = (np.zeros(colours.shape[:2], np.float32) for _ in range(3))
    for scale in scales:
        smooth = cv2.GaussianBlur(colours, (0, 0), scale)
        across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=np.sqrt(scale) / 8)
        down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=np.sqrt(scale) / 8)
        xx += (across * across).sum(2)
        yy += (down * down).sum(2)
        xy += (across * down).sum(2)
    return np.sqrt((xx + yy) / 2 + np.sqrt(((xx - yy) / 2) ** 2 + xy * xy))


def _merged(
    hg: Any, superpixels: Any, of_pixel: NDArray[np.int64], colours: NDArray[np.float32]
) -> tuple[Any, Any]:
    """The tree of merged superpixels, and for each of its nodes the scale at which it appears."""
    areas = np.bincount(of_pixel).astype(np.float64)
    flat = colours.reshape(-1, 3).astype(np.float64)
    sums = np.stack([np.bincount(of_pixel, c) for c in flat.T], 1)
    squares = np.stack([np.bincount(of_pixel, c * c) for c in flat.T], 1)
    tree, scale = hg.binary_partition_tree_MumfordShah_energy(
        superpixels,
        sums,
        areas,
        hg.attribute_vertex_perimeter(superpixels),
        hg.attribute_edge_length(superpixels),
        squares,
    )
    # a merger can be worth it at a smaller scale than one below it: it then comes with that one
    below = np.zeros(tree.num_leaves())
    return tree, hg.accumulate_and_max_sequential(tree, scale, below, hg.Accumulators.max)
