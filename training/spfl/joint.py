"""From a run's settings to what SPFL trains with: the learner, extra pictures, their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.datasets import Sample
from training.learner import Setup, Share
from training.settings import RunSettings
from training.spfl.latents import Latents
from training.spfl.learner import Spfl, SpflSettings
from training.spfl.stream import LatentSource
from training.tables import differences


def latents_folder(settings: RunSettings[SpflSettings], root: Path | None) -> Path:
    """The folder that ``spfl.latents`` means: below ``root``, ``{fold}`` being the run's fold."""
    name = settings.own.latents or ""
    if "{fold}" in name and settings.data.fold is None:
        raise ValueError(
            f"spfl.latents: expected a name without {{fold}} in a run without one, got {name!r}. "
            "Set data.fold, or name the folder."
        )
    return (root or Path()) / name.replace("{fold}", str(settings.data.fold))


def set_up_spfl(
    encoder: Any,
    settings: RunSettings[SpflSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    """The learner and its extra pictures, which are those of ``samples``.

    Raises:
        FileNotFoundError, ValueError: the latents are not there, or not of these pictures, or have
            other levels than gamma has weights.
    """
    own = settings.own
    if not own.levels:
        return Setup(Spfl(encoder, own))
    folder = latents_folder(settings, latents_root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"spfl.latents: expected a folder {folder}. Name its folder with --latents-root, or "
            "make it: `python -m training latents`."
        )
    latents = Latents.open(folder)
    data = settings.data
    made = {name: latents.settings.get("data", {}).get(name) for name in ("split", "fold")}
    if changed := differences(made, {"split": data.split, "fold": data.fold}):
        raise ValueError(
            f"spfl.latents: expected labels by an encoder of the run's fold, got those of {folder} "
            f"({'; '.join(changed)}). It may have been trained on novel classes; name others."
        )
    if len(own.gamma) != len(latents.levels):
        raise ValueError(
            f"spfl.gamma: expected {len(latents.levels)} weights, one for each level of {folder}, "
            f"got {len(own.gamma)}. 0 switches a level off."
        )
    known = [sample for sample in samples if sample.key in latents.pictures]
    if len(known) < len(samples) and not (known and data.skip_unreadable):
        lost = next(sample.key for sample in samples if sample.key not in latents.pictures)
        raise ValueError(
            f"spfl.latents: expected labels of all {len(samples)} pictures to train on in {folder},"
            f" got those of {len(known)}; {lost} has none. Make latents with the data settings of "
            "this run."
        )
    source = LatentSource(known, latents, settings.episodes.side, own.views)
    return Setup(
        Spfl(encoder, own, latents.classes),
        (Share(source, own.extra, "spfl.extra"),),
        {"latents": {"digest": latents.digest, "levels": [list(pair) for pair in latents.levels]}},
    )
