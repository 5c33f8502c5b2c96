"""Which classes are novel in which fold, and which pictures may be trained on.

PASCAL-5i (Shaban et al., BMVC 2017): fold i holds VOC's classes 5i+1 to 5i+5. COCO-20i exists
twice: contiguous (PANet, MLC) and interleaved (HSNet, PFENet). They are different tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from training.datasets.sample import IGNORE, Sample

SPLITS = ("pascal-5i", "coco-20i-contiguous", "coco-20i-interleaved")


@dataclass(frozen=True)
class Fold:
    """One fold of a split: class ids that are trained on, and those that are not."""

    split: str
    number: int
    base: tuple[int, ...]
    novel: tuple[int, ...]

    def __post_init__(self) -> None:
        if both := sorted(set(self.base) & set(self.novel)):
            raise ValueError(f"base, novel: expected no class in both, got {both}")

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

    def usable(self, samples: Sequence[Sample], shots: int = 1) -> tuple[int, ...]:
        """The novel classes with more than ``shots`` pictures: a query and its supports differ."""
        if shots < 1:
            raise ValueError(f"shots: expected 1 or more, got {shots}")
        pictures = Counter(k for sample in samples for k in sample.classes)
        return tuple(k for k in self.novel if pictures[k] > shots)

    def hide_novel(self, labels: np.ndarray, label: int = 0) -> np.ndarray:
        """``[H, W] uint8`` with novel pixels as ``label``: 0 (background) or 255 (ignored)."""
        if label not in (0, IGNORE):
            raise ValueError(f"label: expected 0 (background) or {IGNORE} (ignore), got {label}")
        return np.where(np.isin(labels, self.novel), np.uint8(label), labels)


@dataclass(frozen=True)
class BaseOnly(Sample):
    """A picture as a fold's training sees it: its novel classes are unknown, and their pixels
    ``label``."""

    inner: Sample
    fold: Fold
    label: int

    @classmethod
    def of(cls, sample: Sample, fold: Fold, label: int = 0) -> BaseOnly:
        own = {f.name: getattr(sample, f.name) for f in fields(Sample)}
        own["classes"] = {c: f for c, f in sample.classes.items() if c in fold.base}
        return cls(**own, inner=sample, fold=fold, label=label)

    @property
    def key(self) -> str:
        return self.inner.key

    @property
    def tells_apart(self) -> bool:
        return self.inner.tells_apart

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = self.inner.read()
        return pixels, self.fold.hide_novel(labels, self.label)

    def read_labels(self) -> np.ndarray:
        return self.fold.hide_novel(self.inner.read_labels(), self.label)

    def known_labels(self, labels: np.ndarray) -> np.ndarray:
        if self.label == IGNORE or not self.fold.shows_novel(self.inner):
            return labels
        return self.fold.hide_novel(self.inner.read_labels(), IGNORE)

    def instances(self, identity: int) -> list[np.ndarray] | None:
        return None if identity in self.fold.novel else self.inner.instances(identity)


def classes_of(names: Sequence[str]) -> str | None:
    """Whose classes a set has, by their names: ``"pascal-5i"``, ``"coco-20i"`` or neither's."""
    if len(names) == 21 and names[1] == "aeroplane" and names[12] == "dog":
        return "pascal-5i"
    if len(names) == 81 and names[1] == "person" and names[80] == "toothbrush":
        return "coco-20i"
    return None


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


def fold_by_split(samples: Sequence[Sample]) -> Fold:
    """The one fold of a set that is split by class, such as FSS-1000: base classes are those of
    pictures split "train", novel ones those of pictures split "test".

    Raises:
        ValueError: no class of one kind, or a class of both.
    """
    shown = {
        split: {k for s in samples if s.split == split for k in s.classes}
        for split in ("train", "test")
    }
    if not all(shown.values()):
        raise ValueError(
            "samples: expected pictures split 'train' and 'test', got "
            f"{sorted({s.split for s in samples})}. Sets without a test split have folds: fold_of."
        )
    return Fold("by-split", 0, tuple(sorted(shown["train"])), tuple(sorted(shown["test"])))
