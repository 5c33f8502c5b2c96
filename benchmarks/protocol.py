"""What all sections of the accuracy benchmark share: sets, pictures, episodes, memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.sets import LabelledSet
from training.evaluation import Episode, ProtocolSettings


@dataclass(frozen=True)
class Protocol:
    """bundle: path or name. weights: folder of the raw encoders' weights, or None.
    settings: of the episodes; 0 pictures are all. memory: bytes of features to keep.
    mosaics: at most so many a set."""

    bundle: str
    weights: Path | None
    sets: tuple[LabelledSet, ...]
    settings: ProtocolSettings
    threads: int = 1
    memory: int = 4 << 30
    mosaics: int = 10

    @property
    def held_out(self) -> list[LabelledSet]:
        return [s for s in self.sets if not s.seen]

    def episodes(self, seen: bool = True) -> list[Episode]:
        """Of all sets, one after another; the same each time. seen: with those trained on."""
        chosen = self.sets if seen else self.held_out
        return [episode for each in chosen for episode in each.episodes(self.settings)]

    def lines(self) -> list[str]:
        """Which pictures are asked, and for what."""
        s = self.settings
        most = f"at most {s.pictures} of a set, drawn by lot" if s.pictures else "all of them"
        return [
            f"Pictures: those in which some class covers {100 * s.least_fraction:g} % or more, "
            f"{most} (seed {s.seed}). In each, up to {s.classes} such classes are asked for, each "
            "with one other picture of the set that shows it as its only example.",
            "IoU: intersections and unions summed over the episodes of a class, then the mean over "
            "classes, then over sets; at the picture's own size; ignored pixels do not count.",
        ]
