"""Options that the commands of evaluation share: of what set, and which episodes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from training.annotations import KINDS
from training.datasets import Dataset, open_dataset
from training.evaluation.auxiliary import Given
from training.evaluation.pool import WHICH
from training.evaluation.protocols import PROTOCOLS

MOST_SHOTS, MOST_WAYS, MOST_AUXILIARY = 15, 5, 50


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data and what helps to open it."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of a labelled set")
    add("--skip-broken", action="store_true", help="go on without pictures that cannot be used")
    workers = min(8, os.cpu_count() or 1)
    add("--workers", type=int, default=workers, help=f"that index a set (default {workers})")
    add("--cache", type=Path, metavar="FOLDER", help="for the index (default: the data folder)")
    add("--test-list", type=Path, metavar="FILE", help="test classes of fss1000")


def open_data(options: argparse.Namespace) -> Dataset:
    """The set that `add_data`'s options name."""
    return open_dataset(
        options.data,
        cache=options.cache,
        workers=options.workers,
        skip_broken=options.skip_broken,
        test_list=options.test_list,
    )


def add_episodes(parser: argparse.ArgumentParser, episodes: str) -> None:
    """Which lists of episodes."""
    add = parser.add_argument
    add("--protocol", choices=list(PROTOCOLS), default="panet-417")
    add("--pool", choices=WHICH, default="all", help="val: no picture of split train")
    add("--folds", type=numbers, default=numbers("0-3"))
    add("--shots", type=numbers, default=[1, 5], help=f"1 to {MOST_SHOTS}")
    add("--ways", type=numbers, default=[1], help=f"classes of an episode, 1 to {MOST_WAYS}")
    add("--runs", type=int, default=5, help="lists, of seeds 0 to RUNS - 1")
    add("--episodes", type=int, default=1000, help=episodes)
    add("--fewest", type=int, help="pictures that a class needs to be asked for")


def add_auxiliary(parser: argparse.ArgumentParser) -> None:
    """Which auxiliary pictures; every number is run with every other."""
    add = parser.add_argument
    add("--auxiliary", type=numbers, default=[0], help="pictures a class whose masks are withheld")
    add("--wrong-auxiliary", type=numbers, default=[0], help="pictures that do not show the class")


def check_auxiliary(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where a number is out of range."""
    for name in ("auxiliary", "wrong_auxiliary"):
        if beyond := [n for n in getattr(options, name) if n > MOST_AUXILIARY]:
            flag = name.replace("_", "-")
            parser.error(f"--{flag}: expected 0 to {MOST_AUXILIARY}, got {beyond[0]}")


def given_by(options: argparse.Namespace) -> list[Given]:
    return [Given(u, w) for u in options.auxiliary for w in options.wrong_auxiliary]


def check_episodes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where a number is out of range."""
    for name, most in (("shots", MOST_SHOTS), ("ways", MOST_WAYS)):
        if beyond := [n for n in getattr(options, name) if not 1 <= n <= most]:
            parser.error(f"--{name}: expected 1 to {most}, got {beyond[0]}")
    if min(options.runs, options.episodes) < 1:
        parser.error("--runs and --episodes take 1 or more")
    if options.fewest is not None and options.fewest < 1:
        parser.error(f"--fewest takes 1 or more, got {options.fewest}")


def numbers(text: str) -> list[int]:
    """``"0-3"``, ``"1,5"`` or both; for argparse."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            each = range(int(first), int(last or first) + 1)
        except ValueError:
            each = range(0)
        if not each:
            raise argparse.ArgumentTypeError(f"expected numbers such as 1,5 or 0-3, got {text!r}")
        found += each
    return list(dict.fromkeys(found))


def kinds(text: str) -> list[str]:
    """``"dense,scribble"``; for argparse."""
    found = list(dict.fromkeys(text.split(",")))
    for kind in found:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(KINDS)}, got {kind!r}")
    return found
