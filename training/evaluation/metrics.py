"""Counting: confusion of labels, mean-IoU as the papers sum it, AUROC and calibration error."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def confusion(found: NDArray[np.uint8], truth: NDArray[np.uint8], labels: int) -> NDArray[np.int64]:
    """``[labels, labels]`` pixels: rows are the truth's labels, columns those found.

    Args:
        found, truth: ``[H, W]`` of 0..labels-1; the truth's 255 counts nowhere.
    """
    pairs = truth.astype(np.uint16) * np.uint16(labels) + found
    counted = np.bincount(pairs.ravel(), minlength=labels * labels)
    return counted[: labels * labels].reshape(labels, labels)


def intersections_and_unions(
    counted: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``[labels]`` each, of a confusion matrix: TP, and TP + FP + FN."""
    right = np.diagonal(counted).copy()
    return right, counted.sum(0) + counted.sum(1) - right


def binary(counted: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[2, 2]``: the same with all classes as one foreground, for FB-IoU."""
    scene, rows, columns = counted[0, 0], counted[0].sum(), counted[:, 0].sum()
    total = counted.sum()
    return np.array([[scene, rows - scene], [columns - scene, total - rows - columns + scene]])


@dataclass(frozen=True)
class Cells:
    """Where each entry (one class in one episode) is summed: by group and by class in it.

    A group is a run of a protocol, or a data set. cell: ``[E]``, the sum that an entry belongs to;
    group: ``[cells]``, the number of the group that a sum belongs to.
    """

    names: tuple[tuple[Hashable, int], ...]
    cell: NDArray[np.intp]
    group: NDArray[np.intp]

    @classmethod
    def of(cls, groups: Sequence[Hashable], classes: Sequence[int]) -> Cells:
        names: dict[tuple[Hashable, int], int] = {}
        pairs = zip(groups, classes, strict=True)
        cell = np.array([names.setdefault(pair, len(names)) for pair in pairs], np.intp)
        numbers: dict[Hashable, int] = {}
        group = np.array([numbers.setdefault(g, len(numbers)) for g, _ in names], np.intp)
        return cls(tuple(names), cell, group)

    def iou(
        self,
        intersections: NDArray[np.int64],
        unions: NDArray[np.int64],
        weights: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """``[cells]`` summed intersection over summed union; NaN where the union is empty.

        Args:
            weights: ``[E]`` how often each entry counts (for the bootstrap); once if None.
        """
        count = len(self.names)
        if weights is None:
            weights = np.ones(len(self.cell))
        above = np.bincount(self.cell, intersections * weights, count)
        below = np.bincount(self.cell, unions * weights, count)
        return np.divide(above, below, out=np.full(count, np.nan), where=below > 0)

    def by_group(self, iou: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[groups]``: the mean over each group's classes, those without a union left out."""
        some = ~np.isnan(iou)
        count = int(self.group.max(initial=-1)) + 1
        number = np.bincount(self.group[some], minlength=count)
        total = np.bincount(self.group[some], iou[some], count)
        return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)

    def mean_iou(
        self,
        intersections: NDArray[np.int64],
        unions: NDArray[np.int64],
        weights: NDArray[np.float64] | None = None,
    ) -> float:
        """In percent: the mean over classes, then over groups; NaN where there is nothing."""
        means = self.by_group(self.iou(intersections, unions, weights))
        means = means[~np.isnan(means)]
        return 100 * float(means.mean()) if len(means) else float("nan")


def auroc(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Chance that a picture with the class scores above one without (ties count half)."""
    above = scores[present][:, None] - scores[~present][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def calibration_error(
    scores: NDArray[np.float64], present: NDArray[np.bool_], bins: int = 10
) -> float:
    """Expected calibration error: |share present - mean score| over equal bins, by count."""
    index = np.minimum((scores * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        rows = index == number
        if rows.any():
            error += float(rows.mean()) * abs(
                float(present[rows].mean()) - float(scores[rows].mean())
            )
    return error
