"""Trainable methods by name; what a method must bring is in training/learner.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from training.base import BaseSettings, set_up_base
from training.datasets import Sample
from training.learner import Setup
from training.oslsm.learner import set_up_oslsm
from training.oslsm.settings import OslsmSettings
from training.paia import Paia, PaiaSettings
from training.panet import Panet, PanetSettings
from training.settings import RunSettings
from training.siamese import SiameseSettings, set_up_siamese
from training.smcp.learner import set_up_smcp
from training.smcp.settings import SmcpSettings
from training.spfl.joint import set_up_spfl
from training.spfl.learner import SpflSettings


class TrainableMethod(NamedTuple):
    """settings: a frozen dataclass.

    setup: from an encoder, the run's settings, the pictures to train on and the folder of latents.
    """

    settings: type
    setup: Callable[[Any, RunSettings[Any], Sequence[Sample], Path | None], Setup]


def _panet(
    encoder: Any,
    settings: RunSettings[PanetSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    return Setup(Panet(encoder, settings.own))


def _paia(
    encoder: Any,
    settings: RunSettings[PaiaSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    return Setup(Paia(encoder, settings.own))


METHODS: dict[str, TrainableMethod] = {
    "base": TrainableMethod(BaseSettings, set_up_base),
    "oslsm": TrainableMethod(OslsmSettings, set_up_oslsm),
    "siamese": TrainableMethod(SiameseSettings, set_up_siamese),
    "panet": TrainableMethod(PanetSettings, _panet),
    "paia": TrainableMethod(PaiaSettings, _paia),
    "smcp": TrainableMethod(SmcpSettings, set_up_smcp),
    "spfl": TrainableMethod(SpflSettings, set_up_spfl),
}
