"""Result files: written fold by fold, taken up again after an interruption, printed as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.auxiliary import NOTHING, given_of
from training.evaluation.lists import SHIPPED
from training.evaluation.rows import SAME
from training.files import write_whole

SUBSET = (
    "Not PASCAL-5i: the pictures are a part of VOC 2012 (448 pixels at most), and the episodes are "
    "this project's own. Compare these figures with each other, never with published ones."
)
OTHER = (
    "The episodes are this project's own: compare these figures with each other. Published ones "
    "come from other lists, and often from other pictures."
)
WHOLE = {"pascal-5i": 10_000, "coco-20i-contiguous": 80_000, "coco-20i-interleaved": 80_000}
"""From so many pictures on, a set counts as the whole one."""


VOC_ALONE = 2_913
"""Pictures of VOC 2012's train and val."""


def caveat(data: str, split: str, pictures: int) -> str:
    """What is printed under every table."""
    if split not in WHOLE or pictures >= WHOLE[split]:
        return OTHER
    if (data, pictures) == SHIPPED:
        return SUBSET
    if split != "pascal-5i":
        return f"Not COCO-20i: {pictures:,} pictures of COCO. {OTHER}"
    part = "VOC 2012 without SBD" if pictures == VOC_ALONE else "a part of VOC 2012 with SBD"
    return f"Not PASCAL-5i: {pictures:,} pictures, {part}. {OTHER}"


class Partial:
    """``FILE.part``: a line of what is asked, then a line for each fold that is done.

    Raises:
        ValueError: the file belongs to another evaluation; the message says what differs.
    """

    def __init__(self, result: Path | None, asked: Mapping[str, Any]) -> None:
        self.path = None if result is None else result.with_name(result.name + ".part")
        self.folds: dict[int, dict[str, Any]] = {}
        plain = json.loads(json.dumps(asked))
        if self.path is None:
            return
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            rows = [row for line in lines if (row := _parsed(line)) is not None]
            known = rows[0] if rows else {}
            other = [k for k in {**plain, **known} if plain.get(k) != known.get(k)]
            if len(rows) < 2:  # no fold is done, so nothing is lost
                self.path.unlink()
                rows = []
                self._append(plain)
            elif other:
                name = other[0]
                raise ValueError(
                    f"{self.path}: holds a part of another evaluation: {name} was "
                    f"{known.get(name)!r}, now {plain.get(name)!r}. Repeat that one, remove the "
                    "file, or write to another --json."
                )
            self.folds = {row["fold"]: row for row in rows[1:]}
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(plain)

    def add(self, part: dict[str, Any]) -> None:
        self.folds[part["fold"]] = part
        if self.path is not None:
            self._append(part)

    def _append(self, row: Mapping[str, Any]) -> None:
        if self.path is not None:
            # a line that was cut off by a crash stays a line of its own
            broken = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("\n" if broken else "") + json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """One object, whole or not at all."""
    write_whole(path, json.dumps(result))


def read_result(path: Path) -> dict[str, Any]:
    """
    Raises:
        FileNotFoundError, ValueError: no such file, or not one of this command's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a result of `python -m training.evaluate`")
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result["rows"], result["lists"], result["protocol"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a result of `python -m training.evaluate`, got {error!r}"
        ) from error
    return result


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need, the first to the left; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(row[name] for name in SAME), given_of(row))


def summary(
    rows: Sequence[Mapping[str, Any]], means: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """A line for each setting: mean-IoU by fold, the mean over them, its spread, and FB-IoU."""
    folds = sorted({row["fold"] for row in rows})
    cells = [
        [
            "setting",
            "at",
            *(f"fold {fold}" for fold in folds),
            *(["mean"] if len(folds) > 1 else []),
            "std",
            "95 % interval",
            "FB-IoU",
        ]
    ]
    for setting in dict.fromkeys(map(_setting, rows)):
        shots, ways, annotation, resolution, rule, given = setting
        own = {row["fold"]: row for row in rows if _setting(row) == setting}
        mean = next((mean for mean in means if _setting(mean) == setting), None)
        last = mean or next(iter(own.values()))
        name = f"{ways}-way {shots}-shot {annotation}" + (f", FP {rule}" if ways > 1 else "")
        name += f", {given}" if given != NOTHING else ""
        low, high = last["interval"]
        cells.append(
            [
                name,
                resolution,
                *(f"{own[f]['miou']:.1f}" if f in own else "-" for f in folds),
                *([f"{mean['miou']:.1f}" if mean else "-"] if len(folds) > 1 else []),
                "-" if last["std"] is None else f"{last['std']:.2f}",
                f"[{low:.1f}, {high:.1f}]",
                f"{last['fbiou']:.1f}",
            ]
        )
    return cells
