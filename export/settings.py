"""What is asked of an export: of a checkpoint as a bundle, and of a bundle in other precisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.quantize import FLAVOURS, Flavour

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class ExportError(Exception):
    """The bundle was not written; the message says what disagreed."""


@dataclass(frozen=True)
class ExportSettings:
    """What the bundle is called and how it sees pictures.

    input_size: (height, width) of the encoder's input. storage: of the weights in the file; they
    are computed with in float32. card: JSON file of provenance to add to what the checkpoint says
    of itself.
    """

    name: str
    input_size: tuple[int, int] = (448, 448)
    geometry: Literal["squash", "fit"] = "squash"
    storage: Literal["float16", "float32"] = "float16"
    card: Path | None = None

    def __post_init__(self) -> None:
        if min(self.input_size) < 64:
            raise ValueError(f"input_size: expected 64 pixels or more, got {self.input_size}")


class PrecisionError(Exception):
    """The bundle was not written; the message says what disagreed, and by how much."""


@dataclass(frozen=True)
class PrecisionSettings:
    """precisions: of `PRECISIONS`, those of the new bundle, each once. flavours: of int8.

    calibration: folder of pictures for int8, None for those of the examples. episodes: a labelled
    set on which int8's loss is measured, or a folder of such sets; None draws pictures. most_loss:
    points of mean-IoU that int8 may lose; layers stay in float32 until it loses
    less by a standard error. queries: of each labelled set, at most. one: the encoder takes one
    picture a call instead of any number. name: of the new bundle.
    """

    precisions: tuple[str, ...]
    flavours: tuple[Flavour, ...] = FLAVOURS
    calibration: Path | None = None
    episodes: Path | None = None
    most_loss: float = 0.5
    queries: int = 300
    one: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for what, given, known in (
            ("precisions", self.precisions, PRECISIONS),
            ("flavours", self.flavours, FLAVOURS),
        ):
            unknown = [str(each) for each in given if each not in known]
            if not given or unknown or len(set(given)) != len(given):
                raise ValueError(
                    f"{what}: expected some of {', '.join(known)}, each once, "
                    f"got {', '.join(map(str, given)) or 'none'}"
                )
        if not self.most_loss > 0:
            raise ValueError(f"most_loss: expected points above 0, got {self.most_loss}")
        if self.queries < 1:
            raise ValueError(f"queries: expected 1 or more, got {self.queries}")
