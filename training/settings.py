"""What a run depends on, as frozen dataclasses; written as TOML, stored in checkpoints as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fsseg_sdk.errors import InputError
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json
from training.datasets.folds import fold_of
from training.encoders import encoder_settings
from training.episodes import EpisodeSettings

M = TypeVar("M")


def _at_least(settings: object, least: float, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(
                f"{name}: expected {least:g} or more, got {getattr(settings, name):g}. "
                "Correct the setting."
            )


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder, from which weights, and what of it stays as it is.

    weights: a file below the weights folder, safetensors or torch's; None starts from noise.
    settings: of the encoder's own settings class.
    freeze: names of modules or parameters ("vit.blocks.0") that are not trained.
    """

    name: str = "vit_tiny_detail"
    weights: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSettings:
    """Which pictures are trained on.

    sets: folders below the data folder, of any layout that training/datasets knows.
    split, fold: train on the base classes of a fold; None trains on every class.
    novel: pictures that show a novel class are dropped, or kept with its pixels as background or
        as ignore.
    include_restricted: also pictures marked NonCommercial or NoDerivs; the checkpoint is then
        not for shipping.
    skip_unreadable: leave out pictures that cannot be read, and count them.
    """

    sets: tuple[str, ...] = ()
    split: str | None = None
    fold: int | None = None
    novel: Literal["drop", "background", "ignore"] = "drop"
    include_restricted: bool = False
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if len(set(self.sets)) < len(self.sets):
            raise ValueError(f"sets: expected each once, got {', '.join(self.sets)}")
        if (self.split is None) != (self.fold is None):
            raise ValueError("split, fold: expected both or neither. Name the other one, too.")
        if self.split is not None and self.fold is not None:
            fold_of(self.split, self.fold)


@dataclass(frozen=True)
class OptimizerSettings:
    """pretrained_learning_rate: of the part that started from ImageNet weights; None: the same.
    clip: largest norm of the gradient; 0 leaves it as it is."""

    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    pretrained_learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 1.0

    def __post_init__(self) -> None:
        _at_least(self, 0.0, "learning_rate", "weight_decay", "clip", "momentum")
        if self.pretrained_learning_rate is not None:
            _at_least(self, 0.0, "pretrained_learning_rate")
        if self.momentum >= 1:
            raise ValueError(f"momentum: expected less than 1, got {self.momentum}")


@dataclass(frozen=True)
class ScheduleSettings:
    """Factor on the learning rates over a run of T iterations, after a linear warm-up.

    constant: 1. poly: (1 - t/T)^power. step: x factor at each of ``milestones``, fractions of T.
    cosine: half a cosine from 1 to ``floor``.
    """

    kind: Literal["constant", "poly", "step", "cosine"] = "cosine"
    warmup: int = 100
    power: float = 0.9
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    factor: float = 0.1
    floor: float = 0.02

    def __post_init__(self) -> None:
        _at_least(self, 0.0, "warmup", "power", "factor", "floor")
        if any(not 0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones: expected fractions of the run, got {self.milestones}")


@dataclass(frozen=True)
class TrainerSettings:
    """batch: episodes an iteration, over all processes.

    average: decay of the running average of the weights that is kept and watched; 0 takes the
        weights themselves.
    select: the checkpoint that is kept, by the watched figure (base classes only), or the last.
    watch: episodes of the watched figure; 0 switches it off.
    channels_last: memory layout of convolutions.
    """

    iterations: int = 4000
    batch: int = 2
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    seed: int = 0
    average: float = 0.998
    save_every: int = 500
    watch: int = 60
    select: Literal["best", "last"] = "last"
    channels_last: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch", "save_every")
        _at_least(self, 0, "iterations", "watch", "seed")
        if not 0 <= self.average < 1:
            raise ValueError(f"average: expected a number in [0, 1), got {self.average}")
        if self.select == "best" and not self.watch:
            raise ValueError("select: 'best' needs episodes to watch. Set watch above 0.")


@dataclass(frozen=True)
class RunSettings(Generic[M]):
    """A whole run; ``own`` are the method's settings, in a table named like the method."""

    method: str
    own: M
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    data: DataSettings = field(default_factory=DataSettings)
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)

    def __post_init__(self) -> None:
        if self.data.novel != "drop" and self.episodes.kinds[1] > 0:
            raise ValueError(
                "episodes.kinds: regions of a picture may be parts of novel objects. Set the "
                "second to 0, or data.novel to 'drop'."
            )

    def to_json(self) -> dict[str, Any]:
        """Tables as in a settings file; every field is written out."""
        tables = {name: settings_to_json(getattr(self, name)) for name in _TABLES}
        return tables | {self.method: settings_to_json(self.own)}


_TABLES: dict[str, type] = {
    "encoder": EncoderChoice,
    "data": DataSettings,
    "episodes": EpisodeSettings,
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "trainer": TrainerSettings,
}


def settings_from_tables(
    tables: Mapping[str, Any], method: str, own_type: type[M], where: str = "settings"
) -> RunSettings[M]:
    """Check tables as they stand in a settings file or a checkpoint.

    Raises:
        ValueError: a table or a field is unknown, of the wrong type or out of range; the message
            names it as ``where.table.field``.
    """
    known = {**_TABLES, method: own_type}
    for name, table in tables.items():
        if name not in known or not isinstance(table, Mapping):
            raise ValueError(f"{where}: unknown table [{name}]. Known are {', '.join(known)}.")
    made: dict[str, Any] = {}
    for name, settings_type in known.items():
        try:
            made[name] = settings_from_json(settings_type, tables.get(name, {}), f"{where}.{name}")
        except InputError:
            raise
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from error
    encoder_settings(made["encoder"].name, made["encoder"].settings)  # refuses what is unknown
    return RunSettings(method, made.pop(method), **made)


__all__ = [
    "DataSettings",
    "EncoderChoice",
    "OptimizerSettings",
    "RunSettings",
    "ScheduleSettings",
    "TrainerSettings",
    "settings_from_tables",
]
