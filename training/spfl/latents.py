"""The pseudo labels of every training picture: a folder that `python -m training latents` makes.

``latents.json`` is written last: a folder without it is not finished.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.datasets.sample import read_mask
from training.files import write_whole

FORMAT, VERSION = "fsseg-latents", 1
HEADER = "latents.json"
LABELS = "labels"
UNKNOWN = 255
MAKE = "Make it with `python -m training latents`."


@dataclass(frozen=True)
class Latents:
    """Pseudo labels by picture.

    Attributes:
        levels: foreground and background prototypes of each level, fine to coarse.
        pictures: height and width by the picture's key.
        settings: what the folder was made from and how.
        digest: of the labels of all pictures; the same labels have the same digest.
    """

    folder: Path
    levels: tuple[tuple[int, int], ...]
    pictures: dict[str, tuple[int, int]]
    settings: dict[str, Any]
    digest: str

    @classmethod
    def open(cls, folder: Path | str) -> Latents:
        """Read a folder's header; the labels are read when they are asked for.

        Raises:
            FileNotFoundError: the folder is not there, or not finished.
            ValueError: its header is not one of this version.
        """
        folder = Path(folder)
        file = folder / HEADER
        if not file.is_file():
            begun = "a folder that is not finished" if folder.is_dir() else "nothing there"
            raise FileNotFoundError(f"{file}: expected finished latents, got {begun}. {MAKE}")
        try:
            header = json.loads(file.read_text())
            if (header["format"], header["version"]) != (FORMAT, VERSION):
                raise ValueError(f"{header['format']!r} version {header['version']!r}")
            levels = tuple((int(f), int(b)) for f, b in header["levels"])
            pictures = {str(k): (int(h), int(w)) for k, (h, w) in header["pictures"].items()}
            return cls(folder, levels, pictures, dict(header["settings"]), str(header["digest"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{file}: expected {FORMAT} version {VERSION}, got another file ({error}). {MAKE}"
            ) from error

    @property
    def classes(self) -> tuple[int, ...]:
        """How many labels a level has: foreground ones first, then those of the background."""
        return tuple(sum(level) for level in self.levels)

    def labels(self, key: str) -> NDArray[np.uint8]:
        """``[L, H, W] uint8`` at the picture's own size; 255 where the label is unknown.

        Args:
            key: :attr:`training.datasets.Sample.key`.

        Raises:
            ValueError: the picture is none of these.
            DataError, ValueError: its file is missing or broken.
        """
        if key not in self.pictures:
            raise ValueError(
                f"key: expected one of the {len(self.pictures)} pictures of {self.folder}, got "
                f"{key!r}. Make latents with the data settings of this run."
            )
        return read_labels(label_file(self.folder, key), len(self.levels), self.pictures[key])


def label_file(folder: Path, key: str) -> Path:
    """Where the labels of a picture are kept: all levels in one PNG, one below the other."""
    return folder / LABELS / f"{key}.png"


def write_labels(file: Path, labels: NDArray[np.uint8]) -> None:
    """Write ``[L, H, W] uint8``, whole or not at all."""
    levels, height, width = labels.shape
    done, png = cv2.imencode(".png", labels.reshape(levels * height, width))
    if not done:
        raise OSError(f"{file}: could not be written as PNG")
    write_whole(file, png.tobytes())


def read_labels(file: Path, levels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """``[L, H, W] uint8``.

    Raises:
        DataError: the file is missing or no PNG.
        ValueError: it is of another size; the text names it.
    """
    stacked = read_mask(file)
    expected = (levels * size[0], size[1])
    if stacked.shape != expected:
        raise ValueError(
            f"{file}: expected {levels} levels of {size}, which are {expected}, got "
            f"{stacked.shape}. Delete the file and make the latents again."
        )
    return stacked.reshape(levels, *size)


def write_header(
    folder: Path,
    levels: tuple[tuple[int, int], ...],
    pictures: dict[str, tuple[int, int]],
    settings: dict[str, Any],
) -> Latents:
    """Read all labels once, for the digest, and call the folder finished."""
    digest = hashlib.sha256()
    for key, size in sorted(pictures.items()):
        digest.update(f"{key} {size}\n".encode())
        digest.update(read_labels(label_file(folder, key), len(levels), size).tobytes())
    header = {
        "format": FORMAT,
        "version": VERSION,
        "levels": levels,
        "digest": digest.hexdigest(),
        "settings": settings,
        "pictures": pictures,
    }
    write_whole(folder / HEADER, json.dumps(header, indent=1))
    return Latents.open(folder)
