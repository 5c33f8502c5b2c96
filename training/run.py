"""One training run: from a settings file and folders to a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from training.batches import StepStream, whole
from training.datasets import IGNORE, Sample, SkipLog, open_dataset
from training.datasets.folds import BaseOnly, classes_of, fold_of
from training.encoders import build_encoder, load_backbone, read_weights
from training.episodes import EpisodeSettings, EpisodeSource
from training.learner import Share
from training.methods import METHODS
from training.processes import Processes
from training.runfolder import SKIPPED, refuse_a_run
from training.settings import DataSettings, EncoderChoice, RunSettings, settings_from_tables
from training.trainer import Trainer


def settings_of(method: str, tables: dict[str, Any], where: str) -> RunSettings[Any]:
    """Settings of a run of this method; see :func:`training.settings.settings_from_tables`."""
    return settings_from_tables(tables, method, METHODS[method].settings, where)


def open_samples(
    settings: DataSettings, root: Path, workers: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Pictures to train on and pictures to watch.

    What is split neither "train" nor "test" is watched, and so are pictures whose terms keep them
    from a checkpoint that is shipped. In a fold, watched pictures show base classes only: the
    novel ones are the test, so nothing may be chosen by them.
    """
    training: list[Sample] = []
    watched: list[Sample] = []
    for name in settings.sets:
        found = open_dataset(root / name, skip_broken=settings.skip_unreadable, workers=workers)
        samples: Sequence[Sample] = found.samples
        if settings.split is not None and settings.fold is not None:
            if not settings.split.startswith(classes_of(found.class_names) or "none"):
                raise ValueError(
                    f"data.split: {settings.split} numbers other classes than those of {name}. "
                    "Leave the set out: a novel class could be among its own."
                )
            fold = fold_of(settings.split, settings.fold)
            keep = settings.novel != "drop"
            pool = fold.training_pool(samples, keep_novel=keep)
            # a novel object that counts as background would still steer what is chosen
            pool = [s for s in pool if s.split == "train" or not fold.shows_novel(s)]
            label = IGNORE if settings.novel == "ignore" else 0
            samples = [BaseOnly.of(sample, fold, label) for sample in pool]
        for sample in samples:
            if sample.split == "test":
                continue
            free = settings.include_restricted or not sample.restricted
            (training if sample.split == "train" and free else watched).append(sample)
    if settings.sets and not training:
        raise ValueError(
            f"data.sets: expected pictures to train on below {root}, got none: no picture is "
            "split 'train', or the fold or its terms leave all of them out"
        )
    return training, watched


def make_encoder(choice: EncoderChoice, weights_root: Path | None, seed: int) -> Any:
    """A new encoder with its starting weights.

    Raises:
        FileNotFoundError, ValueError: the weights are not there, or not this encoder's.
    """
    torch.manual_seed(seed)
    encoder = build_encoder(choice.name, choice.settings)
    if choice.weights is not None:
        path = (weights_root or Path()) / choice.weights
        if not path.is_file():
            raise FileNotFoundError(
                f"encoder.weights: expected a file {path}. Name its folder with --weights-root."
            )
        load_backbone(encoder, read_weights(path))
    return encoder


def some_images(
    encoder: Any,
    samples: Sequence[Sample],
    episodes: EpisodeSettings,
    seed: int,
    skips: SkipLog | None = None,
    count: int = 24,
) -> torch.Tensor:
    """``[count, 3, S, S]`` inputs of ``encoder``, as training will show them."""
    share = Share(EpisodeSource(samples, episodes), 1)
    stream = iter(StepStream([share], seed + 1, skips=skips))
    pixels = torch.cat([whole(next(stream))[0] for _ in range(count // 2)])
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def train(
    settings: RunSettings[Any],
    out: Path,
    data_root: Path,
    weights_root: Path | None,
    processes: Processes,
    resume: bool = False,
    workers: int = 1,
    latents_root: Path | None = None,
) -> Trainer:
    """Begin or resume the run in ``out`` and bring it to its end.

    latents_root: folder of the pseudo labels that a method asks for.
    """
    if not resume:
        refuse_a_run(out)
    samples, watched = open_samples(settings.data, data_root, workers)
    encoder = make_encoder(settings.encoder, weights_root, settings.trainer.seed)
    if settings.episodes.side % encoder.multiple:
        raise ValueError(
            f"episodes.side: expected a multiple of {encoder.multiple} for "
            f"{settings.encoder.name}, got {settings.episodes.side}"
        )

    def images() -> torch.Tensor:
        skips = SkipLog(out / SKIPPED) if settings.data.skip_unreadable else None
        return some_images(encoder, samples, settings.episodes, settings.trainer.seed, skips)

    if hasattr(encoder, "start_from_keys") and not resume:
        encoder.start_from_keys(images())
    setup = METHODS[settings.method].setup(encoder, settings, samples, latents_root)
    weights = settings.encoder.weights
    if not resume:
        setup.learner.start(None if weights is None else (weights_root or Path()) / weights, images)
    sources = sorted({(s.dataset, s.licence or "no licence stated") for s in samples})
    provenance = {
        "initial": None if weights is None else Path(weights).name,
        "sources": [list(pair) for pair in sources],
        "pictures": dict(sorted(Counter(s.dataset for s in samples).items())),
        "pictures_digest": sha256("\n".join(sorted(s.key for s in samples)).encode()).hexdigest(),
        **setup.provenance,
    }
    trainer = Trainer(
        out,
        setup.learner,
        settings,
        samples,
        watched,
        provenance,
        processes,
        workers,
        setup.extra,
    )
    trainer.resume() if resume else trainer.start()
    if processes.first:
        print(f"{len(samples)} pictures to train on, {len(watched)} to watch; run: {out}")
    trainer.run()
    return trainer
