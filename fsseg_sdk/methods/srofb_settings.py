"""What can be set of the method srofb. The paper's figures are the defaults where it states any."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .panet import PanetSettings
from .settings import check_range

__all__ = ["BUDGET", "SrofbFastSettings", "SrofbSettings"]

BUDGET = (
    "iterations",
    "iterations_of_five",
    "precision",
    "warm_start",
    "warm_iterations",
    "support_cells",
    "query_cells",
)
"""The settings that say how much is computed: in these srofb and srofb-fast differ."""


@dataclass(frozen=True)
class SrofbSettings:
    """panet: of the match that comes first. temperature: factor on its cosines before the softmax.
    foreground_threshold, background_threshold: from where on a cell of the query is sure.
    fallback: without a cell that is surely of a class, leave the match as it is, or take the
    `top_k` likeliest of each class. query_weight: of a sure cell of the query, where a cell of the
    support counts 1; 0 trains on the support alone.

    hidden, dropout: of the network. length: to which a cell's features are scaled; 0 leaves them.
    iterations: full-batch steps with one shot a class; iterations_of_five: with five or more,
    evenly between. balance: every class weighs the same, or every cell. precision: of the
    products, float32, or bfloat16 summed in float32.

    match_share: of the first match in the final scores, at the same temperature; 0 takes the
    network alone, as the paper does, 1 the match. Half and half is safer where an encoder meets
    pictures unlike those it was trained on.

    warm_start: start from a network trained on the support alone for `warm_iterations`.
    support_cells, query_cells: most cells of a shot, and of the query, to train on; 0: all."""

    panet: PanetSettings = field(default_factory=PanetSettings)
    temperature: float = 20.0
    foreground_threshold: float = 0.7
    background_threshold: float = 0.6
    fallback: Literal["unrefined", "top_k"] = "unrefined"
    top_k: int = 12
    query_weight: float = 1.0
    hidden: int = 300
    dropout: float = 0.0
    length: float = 8.0
    iterations: int = 10
    iterations_of_five: int = 10
    learning_rate: float = 0.1
    momentum: float = 0.0
    balance: Literal["class", "cell"] = "class"
    precision: Literal["fp32", "bf16"] = "fp32"
    match_share: float = 0.5
    warm_start: bool = False
    warm_iterations: int = 10
    support_cells: int = 0
    query_cells: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0.1, 1000.0)
        check_range("foreground_threshold", self.foreground_threshold, 0.0, 1.0)
        check_range("background_threshold", self.background_threshold, 0.0, 1.0)
        check_range("top_k", self.top_k, 1, 1 << 16)
        check_range("query_weight", self.query_weight, 0.0, 1000.0)
        check_range("hidden", self.hidden, 1, 4096)
        check_range("dropout", self.dropout, 0.0, 0.95)
        check_range("length", self.length, 0.0, 1e3)
        for name in ("iterations", "iterations_of_five", "warm_iterations"):
            check_range(name, getattr(self, name), 1, 10_000)
        check_range("match_share", self.match_share, 0.0, 1.0)
        check_range("learning_rate", self.learning_rate, 0.0, 100.0)
        check_range("momentum", self.momentum, 0.0, 0.999)
        for name in ("support_cells", "query_cells"):
            check_range(name, getattr(self, name), 0, 1 << 20)
        check_range("seed", self.seed, 0, (1 << 32) - 1)

    def iterations_at(self, shots: float) -> int:
        """Steps with that many shots a class."""
        share = min(max((shots - 1) / 4, 0.0), 1.0)
        return round(self.iterations + share * (self.iterations_of_five - self.iterations))


@dataclass(frozen=True)
class SrofbFastSettings(SrofbSettings):
    """The same for a camera: a network trained on the support in `prepare`, and a few steps on a
    few cells for each query."""

    iterations: int = 3
    iterations_of_five: int = 3
    precision: Literal["fp32", "bf16"] = "bf16"
    warm_start: bool = True
    support_cells: int = 128
    query_cells: int = 256
