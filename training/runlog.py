"""What a run says of itself: ``log.jsonl``, a line on the terminal, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files import write_whole
from training.runfolder import LOG


class RunLog:
    """Rows of a run: numbers, and tables of numbers, by name; each row has an ``iteration``.

    Raises:
        ModuleNotFoundError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.path = folder / LOG
        self.board: Any = None
        if tensorboard:
            self.board = _board(folder)

    def write(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in _flat(row):
                self.board.add_scalar(name, value, row["iteration"])
            self.board.flush()

    def rewind(self, iteration: int) -> None:
        """Drop rows after ``iteration``: a resumed run writes them again."""
        kept = [row for row in read_log(self.path) if row["iteration"] <= iteration]
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        if self.board is not None:
            self.board.close()
            self.board = _board(self.path.parent, iteration + 1)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    @staticmethod
    def line(row: Mapping[str, Any]) -> str:
        return "  ".join(f"{name} {value}" for name, value in _flat(row))


def _board(folder: Path, purge: int | None = None) -> Any:
    """A writer for TensorBoard; what an earlier one wrote from step ``purge`` on is not shown."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "trainer.tensorboard: expected the package tensorboard, got an environment without it. "
            "pip install tensorboard, or set it to false."
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=purge)  # type: ignore[no-untyped-call]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log; none where there is no file yet. A last line that was cut off is left out.

    Raises:
        ValueError: another line is no row; names it.
    """
    lines = path.read_text().split("\n") if path.exists() else [""]
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # a whole line ends with a newline
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: expected a row of a log: {error}") from error
    return rows


def _flat(row: Mapping[str, Any], place: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{place}{name}/")
        elif isinstance(value, (int, float)):
            found.append((f"{place}{name}", value))
    return found
