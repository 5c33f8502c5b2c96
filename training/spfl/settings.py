"""What latents depend on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from fsseg_sdk.methods.settings import settings_from_json
from training.settings import DataSettings
from training.spfl.regions import RegionSettings

Precision = Literal["fp32", "bf16", "fp16"]
Novel = Literal["drop", "background", "ignore"]


@dataclass(frozen=True)
class LatentSettings:
    """levels: prototypes of the foreground and of the background, fine to coarse.

    normalise: scale vectors to unit length before they are clustered.
    least: the share of the picture that an object or region has at least.
    side, precision: of the encoder's input and arithmetic; None: as it was trained.
    novel: what pictures that show a novel class do; None: as the encoder was trained.
    """

    levels: tuple[tuple[int, int], ...] = ((50, 50), (25, 25), (15, 15))
    normalise: bool = False
    least: float = 0.003
    seed: int = 0
    restarts: int = 4
    side: int | None = None
    precision: Precision | None = None
    novel: Novel | None = None
    regions: RegionSettings = field(default_factory=RegionSettings)

    def __post_init__(self) -> None:
        for kind in zip(*self.levels, strict=True):
            if min(kind) < 1 or any(b >= a for a, b in pairwise(kind)):
                raise ValueError(f"levels: expected fewer clusters at each level, got {kind}")
        if not self.levels or max(map(sum, self.levels)) > 255:
            raise ValueError(f"levels: expected 1 to 255 labels a level, got {self.levels}")
        if not 0 <= self.least < 1:
            raise ValueError(f"least: expected a share in [0, 1), got {self.least}")
        if self.restarts < 1:
            raise ValueError(f"restarts: expected 1 or more, got {self.restarts}")


def data_of(header: dict[str, Any], checkpoint: Path, novel: Novel | None) -> DataSettings:
    """The pictures that an encoder was trained on.

    Raises:
        ValueError: the checkpoint's header does not say.
    """
    try:
        kept = settings_from_json(DataSettings, header["settings"]["data"], "data")
    except KeyError as error:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint whose header has the run's settings, got one "
            "without. Train one with `python -m training panet`."
        ) from error
    if novel is not None and kept.fold is None:
        raise ValueError("novel: the checkpoint was not trained on a fold. Leave the option out.")
    return kept if novel is None else replace(kept, novel=novel)


def completed(
    settings: LatentSettings, data: DataSettings, header: dict[str, Any], multiple: int
) -> LatentSettings:
    """Settings with the checkpoint's own where they say None.

    Raises:
        ValueError: the encoder cannot take that side.
    """
    run = header["settings"]
    side = settings.side or int(run["episodes"]["side"])
    if side < 1 or side % multiple:
        raise ValueError(f"side: expected a multiple of {multiple}, got {side}. Name another.")
    precision = settings.precision or run["trainer"]["precision"]
    return replace(settings, side=side, precision=precision, novel=data.novel)
