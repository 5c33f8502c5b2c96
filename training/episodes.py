"""Episodes: a support and a query that show the same class or classes, drawn from several sources.

Three kinds keep an encoder from learning only the classes of one data set:
- ``class``: two pictures of one labelled class;
- ``region``: two views of one picture, the class being one region of an unsupervised
  segmentation (parts, clothes, sky);
- ``scene``: two drawn pictures of one family of marks (training/scenes.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from training.augment import AugmentSettings, random_view
from training.datasets import IGNORE, Sample
from training.resize import fit_to
from training.scenes import draw_pair

View = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class EpisodeSettings:
    """How episodes are drawn: ``kinds`` are relative frequencies of class, region and scene;
    ``several`` is the share of episodes that ask for more than one way, at most ``most_ways``."""

    side: int = 352
    kinds: tuple[float, float, float] = (0.5, 0.2, 0.3)
    several: float = 0.4
    most_ways: int = 8
    least_fraction: float = 0.002
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    region_augment: AugmentSettings = field(
        default_factory=lambda: AugmentSettings(
            crop=(0.5, 1.0), angle=45.0, colour=0.4, grey=0.2, blur=0.3
        )
    )

    def __post_init__(self) -> None:
        if self.side < 64:
            raise ValueError(f"side must be at least 64, got {self.side}")
        if not 0 <= self.several <= 1 or self.most_ways < 1 or not 0 <= self.least_fraction < 1:
            raise ValueError(
                "several, most_ways, least_fraction: expected shares of 1, and 1 way or more, got "
                f"{self.several}, {self.most_ways}, {self.least_fraction}"
            )
        if len(self.kinds) != 3 or min(self.kinds) < 0 or sum(self.kinds) <= 0:
            raise ValueError(f"kinds must be three frequencies, not all zero, got {self.kinds}")


class EpisodeSource:
    """Draws episodes from samples; the same generator state gives the same episode.

    Args:
        samples: labelled pictures; classes are those with two or more pictures, per data set.
        settings: see :class:`EpisodeSettings`.
        auxiliary: pictures of the class that an episode has beside the two, without their masks.
        classes: ids of 254 at most, all of one data set, whose labels come beside the ways; none:
            only the ways.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        settings: EpisodeSettings,
        auxiliary: int = 0,
        classes: Sequence[int] = (),
    ) -> None:
        self.samples, self.settings, self.auxiliary = tuple(samples), settings, auxiliary
        self.numbers: np.ndarray | None = None
        if classes:
            self.numbers = np.full(IGNORE + 1, IGNORE, np.uint8)
            self.numbers[[0, *classes]] = np.arange(1 + len(classes))
        if auxiliary and (max(settings.kinds[1:]) > 0 or settings.several > 0):
            raise ValueError(
                "kinds, several: expected episodes of one class alone, since auxiliary pictures "
                f"are of one class, got {settings.kinds} and {settings.several}. Set them to "
                "[1, 0, 0] and 0."
            )
        showing: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        for sample in self.samples:
            for identity, fraction in sample.classes.items():
                if fraction >= settings.least_fraction:
                    showing[sample.dataset, identity].append(sample)
        self.by_set: dict[str, list[tuple[int, list[Sample]]]] = defaultdict(list)
        for (dataset, identity), members in sorted(showing.items()):
            if len(members) >= 2:
                self.by_set[dataset].append((identity, members))
        if settings.kinds[0] > 0 and not self.by_set:
            raise ValueError(
                "expected a class with two pictures or more, got none; "
                "add pictures or lower least_fraction"
            )

    def _class_pair(self, rng: np.random.Generator) -> list[View]:
        groups = self.by_set[str(rng.choice(sorted(self.by_set)))]
        # between uniform over classes and over pictures: rare classes are seen, but not their few
        # pictures for ever
        chance = np.sqrt([len(members) for _, members in groups])
        identity, members = groups[rng.choice(len(groups), p=chance / chance.sum())]
        drawn = rng.choice(len(members), 2, replace=False)
        pair = [members[index] for index in drawn]
        if self.auxiliary:
            others = [m for index, m in enumerate(members) if index not in drawn]
            shown = [self._view(rng, sample, [identity]) for sample in pair]
            return shown + self._auxiliary_views(rng, identity, others)
        ways = [identity]
        if rng.random() < self.settings.several:
            ways += sorted((set(pair[0].classes) & set(pair[1].classes)) - {identity})
        ways = ways[: self.settings.most_ways]
        return [self._view(rng, sample, ways) for sample in pair]

    def _view(self, rng: np.random.Generator, sample: Sample, ways: Sequence[int]) -> View:
        pixels, labels = sample.read()
        mask = _select(labels, ways)
        if self.numbers is not None:
            mask = np.stack([mask, self.numbers[sample.known_labels(labels)]], -1)
        return random_view(rng, pixels, mask, self.settings.augment)

    def _auxiliary_views(
        self, rng: np.random.Generator, identity: int, members: Sequence[Sample]
    ) -> list[View]:
        """Views that show the class, with masks of 0, and 255 outside of the picture; where a class
        has too few pictures, nothing but outside."""
        count = min(self.auxiliary, len(members))
        views = []
        for index in rng.choice(len(members), count, replace=False) if count else ():
            pixels, labels = members[index].read()
            # the class only says what a crop must show; what is to be ignored is withheld as well
            shown = (labels == identity).astype(np.uint8)
            view, mask = random_view(rng, pixels, shown, self.settings.augment)
            views.append((view, np.where(mask == IGNORE, mask, 0).astype(np.uint8)))
        side = self.settings.side
        nothing = np.zeros((side, side, 3), np.uint8), np.full((side, side), IGNORE, np.uint8)
        return views + [nothing] * (self.auxiliary - count)

    def _region_pair(self, rng: np.random.Generator) -> list[View]:
        pixels, _ = self.samples[rng.integers(len(self.samples))].read()
        small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        regions = felzenszwalb(
            small, scale=float(rng.choice([60, 150, 400])), sigma=0.8, min_size=60
        )
        areas = np.bincount(regions.ravel()) / regions.size
        usable = np.flatnonzero((areas > 0.003) & (areas < 0.35))
        ways = rng.permutation(usable if len(usable) else areas.argmax(keepdims=True))
        ways = ways[: self.settings.most_ways if rng.random() < self.settings.several else 1]
        mask = cv2.resize(
            _select(regions, ways.tolist()), pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
        return [random_view(rng, pixels, mask, self.settings.region_augment) for _ in range(2)]

    def draw(self, rng: np.random.Generator) -> list[View]:
        """Support and query: ``[(pixels [side, side, 3] uint8, mask [side, side] uint8)]``, then
        auxiliary pictures.

        Masks hold 0, ways from 1, and 255; those of auxiliary pictures hold no way. Where classes
        are asked for, masks are ``[2, side, side]``: ways, then classes by their place in the
        list, from 1; 255 is what is unknown, all of it in regions and scenes.
        """
        kind = rng.choice(3, p=np.divide(self.settings.kinds, sum(self.settings.kinds)))
        if kind == 0:
            views = self._class_pair(rng)
        elif kind == 1:
            views = self._region_pair(rng)
        else:
            views = draw_pair(rng, self.settings.side)
            if rng.random() >= self.settings.several:
                views = [(pixels, _select(mask, [1])) for pixels, mask in views]
        views = [fit_to(pixels, mask, self.settings.side) for pixels, mask in views]
        return (
            views if self.numbers is None else [(pixels, _layers(mask)) for pixels, mask in views]
        )


def _layers(mask: np.ndarray) -> np.ndarray:
    """``[2, S, S]`` of ``[S, S, 2]``, or of ways alone, whose classes are then unknown."""
    if mask.ndim == 2:
        return np.stack([mask, np.full_like(mask, IGNORE)])
    return np.ascontiguousarray(mask.transpose(2, 0, 1))


def _select(labels: np.ndarray, ways: Sequence[int]) -> np.ndarray:
    """Renumber ``ways`` to 1, 2, ...; 255 of uint8 labels stays ignored, all else is background."""
    mask = np.zeros(labels.shape, np.uint8)
    for number, way in enumerate(ways, 1):
        mask[labels == way] = number
    if labels.dtype == np.uint8:
        mask[labels == IGNORE] = IGNORE
    return mask
