"""Going on without pictures that cannot be read: only on request, named and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training.datasets.sample import DataError

Drawn = TypeVar("Drawn")
TRIES = 100  # in a row: then it is no single picture that is broken


class SkipLog:
    """The pictures that a run could not read, in a file that all its processes append to.

    Args:
        file: JSON Lines, ``{"file", "error"}`` each; kept when the run is resumed.
        most: so many different files may be left out.
    """

    def __init__(self, file: Path | str, most: int = 100) -> None:
        if most < 1:
            raise ValueError(f"most: expected 1 or more pictures, got {most}")
        self.file, self.most = Path(file), most
        self._written: set[str] = set()

    def draw(self, make: Callable[[], Drawn]) -> Drawn:
        """``make()``, called again after each :class:`DataError`, which is noted.

        An episode that is drawn with one generator stays the same whatever the number of workers:
        the second try goes on with that generator.

        Raises:
            DataError: more than ``most`` files cannot be read, or nothing could be drawn.
        """
        for _ in range(TRIES):
            try:
                return make()
            except DataError as error:
                last = error
                self.note(error)
        raise DataError(
            f"{last.file}: {TRIES} tries in a row met files that cannot be read. "
            "Run `python -m training.datasets check`.",
            last.file,
        ) from last

    def files(self) -> list[str]:
        """The files left out so far, by any process, each once."""
        if not self.file.is_file():
            return []
        lines = self.file.read_text().splitlines()
        return sorted({str(json.loads(line)["file"]) for line in lines})

    def __len__(self) -> int:
        return len(self.files())

    def note(self, error: DataError) -> None:
        """Remember a file that was left out.

        Raises:
            DataError: they are more than ``most``.
        """
        if error.file in self._written:
            return
        self._written.add(error.file)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as log:  # one short write: lines of two processes do not mix
            log.write(json.dumps({"file": error.file, "error": str(error)}) + "\n")
        if len(files := self.files()) > self.most:
            raise DataError(
                f"{self.file}: {len(files)} files cannot be read, more than the {self.most} that "
                f"may be left out; the last: {error}",
                error.file,
            ) from error
