"""`python -m training.spfl.compare SET`: how well libraries' regions keep to true objects.

Every method is cut at the same numbers of regions. The figures are over pictures; a page shows the
first of them. None of the methods sees a mask.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.datasets import IGNORE, open_dataset
from training.spfl.page import LARGE, outlined, sheet
from training.spfl.regions import RegionSettings, contour_tree, gradient, higra

COUNTS = (8, 16, 32, 64)
SCALES = np.geomspace(30, 8000, 9)  # of felzenszwalb, which knows no hierarchy
LEAST = 0.003  # of the picture
NEAR = 5  # pixels: side of the square in which a found contour counts as a true one's
Regions = NDArray[np.int64]
Method = Callable[[NDArray[np.uint8]], dict[int, Regions]]


def _cuts(tree: Any, altitudes: Any, of_pixel: NDArray[np.int64], size: Any) -> dict[int, Regions]:
    explorer = higra().HorizontalCutExplorer(tree, altitudes)
    found = {}
    for count in COUNTS:
        cut = explorer.horizontal_cut_from_num_regions(count).labelisation_leaves(
            tree, handle_rag=False
        )
        found[count] = np.unique(cut, return_inverse=True)[1].ravel()[of_pixel].reshape(size)
    return found


def mumford_shah(pixels: NDArray[np.uint8]) -> dict[int, Regions]:
    """higra: oriented watershed of the colour gradient, merged by Mumford-Shah energy."""
    contours = contour_tree(pixels, RegionSettings(least=LEAST))
    if contours is None:
        return dict.fromkeys(COUNTS, np.zeros(pixels.shape[:2], np.int64))
    tree, scale, of_pixel = contours
    return _cuts(tree, scale, of_pixel, pixels.shape[:2])


def mean_contour(pixels: NDArray[np.uint8]) -> dict[int, Regions]:
    """higra: the same watershed, merged over the weakest mean contour, as MCG's map is made."""
    hg, size = higra(), pixels.shape[:2]
    grid, edges = _edges(pixels)
    tree, strength = hg.mean_pb_hierarchy(grid, edges, size)
    of_pixel = hg.CptRegionAdjacencyGraph.construct(hg.CptHierarchy.construct(tree)["leaf_graph"])[
        "vertex_map"
    ].ravel()
    small = int(LEAST * size[0] * size[1])
    tree, strength = hg.filter_small_nodes_from_tree(tree, strength, small)
    return _cuts(tree, strength, of_pixel, size)


def watershed(pixels: NDArray[np.uint8]) -> dict[int, Regions]:
    """higra: the same gradient's watersheds, in the order of their volume."""
    hg, size = higra(), pixels.shape[:2]
    tree, volume = hg.watershed_hierarchy_by_volume(*_edges(pixels))
    return _cuts(tree, volume, np.arange(size[0] * size[1]), size)


def felzenszwalb(pixels: NDArray[np.uint8]) -> dict[int, Regions]:
    """scikit-image: Felzenszwalb and Huttenlocher's graph merging, at the scale that comes closest
    to the number of regions."""
    from skimage.segmentation import felzenszwalb as segment

    least = int(LEAST * pixels[..., 0].size)
    tried = [segment(pixels, scale=scale, sigma=0.8, min_size=least) for scale in SCALES]
    return {c: min(tried, key=lambda found: abs(int(found.max()) + 1 - c)) for c in COUNTS}


def slic(pixels: NDArray[np.uint8]) -> dict[int, Regions]:
    """scikit-image: SLIC superpixels; neighbours of the most similar mean colour are merged."""
    from skimage.segmentation import slic as segment

    hg, size = higra(), pixels.shape[:2]
    colours = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    numbers = segment(pixels, 400, compactness=10, sigma=1, start_label=0)
    grid = hg.get_4_adjacency_graph(size)
    graph = hg.make_region_adjacency_graph_from_labelisation(grid, numbers)
    of_pixel = hg.CptRegionAdjacencyGraph.construct(graph)["vertex_map"].ravel()
    sums = [np.bincount(of_pixel, c) for c in colours.reshape(-1, 3).T.astype(np.float64)]
    means = np.stack(sums, 1) / np.bincount(of_pixel)[:, None]
    first, second = graph.edge_list()
    apart = np.linalg.norm(means[first] - means[second], axis=1)
    length = hg.attribute_edge_length(graph).astype(np.float64)
    tree, distance = hg.binary_partition_tree_average_linkage(graph, apart, length)
    return _cuts(tree, distance, of_pixel, size)


