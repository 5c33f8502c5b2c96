"""Which classes are novel in which fold, and which pictures may be trained on.

PASCAL-5i (Shaban et al., BMVC 2017): fold i holds VOC's classes 5i+1 to 5i+5. COCO-20i exists
twice: contiguous (PANet, MLC) and interleaved (HSNet, PFENet). They are different tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.datasets.indexed import IGNORE, Sample

SPLITS = ("pascal-5i", "coco-20i-contiguous", "coco-20i-interleaved")


@dataclass(frozen=True)
class Fold:
    """One fold of a split: class ids that are trained on, and those that are not."""

    split: str
    number: int
    base: tuple[int, ...]
    novel: tuple[int, ...]

    def shows_novel(self, sample: Sample) -> bool:
        return not set(self.novel).isdisjoint(sample.classes)

    def test_pool(self, samples: Sequence[Sample]) -> list[Sample]:
        """All pictures that show a novel class."""
        return [s for s in samples if self.shows_novel(s)]

    def training_pool(self, samples: Sequence[Sample], keep_novel: bool = False) -> list[Sample]:
        """Pictures that show a base class; those that show a novel one, too, only if
        ``keep_novel`` (their novel pixels must then be hidden by :meth:`hide_novel`)."""
        return [
            s
            for s in samples
            if not set(self.base).isdisjoint(s.classes) and (keep_novel or not self.shows_novel(s))
        ]

    def hide_novel(self, labels: np.ndarray, label: int = 0) -> np.ndarray:
        """``[H, W] uint8`` with novel pixels as ``label``: 0 (background) or 255 (ignored)."""
        if label not in (0, IGNORE):
            raise ValueError(f"label: expected 0 (background) or {IGNORE} (ignore), got {label}")
        return np.where(np.isin(labels, self.novel), np.uint8(label), labels)


def fold_of(split: str, number: int) -> Fold:
    """One of the four folds of a split.

    Raises:
        ValueError: no such split, or number is not 0..3.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if number not in range(4):
        raise ValueError(f"fold: expected 0 to 3, got {number!r}")
    if split == "pascal-5i":
        classes, novel = range(1, 21), range(5 * number + 1, 5 * number + 6)
    elif split == "coco-20i-contiguous":
        classes, novel = range(1, 81), range(20 * number + 1, 20 * number + 21)
    else:
        classes, novel = range(1, 81), range(number + 1, 81, 4)
    base = tuple(c for c in classes if c not in novel)
    return Fold(split, number, base, tuple(novel))
