"""``python -m training.datasets check PATH``: what is wrong with a data folder.

Exit codes: 0 nothing is wrong; 1 something is; 2 the folder could not be opened.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.datasets.check import examine, examine_fold
from training.datasets.folds import SPLITS, Fold, fold_by_split, fold_of
from training.datasets.indexed import Dataset
from training.datasets.open import LAYOUTS, open_dataset

BY_SPLIT = "by-split"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.datasets", description=__doc__)
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check", help="read every file and name every problem")
    add = check.add_argument
    add("path", type=Path, metavar="PATH")
    add("--layout", choices=("auto", *LAYOUTS), default="auto")
    add("--split", choices=(*SPLITS, BY_SPLIT), help="look at its folds, too")
    add("--fold", type=int, choices=range(4), help="this fold alone")
    add("--shots", type=int, default=1, help="a class needs more pictures than that (default 1)")
    add("--test-list", type=Path, metavar="FILE", help="test classes of fss1000")
    add("--cache", type=Path, metavar="FOLDER", help="for the index (default: the data folder)")
    workers = min(8, os.cpu_count() or 1)
    add("--workers", type=int, default=workers, help=f"processes that read (default {workers})")
    add("--most", type=int, default=10, help="problems of a kind to print (default 10; 0: all)")
    add("--json", action="store_true", help="print all that was found as JSON")
    check.set_defaults(run=check_folder)
    return parser


def folds_of(dataset: Dataset, split: str | None, number: int | None) -> list[Fold]:
    """The folds to look at; none without a split."""
    if split is None:
        return []
    if split == BY_SPLIT:
        return [fold_by_split(dataset.samples)]
    return [fold_of(split, k) for k in (range(4) if number is None else (number,))]


def check_folder(options: argparse.Namespace) -> int:
    dataset = open_dataset(
        options.path,
        options.layout,
        cache=options.cache,
        workers=options.workers,
        skip_broken=True,
        test_list=options.test_list,
    )
    folds = folds_of(dataset, options.split, options.fold)
    report = examine(dataset, options.workers)
    about = [line for fold in folds for line in examine_fold(report, fold, options.shots)]
    if options.json:
        print(json.dumps({**report.facts(), "folds": about}, indent=1))
    else:
        print("\n".join(report.lines(options.most or sys.maxsize, about)))
    return 1 if report.problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.fold is not None and options.split is None:
        parser.error("--fold: expected --split, too, since folds belong to a split")
    if options.shots < 1 or options.most < 0:
        parser.error("--shots takes 1 or more, --most 0 or more")
    try:
        code: int = options.run(options)
        return code
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"training.datasets: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
