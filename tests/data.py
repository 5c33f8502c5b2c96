"""Where larger test data may lie. Tests that need it are skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def data_root() -> Path | None:
    """The folder with labelled data sets: $FSSEG_DATA, or ../shared/data beside the checkout."""
    return _existing("FSSEG_DATA", "data")


def weights_root() -> Path | None:
    """The folder with encoder weights: $FSSEG_WEIGHTS, or ../shared/weights beside the checkout."""
    return _existing("FSSEG_WEIGHTS", "weights")


def _existing(variable: str, name: str) -> Path | None:
    folder = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / name)
    return folder if folder.is_dir() else None
