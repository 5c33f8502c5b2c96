"""What can be set of SMCP's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from training.smcp.head import HeadSettings


@dataclass(frozen=True)
class SmcpSettings:
    """
    head: its form; ``head.pyramid = false`` is the paper's base network.
    multi_class_weight: lambda of eq. 5, of the loss that tells the base classes apart; 0 for none.
    self_prototype: the support must segment itself by its own prototype, through the same head.
    fusion: how the runtime weighs a query's own prototype against those of K labelled pictures; a
        half each, as the published code does with one, or as one more picture, as the paper's text.
    """

    head: HeadSettings = field(default_factory=HeadSettings)
    multi_class_weight: float = 0.1
    self_prototype: bool = True
    fusion: Literal["half", "shots"] = "half"

    def __post_init__(self) -> None:
        if not self.multi_class_weight >= 0:
            raise ValueError(
                f"multi_class_weight: expected 0 or more, got {self.multi_class_weight}"
            )
