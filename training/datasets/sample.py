"""A picture with its class mask, and what is said when one of them cannot be read."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IGNORE = 255
# terms that rule a picture out of shipped checkpoints, in full or as Creative Commons shortens them
RESTRICTED = re.compile(r"non-?commercial|no-?deriv|\b(nc|nd)\b", re.IGNORECASE)
# what Pillow raises for broken files, by format and by place of the damage
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a set. kind: a word of :data:`training.datasets.check.KINDS`; where: the
    key of a picture, or the name of a class or file."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class DataError(ValueError):
    """A file of a data set that cannot be used; the text names the file and the remedy.

    Attributes:
        file: its path.
        kind: as in :class:`Problem`.
    """

    def __init__(self, message: str, file: Path | str = "", kind: str = "unreadable") -> None:
        super().__init__(message)
        self.file, self.kind = str(file), kind


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file that is not there or not whole."""
    if isinstance(error, FileNotFoundError):
        text = f"{file}: no such file. Restore it, or take it off the list."
        return DataError(text, file, "missing")
    reason = str(error) or type(error).__name__
    return DataError(
        f"{file}: cannot be read ({reason}). Fetch or make the file again; "
        "`python -m training.datasets check` finds all such files.",
        file,
    )


def read_picture(file: Path) -> np.ndarray:
    """``[H, W, 3] uint8`` RGB, as stored: masks of the known sets ignore the EXIF turn, too.

    Raises:
        DataError: the file is missing, cut off, or no picture.
    """
    try:
        with Image.open(file) as opened:
            return np.asarray(opened.convert("RGB"))
    except _BROKEN as error:
        raise unreadable(file, error) from error


def read_mask(file: Path) -> np.ndarray:
    """``[H, W] uint8``: the values of an 8-bit palette, grey or 1-bit picture.

    Raises:
        DataError: the file is missing, cut off, or of another kind, such as RGB.
    """
    try:
        with Image.open(file) as opened:
            mode = opened.mode
            values = np.asarray(opened) if mode in ("P", "L", "1") else None
    except _BROKEN as error:
        raise unreadable(file, error) from error
    if values is None:
        raise DataError(
            f"{file}: expected an 8-bit palette or grey mask whose values are class ids, got "
            f"{mode}. Store the ids (0, 1, ..., 255 for ignore) instead of colours.",
            file,
            "mode",
        )
    return values.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Sample:
    """One picture of a data set; ``classes``: class id -> fraction of the picture it covers."""

    dataset: str
    image: Path
    mask: Path
    split: str
    classes: dict[int, float]
    source: str
    licence: str | None  # of the picture; of its set where that states none by picture

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.image.stem}"

    @property
    def restricted(self) -> bool:
        """Marked NonCommercial or NoDerivs: for measuring, not for training what is shipped."""
        return self.licence is not None and RESTRICTED.search(self.licence) is not None

    @property
    def tells_apart(self) -> bool:
        """Whether :meth:`instances` knows the objects of this picture; no file is read."""
        return False

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """``([H, W, 3] uint8 RGB, [H, W] class ids)``.

        Ids are uint8, 255 being ignore; uint16 in a set of more than 254 classes, of which none
        has the id 255.

        Raises:
            DataError: a file cannot be read, or the two differ in size; the text names it.
        """
        pixels, labels = read_picture(self.image), self.read_labels()
        if labels.shape != pixels.shape[:2]:
            raise DataError(
                f"{self.mask}: expected a [H, W] mask of the picture's size {pixels.shape[:2]}, "
                f"got {labels.shape}. Redraw the mask at the picture's own size.",
                self.mask,
                "size",
            )
        return pixels, labels

    def read_labels(self) -> np.ndarray:
        """``[H, W]`` class ids alone; raises as :meth:`read` does."""
        return read_mask(self.mask)

    def known_labels(self, labels: np.ndarray) -> np.ndarray:
        """``[H, W]`` class ids for who learns to tell all classes apart, from those of
        :meth:`read`: what a fold shows as background, without its being that, is to be ignored."""
        return labels

    def instances(self, identity: int) -> list[np.ndarray] | None:
        """``[H, W] bool`` for each object of class ``identity``; None where the set or picture does
        not tell objects apart."""
        return None


def fractions(labels: np.ndarray) -> dict[int, float]:
    """Class id -> fraction of the picture; neither background nor ignored pixels."""
    counts = np.bincount(labels.ravel())
    return {
        int(k): float(counts[k] / labels.size)
        for k in np.flatnonzero(counts)
        if k not in (0, IGNORE)
    }
