"""What can be set of the method paia."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError
from ..ops.fusion import MOST_HIDDEN, STATISTICS
from .panet import PanetSettings
from .settings import check_range

__all__ = ["PaiaSettings", "PaiaThreshold"]


def _panet() -> PanetSettings:
    return PanetSettings(background="pool-of-pixels")


@dataclass(frozen=True)
class PaiaThreshold:
    """The network of eq. 4: ``output_weight . tanh(hidden_weight . x + hidden_bias) +
    output_bias`` for the five statistics x of a class. hidden_weight: H rows of 5 numbers;
    hidden_bias, output_weight: H numbers."""

    hidden_weight: tuple[tuple[float, ...], ...]
    hidden_bias: tuple[float, ...]
    output_weight: tuple[float, ...]
    output_bias: float

    def __post_init__(self) -> None:
        units = len(self.hidden_weight)
        check_range("threshold.hidden_weight, rows", units, 1, MOST_HIDDEN)
        for row in self.hidden_weight:
            _check("hidden_weight, row", row, STATISTICS)
        _check("hidden_bias", self.hidden_bias, units)
        _check("output_weight", self.output_weight, units)
        _check("output_bias", (self.output_bias,), 1)


@dataclass(frozen=True)
class PaiaSettings:
    """panet: of the prototypes that it starts from. steps: of the fusion with the auxiliary
    pictures, in `prepare`. query_steps: of the fusion with a query itself; 0 leaves that out.

    distilled: only cells nearer to their prototype than the threshold count (eq. 5); False takes
    every cell of the class (eq. 3). threshold: the network of eq. 4, which gives the threshold in
    units of the mean distance; without one it is `radius` for every class.

    The defaults are for encoders that were not trained with fusion: further steps, and the query,
    need one that was (docs/methods.md)."""

    panet: PanetSettings = field(default_factory=_panet)
    steps: int = 1
    query_steps: int = 0
    distilled: bool = True
    radius: float = 0.8
    threshold: PaiaThreshold | None = None

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 0, 100)
        check_range("query_steps", self.query_steps, 0, 100)
        check_range("radius", self.radius, 0.0, 1000.0)


def _check(name: str, values: tuple[float, ...], count: int) -> None:
    if len(values) != count:
        raise InputError(
            f"threshold.{name}",
            expected=f"{count} numbers",
            got=str(len(values)),
            remedy="Export the network as it was trained.",
        )
    for value in values:
        check_range(f"threshold.{name}", value, -1e9, 1e9)