def _edges(pixels: NDArray[np.uint8]) -> tuple[Any, Any]:
    hg = higra()
    colours = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    grid = hg.get_4_adjacency_graph(pixels.shape[:2])
    strength = gradient(colours, RegionSettings().scales).astype(np.float64)
    return grid, hg.weight_graph(grid, strength, hg.WeightFunction.mean)


METHODS: dict[str, Method] = {
    "mumford-shah": mumford_shah,
    "mean contour": mean_contour,
    "watershed": watershed,
    "felzenszwalb": felzenszwalb,
    "slic, merged": slic,
}


def scores(regions: Regions, labels: NDArray[Any]) -> tuple[float, float, float, float]:
    """How well unions of regions can be the objects of a mask.

    Returns:
        IoU of each class with the regions that are mostly it, mean over classes; share of pixels
        that are of their region's class; share of the true border near a found one; share of the
        picture near a found one.
    """
    known = labels != IGNORE
    classes, of_class = np.unique(labels[known], return_inverse=True)
    counts = np.zeros((int(regions.max()) + 1, len(classes)))
    np.add.at(counts, (regions[known], of_class.ravel()), 1)
    own, ious = counts.argmax(1), []
    for index, identity in enumerate(classes):
        if identity:
            inside = counts[own == index, index].sum()
            ious.append(inside / (counts[own == index].sum() + counts[:, index].sum() - inside))
    found = cv2.dilate(_borders(regions).astype(np.uint8), np.ones((NEAR, NEAR), np.uint8)) > 0
    true = _borders(np.where(known, labels, 0)) & known
    recall = found[true].mean() if true.any() else np.nan
    iou = float(np.mean(ious)) if ious else np.nan
    return iou, float(counts.max(1).sum() / counts.sum()), float(recall), float(found.mean())


def _borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return edge


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.spfl.compare", description=__doc__)
    parser.add_argument("set", type=Path, help="folder of a data set with masks")
    parser.add_argument(
        "--count", type=int, default=40, help="training pictures, drawn with seed 0"
    )
    parser.add_argument("--page", type=Path, help="PNG: the first pictures, side by side")
    parser.add_argument("--shown", type=int, default=6, help="pictures of the page")
    options = parser.parse_args(arguments)
    samples = [s for s in open_dataset(options.set).samples if s.split == "train"]
    drawn = np.random.default_rng(0).permutation(len(samples))[: options.count]
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    seconds, rows = dict.fromkeys(METHODS, 0.0), []
    for method in METHODS.values():
        method(samples[0].read()[0])  # what is loaded at first use takes time, too
    for number in drawn:
        pixels, labels = samples[number].read()
        row = [pixels]
        for name, method in METHODS.items():
            begin = process_time()
            cuts = method(pixels)
            runs = len(SCALES) if method is felzenszwalb else 1
            seconds[name] += (process_time() - begin) / runs
            row.append(outlined(pixels, cuts[32].astype(np.int32)))
            for count, regions in cuts.items():
                line = (len(np.unique(regions)), *scores(regions, labels))
                found.setdefault((name, count), []).append(line)
        rows.append(row)
    print("| method | s a picture | regions | IoU % | accuracy % | border % | near % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (name, _), lines in found.items():
        mean = np.nanmean(lines, 0)
        figures = " | ".join(f"{100 * value:.1f}" for value in mean[1:])
        print(f"| {name} | {seconds[name] / len(drawn):.2f} | {mean[0]:.0f} | {figures} |")
    if options.page is not None:
        shown = rows[: options.shown]
        sheet(shown, LARGE, [""] * len(shown), ("picture", *METHODS)).save(options.page)


if __name__ == "__main__":
    main()
