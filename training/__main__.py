"""`python -m training panet|presence|check`.

Train an encoder, fit its absent-class score, look at a data folder.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from training.datasets import Dataset, Sample
from training.encoders import ENCODERS
from training.episodes import EpisodeSettings
from training.panet import PanetRun, PanetSettings

FEW = 20  # watched pictures of a set: fewer say little about an absent-class score


def split_samples(
    folders: Sequence[Path], include_restricted: bool
) -> tuple[list[Sample], list[Sample]]:
    """Pictures to train on and pictures to watch.

    Pictures marked NonCommercial or NoDerivs are for watching only, so that the checkpoint may be
    shipped; `include_restricted` trains on them too.
    """
    training: list[Sample] = []
    watched: list[Sample] = []
    for folder in folders:
        for sample in Dataset.open(folder).samples:
            kept = sample.split == "train" and (include_restricted or not sample.restricted)
            (training if kept else watched).append(sample)
    return training, watched


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="folder with index.jsonl; repeat for more",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def panet(options: argparse.Namespace) -> int:
    training, watched = split_samples(options.data, options.include_restricted)
    settings = PanetSettings(
        encoder=options.encoder,
        iterations=options.iterations,
        pairs=options.pairs,
        background_parts=options.background_parts,
        learning_rate=options.learning_rate,
        backbone_learning_rate=options.backbone_learning_rate,
        bfloat16=options.bfloat16,
        seed=options.seed,
        save_every=min(options.save_every, options.iterations),
        episodes=EpisodeSettings(side=options.side, kinds=tuple(options.kinds)),
    )
    print(f"{len(training)} pictures to train on, {len(watched)} to watch; run: {options.out}")
    PanetRun(
        options.out, training, settings, options.weights, watched, options.resume, options.workers
    ).run()
    return 0


def presence(options: argparse.Namespace) -> int:
    from training.presence import calibrate

    training, watched = split_samples(options.data, options.include_restricted)
    allowed = [sample for sample in watched if not sample.restricted]
    kept = Counter(sample.dataset for sample in allowed)
    # a set of which too few were kept back has to serve with what was trained on
    allowed += [sample for sample in training if kept[sample.dataset] < FEW]
    found = calibrate(
        options.checkpoint,
        allowed,
        options.side,
        options.background_parts,
        options.refine_weak,
    )
    print(found)
    return 0


def check(options: argparse.Namespace) -> int:
    problems = [problem for folder in options.data for problem in Dataset.open(folder).problems()]
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else "nothing wrong")
    return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)

    train = commands.add_parser("panet", help="episodic training of an encoder")
    add_data(train)
    train.add_argument("--encoder", choices=sorted(ENCODERS), default="vit_tiny_detail")
    train.add_argument(
        "--weights",
        type=Path,
        help="ImageNet weights of the backbone (safetensors, timm or torchvision names)",
    )
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out"
    )
    train.add_argument("--iterations", type=int, default=4000)
    train.add_argument("--pairs", type=int, default=2, help="episodes per iteration")
    train.add_argument(
        "--side", type=int, default=352, help="training input size, a multiple of 16"
    )
    train.add_argument(
        "--kinds",
        type=float,
        nargs=3,
        default=EpisodeSettings.kinds,
        metavar=("CLASS", "REGION", "SCENE"),
    )
    train.add_argument("--background-parts", type=int, default=PanetSettings.background_parts)
    train.add_argument("--learning-rate", type=float, default=1e-3)
    train.add_argument("--backbone-learning-rate", type=float, default=5e-5)
    train.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--save-every", type=int, default=500)
    train.add_argument("--workers", type=int, default=1)
    train.add_argument(
        "--include-restricted",
        action="store_true",
        help="train on NonCommercial and NoDerivs pictures too",
    )
    train.set_defaults(run=panet)

    fit = commands.add_parser(
        "presence", help="fit the absent-class score and store it in the checkpoint"
    )
    add_data(fit)
    fit.add_argument("checkpoint", type=Path)
    fit.add_argument("--side", type=int, default=448)
    fit.add_argument("--include-restricted", action="store_true")
    fit.add_argument(
        "--background-parts", type=int, default=3, help="prototypes of the background from here on"
    )
    fit.add_argument(
        "--refine-weak",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="boxes and scribbles are refined once from here on",
    )
    fit.set_defaults(run=presence)

    look = commands.add_parser("check", help="what is wrong with a data folder")
    add_data(look)
    look.set_defaults(run=check)

    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        result: int = options.run(options)
    except (FileNotFoundError, ValueError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    return result


if __name__ == "__main__":
    sys.exit(main())
