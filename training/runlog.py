"""What a run says of itself: ``log.jsonl``, a line on the terminal, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


class Interval:
    """What happened since the last row: losses, what they consist of, time spent waiting."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.parts: dict[str, float] = {}
        self.began, self.waited = time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        asked = time.monotonic()
        yield
        self.waited += time.monotonic() - asked

    def note(self, loss: float, parts: Mapping[str, Any]) -> None:
        self.losses.append(loss)
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value)

    def row(self, iteration: int, batch: int) -> dict[str, Any]:
        """Means of the losses, and the speed; ``batch``: episodes a step."""
        seconds, steps = time.monotonic() - self.began, len(self.losses)
        row: dict[str, Any] = {
            "iteration": iteration,
            "loss": round(sum(self.losses) / steps, 4),
            "episodes_per_second": round(steps * batch / seconds, 2),
            "waited_for_data": round(self.waited / seconds, 3),
        }
        if self.parts:
            row["losses"] = {name: round(v / steps, 4) for name, v in self.parts.items()}
        return row


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
