"""The regions of many pictures, kept in a folder that folds and encoders can share."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fsseg_sdk.methods.settings import settings_to_json
from training.datasets import DataError, Sample
from training.datasets.cache import each
from training.files import write_whole
from training.spfl.regions import RegionSettings, higra, segment
from training.tables import differences

RECORD = "regions.json"


def refuse_other(file: Path, record: dict[str, Any], option: str) -> None:
    """Write ``record`` to ``file``, or check that it says the same.

    Raises:
        ValueError: it says something else; the text names what differs.
    """
    if not file.is_file():
        write_whole(file, json.dumps(record, indent=1))
        return
    try:
        known = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"{file}: expected JSON, got a file that does not parse. Delete {file.parent}."
        ) from error
    if found := differences(known, json.loads(json.dumps(record))):
        raise ValueError(
            f"{file.parent}: was made with other settings: {'; '.join(found)}. Take those, or "
            f"name another folder with {option}."
        )


@dataclass(frozen=True)
class RegionMaps:
    """One PNG a picture, which names the pixels that it was made from."""

    folder: Path
    settings: RegionSettings

    @classmethod
    def open(cls, folder: Path, settings: RegionSettings) -> RegionMaps:
        """
        Raises:
            ValueError: the folder was made with other settings, or by another version of higra.
            ModuleNotFoundError: higra is not installed.
        """
        refuse_other(folder / RECORD, record_of(settings), "--regions")
        return cls(folder, settings)

    def make(self, samples: Sequence[Sample], workers: int = 0) -> int:
        """Segment the pictures that have no regions yet; returns how many those were."""
        missing = [sample for sample in samples if not self.file(sample.key).is_file()]
        made = list(each(self._make, missing, "regions", workers))
        return sum(made)

    def of(self, key: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """``[H, W] uint16`` region numbers: as kept, or made now where those are of other pixels
        or broken."""
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        kept = _read(self.file(key), digest)
        if kept is not None and kept.shape == pixels.shape[:2]:
            return kept
        regions = segment(pixels, self.settings)
        described, buffer = PngInfo(), io.BytesIO()
        described.add_text("pixels", digest)
        Image.fromarray(regions).save(buffer, "PNG", pnginfo=described)
        write_whole(self.file(key), buffer.getvalue())
        return regions

    def file(self, key: str) -> Path:
        return self.folder / f"{key}.png"

    def _make(self, sample: Sample) -> bool:
        try:
            self.of(sample.key, sample.read()[0])
        except DataError:
            return False  # who needs the picture says so, or is to skip it
        return True


def record_of(settings: RegionSettings) -> dict[str, Any]:
    """What regions depend on.

    Raises:
        ModuleNotFoundError: higra is not installed.
    """
    higra()
    version = importlib.metadata.version("higra")
    return {"format": "fsseg-regions", "higra": version, "settings": settings_to_json(settings)}


def _read(file: Path, digest: str) -> NDArray[np.uint16] | None:
    try:
        with Image.open(file) as opened:
            return np.asarray(opened).astype(np.uint16) if opened.info["pixels"] == digest else None
    except (OSError, ValueError, SyntaxError, KeyError):
        return None
