"""What the commands share: opening a bundle, printing, a progress line, files written whole."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = [
    "Progress",
    "WarnOnce",
    "check_tile",
    "json_line",
    "load_segmenter",
    "print_json",
    "summary_of",
    "table",
    "unwritable",
    "warn",
    "write_json",
]


def load_segmenter(arguments: argparse.Namespace) -> Segmenter:
    """The bundle, method and backend that the arguments ask for."""
    from ..methods.settings import merged
    from ..segmenter import Segmenter

    settings: dict[str, Any] = {}
    for change in arguments.setting:
        settings = merged(settings, change, "--setting")
    return Segmenter.load(
        arguments.bundle,
        method=arguments.method,
        settings=settings,
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )


def check_tile(tile: Any) -> None:
    """InputError for a --tile that no picture could be cut by, before the first is read."""
    from ..tiling import plan_tiles

    plan_tiles((1, 1), (1, 1), (1, 1), tile)


def to_json(value: object) -> str:
    """JSON text as all commands write it: readable, UTF-8, never NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def print_json(value: object) -> None:
    print(to_json(value))


def json_line(value: object) -> str:
    """The same in one line, for output that is read as it comes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def warn(text: str) -> None:
    """One line on stderr that does not end the command."""
    print(f"fsseg: {text}", file=sys.stderr)


class WarnOnce:
    """Prints each different warning of a run's results once: with a thousand pictures, too."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, warnings: Iterable[str]) -> None:
        for text in warnings:
            if text not in self._said:
                self._said.add(text)
                warn(f"warning: {text}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first row is the heading. Numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numeric = [
        all(row[column][:1].isdigit() or row[column] in ("", "-") for row in rows[1:])
        for column in range(len(widths))
    ]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all. Raises InputError where that is not possible."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:  # also after Ctrl-C
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        "--out",
        expected="a place that can be written to",
        got=f"{str(path)!r} ({error.strerror or error})",
        remedy="Choose another place, or free some space.",
    )


class Progress:
    """A line on stderr that counts; silent where stderr is no terminal.

    total: None where nobody knows (a camera).
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._begin = monotonic()
        self._shown = 0.0
        self._count = 0
        self._alive = sys.stderr.isatty()

    def step(self, note: str = "") -> None:
        """One more is done; note: what it was."""
        self._count += 1
        now = monotonic()
        if self._alive and (now - self._shown >= 0.1 or self._count == self._total):
            self._shown = now
            print(f"\r\x1b[K{self._line(now, note)}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away, before something else is printed and at the end."""
        if self._alive and self._shown:
            self._shown = 0.0
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self, now: float, note: str) -> str:
        rate = self._count / max(now - self._begin, 1e-9)
        if self._total is None:
            text = f"{self._count}  {rate:.1f}/s  {note}"
        else:
            filled = 24 * self._count // self._total
            left = (self._total - self._count) / rate
            bar = "#" * filled + "." * (24 - filled)
            text = f"[{bar}] {self._count}/{self._total}  {rate:.1f}/s  {left:.0f} s left  {note}"
        with suppress(OSError):
            return text[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]
        return text


def summary_of(classes: Mapping[str, Mapping[str, Any]]) -> str:
    """ "bolt 97 %, nut not found", from the classes of `Result.to_dict`."""
    return ", ".join(
        f"{name} {100 * entry['score']:.0f} %" if entry["found"] else f"{name} not found"
        for name, entry in classes.items()
    )
