"""What a model says of its training: by which seed, and on which classes it must not be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Doubt(NamedTuple):
    """Why a figure may not be one on new classes; refused: it certainly is none, though the model
    was trained for some fold, so that a mistake is likely."""

    text: str
    refused: bool


def trained(header: Mapping[str, Any]) -> dict[str, Any]:
    """split, fold, novel, seed and iteration of a checkpoint's header or a bundle's provenance;
    None where it does not say, "drop" for novel, as settings have it."""
    settings = header.get("settings") or {}
    data, trainer = settings.get("data") or {}, settings.get("trainer") or {}
    return {
        "split": data.get("split"),
        "fold": data.get("fold"),
        "novel": data.get("novel", "drop"),
        "seed": trainer.get("seed", settings.get("seed")),
        "iteration": header.get("iteration"),
        "sets": sorted(header.get("pictures") or {}),
    }


def unfit(
    facts: Mapping[str, Any], data: str, split: str, fold: int, which: str = "all"
) -> Doubt | None:
    """What is wrong with a figure of this fold, or None.

    Args:
        facts: of the model; "trained" as `trained` gives it.
        which: of the pool's pictures, see `Pool`. Training takes those of split "train" alone.
    """
    known = facts.get("trained") or {}
    sets, own, number = known.get("sets") or (), str(known.get("split")), known.get("fold")
    seen = f"the model was trained for fold {number} of {own}, so it has seen classes of"
    if number is None:
        if data not in sets:
            return _elsewhere(sets, data) if sets else None
        text = f"the model was trained on {data} without a fold, so it has seen the classes asked"
        return Doubt(f"{text}: these are no figures on new classes", False)
    if own == split and number == fold:
        novel = known.get("novel", "drop")
        if novel == "drop" or which == "val":
            return None
        kept = f"the model was trained on pictures that show novel classes (novel = {novel!r})"
        if data not in sets:
            return Doubt(f"{kept}; whether some are of {data} is unknown", False)
        return Doubt(
            f"{kept}, and those of split train are in the test pool. Measure with --pool val, or "
            "train with novel = 'drop'",
            True,
        )
    both_coco = own.startswith("coco-20i") and split.startswith("coco-20i")
    if own == split or both_coco or data in sets:
        return Doubt(
            f"{seen} fold {fold} of {split}. Give a model for each fold, with {{fold}} in the path",
            True,
        )
    return _elsewhere(sets or (f"fold {number} of {own}",), data)


def _elsewhere(sets: Sequence[str], data: str) -> Doubt:
    where = ", ".join(sets)
    text = f"the model was trained on {where}; which classes of {data} it has seen there is unknown"
    return Doubt(text, False)
