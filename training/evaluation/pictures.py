"""The pictures that are measured on, and what is marked in their supports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.annotations import make, name_of, seed_of
from training.datasets import IGNORE, DataError, Sample
from training.evaluation.protocols import Protocol


def way_labels(
    labels: NDArray[np.uint8], identities: tuple[int, ...], ignore: str
) -> NDArray[np.uint8]:
    """``[H, W]`` 1..N for the classes asked for, 0 elsewhere; 255 stays, or is "background"."""
    table = np.zeros(1 << (8 * labels.dtype.itemsize), np.uint8)
    if ignore == "leave out":
        table[IGNORE] = IGNORE
    table[list(identities)] = np.arange(1, len(identities) + 1)
    return table[labels]


def mark(
    kind: str, sample: Sample, labels: NDArray[np.uint8], identity: int, protocol: Protocol
) -> object:
    """What the support is labelled with, for `Segmenter.prepare`; the same for the same picture
    and class. kind: one of `training.annotations.KINDS`.

    Raises:
        DataError: the mask does not show the class, or its objects are not known.
    """
    mask = way_labels(labels, (identity,), protocol.support_ignore)
    if not (mask == 1).any():
        raise DataError(
            f"{sample.mask}: expected class {identity}, which the index says it shows, got no "
            "pixel. Mend the index; `python -m training.datasets check` finds all such masks.",
            sample.mask,
            "index",
        )
    objects = None
    if kind in ("box-largest", "box-random"):
        objects = sample.instances(identity)
        if not objects:  # a component's box must not stand in a row of instances' boxes
            raise DataError(
                f"{sample.mask}: {kind} needs the objects of class {identity}, and none is known. "
                "Repair the picture's object mask, or ask for box-component.",
                sample.mask,
                "index",
            )
    return make(kind, mask, seed_of(sample.key, identity), objects)


def marked_as(kinds: Sequence[str], samples: Iterable[Sample]) -> list[str]:
    """The kinds; boxes of instances become those of components unless every picture that shows a
    class tells its objects apart."""
    told_apart = all(s.tells_apart for s in samples if s.classes)
    return list(dict.fromkeys(name_of(kind, told_apart) for kind in kinds))


def resized(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels at ``size`` (H, W), by nearest neighbour between centres of pixels, as Pillow and
    PANet do it: OpenCV's plain form is half a pixel beside what bilinear predictions mean."""
    if labels.shape == size:
        return labels
    import cv2

    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
