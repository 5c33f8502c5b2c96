"""Two result files, row by row: which differences are more than the choice of pictures.

    python -m training.evaluation.compare ONE.json OTHER.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.results import read_result, table
from training.evaluation.rows import SAME, Entries


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], repeats: int = 1000
) -> list[dict[str, Any]]:
    """For each setting that both have: mean-IoU of the first less the second, over their common
    folds, with a paired 95 % interval; ``resolved``: whether 0 lies outside of it.

    Raises:
        ValueError: the two are of other protocols or episodes, or have no setting in common.
    """
    if first["protocol"] != second["protocol"]:
        raise ValueError(
            f"expected results of one protocol, got {first['protocol']!r} and "
            f"{second['protocol']!r}"
        )
    found = []
    for setting in dict.fromkeys(_setting(row) for row in first["rows"]):
        rows = [
            {row["fold"]: row for row in result["rows"] if _setting(row) == setting}
            for result in (first, second)
        ]
        folds = sorted(set(rows[0]) & set(rows[1]))
        if not folds:
            continue
        one, other = (
            Entries.of([own[fold] for fold in folds], result["lists"])
            for own, result in zip(rows, (first, second), strict=True)
        )
        difference, low, high = one.less(other, repeats)
        found.append(
            {
                **dict(zip(SAME, setting, strict=True)),
                "folds": folds,
                "first": one.mean_iou(),
                "second": other.mean_iou(),
                "difference": difference,
                "interval": [low, high],
                "resolved": not low <= 0 <= high,
            }
        )
    if not found:
        raise ValueError("expected results with a common setting and fold, got none")
    return found


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAME)


def lines(found: Sequence[Mapping[str, Any]], first: str, second: str) -> str:
    """A table with a sentence under it."""
    cells = [["setting", "at", "folds", first, second, "difference", "95 % interval", ""]]
    for row in found:
        low, high = row["interval"]
        rule = f", FP {row['false_positives']}" if row["ways"] > 1 else ""
        cells.append(
            [
                f"{row['ways']}-way {row['shots']}-shot {row['annotation']}{rule}",
                row["resolution"],
                ",".join(map(str, row["folds"])),
                f"{row['first']:.1f}",
                f"{row['second']:.1f}",
                f"{row['difference']:+.1f}",
                f"[{low:+.1f}, {high:+.1f}]",
                "" if row["resolved"] else "not resolved",
            ]
        )
    return table(cells) + "\nInterval: bootstrap over query pictures, the same ones for both."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.compare", description=__doc__.split("\n")[0]
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    try:
        first, second = read_result(options.first), read_result(options.second)
        found = differences(first, second)
    except (FileNotFoundError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(lines(found, first["model"]["name"], second["model"]["name"]))
    print(first["data"]["caveat"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
