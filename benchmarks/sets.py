"""The labelled pictures that accuracy is measured on: which folders, and which pictures of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets import Dataset, Sample
from training.evaluation import Episode, ProtocolSettings, list_episodes

HELD_OUT = ("clothing_ccp", "carrot_weed", "magnetic_tile", "camvid")
SEEN = ("voc2012", "coco")
"""Sets that the shipped encoder is trained on; only their pictures split "val" count."""


@dataclass(frozen=True)
class LabelledSet:
    """samples: the pictures that count. seen: an encoder that is measured was trained on other
    pictures of this set."""

    name: str
    seen: bool
    samples: tuple[Sample, ...]

    @property
    def title(self) -> str:
        return f"{self.name} val (classes seen in training)" if self.seen else self.name

    def episodes(self, settings: ProtocolSettings) -> list[Episode]:
        """1-shot episodes; ``settings.pictures`` = 0 asks in every picture that shows a class."""
        least = settings.least_fraction
        usable = [s for s in self.samples if any(f >= least for f in s.classes.values())]
        wanted = ProtocolSettings(
            settings.pictures or len(usable), settings.classes, least, settings.seed
        )
        return list_episodes(usable, wanted)


def open_sets(
    folders: Sequence[Path], root: Path | None, trained_on: Collection[str] = ()
) -> tuple[list[LabelledSet], list[str]]:
    """The sets of these folders and of the known names below ``root``, and a sentence for each that
    is left out. trained_on: sets that an encoder's provenance names."""
    wanted = [*folders]
    if root is not None:
        wanted += [root / name for name in (*HELD_OUT, SEEN[0])]
    sets: list[LabelledSet] = []
    left_out: list[str] = []
    for folder in wanted:
        if not (folder / "index.jsonl").is_file():
            left_out.append(f"{folder.name} is left out: the folder has no index.jsonl.")
            continue
        data = Dataset.open(folder)
        seen = data.name in SEEN or data.name in trained_on
        samples = tuple(s for s in data.samples if s.split == "val" or not seen)
        if samples:
            sets.append(LabelledSet(data.name, seen, samples))
        else:
            left_out.append(f"{data.name} is left out: trained on, and no picture is split 'val'.")
    return sets, left_out
