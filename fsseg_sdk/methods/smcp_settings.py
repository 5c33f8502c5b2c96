"""What can be set of the method smcp. The defaults are what the published code does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .panet import PanetSettings
from .settings import check_range

__all__ = ["SmcpSettings"]


@dataclass(frozen=True)
class SmcpSettings:
    """panet: of the prototypes, and of the match that presence is judged by. passes: of the head
    over a query: 2 with the pseudo-prototype in the second, 1 without.

    guide: whose prototype guides the second pass: the mean of both ("fused"), the query's own
    ("pseudo"), or the support's again ("support": the answer of the first pass). fusion: of the
    mean: each counts a half, or every labelled picture as much as the query ("shots"). With one
    labelled picture a class they are the same.

    pixels_per_cell: side of a cell in the picture on which a class's mask is decided, before it is
    pooled (eq. 6); 8 is the size of the encoder's input at a stride of 8."""

    panet: PanetSettings = field(default_factory=PanetSettings)
    passes: int = 2
    guide: Literal["fused", "support", "pseudo"] = "fused"
    fusion: Literal["half", "shots"] = "half"
    pixels_per_cell: int = 8

    def __post_init__(self) -> None:
        check_range("passes", self.passes, 1, 2)
        check_range("pixels_per_cell", self.pixels_per_cell, 1, 64)
