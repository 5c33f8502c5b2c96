"""A line on stderr for a build that tells its phases."""

from __future__ import annotations

import sys
from time import monotonic

from .console import warn

__all__ = ["PhaseLine"]


class PhaseLine:
    """Call it with a phase, its finished steps and their number. Silent where stderr is no
    terminal, so that logs stay readable."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin = monotonic()
        self._shown = 0.0
        self._alive = sys.stderr.isatty()

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = monotonic()
        if self._alive and now - self._shown >= 0.2:
            self._shown = now
            steps = f" {done}/{total}" if total else ""
            text = f"{self._name}: {phase}{steps}, {now - self._begin:.0f} s"
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Where nobody sees the line, what takes time is said once."""
        if not self._alive:
            warn(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._alive and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
