"""The folder of a run: what lies in it, and whose it is."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

CHECKPOINT, RESUME = "checkpoint.safetensors", "resume.safetensors"
LOG, SKIPPED, LOCK = "log.jsonl", "skipped.jsonl", "run.lock"


def refuse_a_run(folder: Path) -> None:
    """Raise ValueError if ``folder`` holds a run."""
    if (folder / RESUME).exists() or (folder / CHECKPOINT).exists():
        raise ValueError(f"{folder}: holds a run. Resume it, or train in another folder.")


def claim(folder: Path) -> IO[str]:
    """Keep ``folder`` to this process until what is returned is closed, or the process ends.

    Raises:
        ValueError: another process has it.
    """
    lock = (folder / LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ValueError(
            f"{folder}: another process trains here. Wait for it, or end it."
        ) from None
    return lock
