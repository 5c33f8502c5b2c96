"""What a model says of its training: by which seed, and on which classes it must not be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def trained(header: Mapping[str, Any]) -> dict[str, Any]:
    """split, fold, seed and iteration of a checkpoint's header or a bundle's provenance; None
    where it does not say."""
    settings = header.get("settings") or {}
    data, trainer = settings.get("data") or {}, settings.get("trainer") or {}
    return {
        "split": data.get("split"),
        "fold": data.get("fold"),
        "seed": trainer.get("seed", settings.get("seed")),
        "iteration": header.get("iteration"),
        "sets": sorted(header.get("pictures") or {}),
    }


def unfit(facts: Mapping[str, Any], data: str, split: str, fold: int) -> str | None:
    """Why a figure of this fold would not be one on new classes, or None."""
    known = facts.get("trained") or {}
    if known.get("fold") is not None:
        if (known.get("split"), known.get("fold")) == (split, fold):
            return None
        return (
            f"the model was trained for fold {known['fold']} of {known['split']}, so it has seen "
            f"classes of fold {fold} of {split}"
        )
    if data in (known.get("sets") or ()):
        return f"the model was trained on {data} without a fold, so it has seen the classes asked"
    return None
