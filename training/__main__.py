"""`python -m training METHOD|latents|sweep|presence`; METHOD as in training/methods.py.

Train by a settings file, work through a queue of them, fit a bundle's absent-class score.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

from training.methods import METHODS
from training.processes import joined
from training.run import open_samples, settings_of, train
from training.settings import DataSettings
from training.spfl.command import add_latents
from training.tables import read_tables, with_changes

FEW = 20  # watched pictures of a set: fewer say little about an absent-class score


def run(options: argparse.Namespace) -> int:
    tables = with_changes(read_tables(options.settings), options.set)
    settings = settings_of(options.method, tables, str(options.settings))
    with joined(options.device) as processes:
        train(
            settings,
            options.out,
            options.data_root,
            options.weights_root,
            processes,
            options.resume,
            options.workers,
            options.latents_root,
        )
    return 0


def presence(options: argparse.Namespace) -> int:
    from training.checkpoint import read_header
    from training.presence import calibrate

    own = read_header(options.checkpoint)["settings"]["data"]  # a fold's novel classes stay unseen
    fold = {name: own[name] for name in ("split", "fold", "novel")}
    data = DataSettings(tuple(options.sets), include_restricted=options.include_restricted, **fold)
    training, watched = open_samples(data, options.data_root)
    allowed = [s for s in watched if options.include_restricted or not s.restricted]
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


def sweep(options: argparse.Namespace) -> int:
    from training.sweep import main

    return main(options)


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", type=Path, required=True, help="folder of the data sets that are named"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def add_training(parser: argparse.ArgumentParser) -> None:
    add_folders(parser)
    parser.add_argument("--weights-root", type=Path, help="folder of the starting weights")
    parser.add_argument("--latents-root", type=Path, help="folder of the pseudo labels of spfl")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="processes that read pictures")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)

    for name in METHODS:
        one = commands.add_parser(name, help=f"train {name}")
        one.add_argument("settings", type=Path, help="TOML, such as those of training/configs")
        add_training(one)
        one.add_argument("--out", type=Path, required=True, help="folder of the run")
        one.add_argument("--resume", action="store_true", help="go on where --out stands")
        one.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="TABLE.FIELD=VALUE",
            help="another value than the file's; repeat for more",
        )
        one.set_defaults(run=run, method=name)

    add_latents(commands, add_folders)

    queue = commands.add_parser(
        "sweep", help="a queue of runs, resumed after any interruption", allow_abbrev=False
    )
    queue.add_argument("file", type=Path, help="TOML: a settings file and what varies")
    add_training(queue)
    queue.add_argument("--out", type=Path, required=True, help="folder of the runs")
    queue.add_argument("--background", action="store_true", help="return at once; a log is kept")
    queue.add_argument("--status", action="store_true", help="only say how far each run is")
    queue.set_defaults(run=sweep)

    fit = commands.add_parser(
        "presence", help="fit the absent-class score and store it in the checkpoint"
    )
    add_folders(fit)
    fit.add_argument("checkpoint", type=Path)
    fit.add_argument("--sets", nargs="+", required=True, help="folders below the data folder")
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
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        result: int = options.run(options)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    return result


if __name__ == "__main__":
    sys.exit(main())
