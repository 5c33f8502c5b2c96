"""The test pictures of a fold, and which classes have enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from training.datasets import Dataset, Fold, Sample
from training.evaluation.protocols import Protocol, fold_for

FEWEST = {"pascal-5i": 16, "coco-20i-contiguous": 16, "coco-20i-interleaved": 16}
"""Pictures that a class needs to be asked for: enough for 15 shots, so that the classes, and what
their mean means, are the same for every K. In other sets two."""

Which = Literal["all", "val"]
WHICH: tuple[Which, ...] = get_args(Which)


@dataclass(frozen=True)
class Pool:
    """The test pictures of a fold under a protocol.

    samples: by key within the set. queries, supports: for each class the sorted keys of pictures
    that show enough of it. left_out: classes with fewer than ``fewest`` pictures, and how many.
    pictures: of the whole set. which: "all" of these, or "val": none of split "train", since those
    may have been trained on.
    """

    data: str
    protocol: Protocol
    fold: Fold
    samples: Mapping[str, Sample]
    queries: Mapping[int, tuple[str, ...]]
    supports: Mapping[int, tuple[str, ...]]
    left_out: Mapping[int, int]
    fewest: int
    pictures: int
    which: Which = "all"

    @classmethod
    def of(
        cls,
        data: Dataset,
        protocol: Protocol,
        number: int,
        fewest: int | None = None,
        which: Which = "all",
    ) -> Pool:
        """The pool of fold ``number``. fewest: by default as `FEWEST` says."""
        fold = fold_for(data, protocol, number)
        fewest = FEWEST.get(fold.split, 2) if fewest is None else fewest
        asked = [s for s in data.samples if which == "all" or s.split != "train"]
        samples = {key_of(s): s for s in fold.test_pool(asked)}
        shown: tuple[dict[int, tuple[str, ...]], ...] = ({}, {})
        for identity in fold.novel:
            for members, least in zip(
                shown, (protocol.least_query, protocol.least_support), strict=True
            ):
                members[identity] = tuple(
                    sorted(
                        key
                        for key, sample in samples.items()
                        if sample.classes.get(identity, -1.0) >= least
                    )
                )
        few = {c: len(s) for c, s in shown[1].items() if len(s) < fewest}
        kept = [{c: s for c, s in members.items() if c not in few} for members in shown]
        pictures = len(data.samples)
        return cls(
            data.name, protocol, fold, samples, kept[0], kept[1], few, fewest, pictures, which
        )

    def lines(self, class_names: Sequence[str]) -> list[str]:
        """What it holds, and what it lacks."""
        few = ", ".join(f"{class_names[c]} ({n})" for c, n in self.left_out.items())
        where = f"fold {self.fold.number}"
        whose = "" if self.which == "all" else " that are not split train"
        lines = [f"{where}: {len(self.samples)} pictures{whose} show a novel class."]
        if few:
            lines.append(f"{where}: left out, with fewer than {self.fewest} pictures: {few}.")
        return lines

    def classes(self, shots: int, ways: int = 1) -> list[int]:
        """Those with more pictures than all shots of an episode take."""
        return [c for c, s in self.supports.items() if len(s) > shots * ways and self.queries[c]]


def key_of(sample: Sample) -> str:
    """The sample's key without its set's name."""
    return sample.key.split("/", 1)[1]
