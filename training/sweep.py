"""A queue of training runs: one after another, each in its own process and folder.

A run that was interrupted is resumed, one that failed is tried again at the next start, one that
is done is left alone. So the same command may be given as often as one likes.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.methods import METHODS
from training.run import settings_of
from training.runlog import read_log
from training.settings import read_tables, with_changes
from training.trainer import CHECKPOINT, RESUME

STATES = ("waiting", "begun", "done", "failed")


@dataclass(frozen=True)
class PlannedRun:
    """One row of a sweep. changes: as after ``--set``."""

    name: str
    method: str
    settings: Path
    changes: tuple[str, ...]
    iterations: int


def read_sweep(path: Path) -> list[PlannedRun]:
    """The runs of a sweep file, in its order.

    The file is a list of tables ``[[runs]]`` with ``name``, ``method``, ``settings`` (a file beside
    it) and ``vary`` (field -> values: all combinations are run, the first field varies slowest).
    A run is called ``name-field1value1-field2value2``.

    Raises:
        ValueError: a key is missing or unknown, two runs have one name, or a run's settings are
            refused.
    """
    tables = read_tables(path)
    if set(tables) != {"runs"} or not isinstance(tables["runs"], list):
        raise ValueError(f"{path}: expected tables [[runs]] and nothing else, got {list(tables)}")
    planned: list[PlannedRun] = []
    for table in tables["runs"]:
        if set(table) != {"name", "method", "settings", "vary"}:
            raise ValueError(
                f"{path}: expected name, method, settings and vary in each of [[runs]], "
                f"got {', '.join(table)}"
            )
        if table["method"] not in METHODS:
            raise ValueError(f"{path}: method: expected one of {', '.join(METHODS)}")
        file = path.parent / table["settings"]
        base = read_tables(file)
        for values in itertools.product(*table["vary"].values()):
            pairs = list(zip(table["vary"], values, strict=True))
            changes = tuple(f"{field}={json.dumps(value)}" for field, value in pairs)
            parts = [f"{field.rpartition('.')[2]}{value}" for field, value in pairs]
            settings = settings_of(table["method"], with_changes(base, changes), str(file))
            planned.append(
                PlannedRun(
                    "-".join([table["name"], *parts]),
                    table["method"],
                    file,
                    changes,
                    settings.trainer.iterations,
                )
            )
    names = [run.name for run in planned]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: expected names that differ, got {sorted(twice)} twice")
    return planned


@dataclass(frozen=True)
class Progress:
    """How far a run is; ``last``: its log's last row."""

    state: str
    iteration: int
    last: dict[str, Any]


def progress(run: PlannedRun, folder: Path) -> Progress:
    """What ``folder`` tells of a run."""
    rows = read_log(folder / "log.jsonl")
    last = rows[-1] if rows else {}
    iteration = int(last.get("iteration", 0))
    if (folder / CHECKPOINT).exists() and iteration >= run.iterations:
        return Progress("done", iteration, last)
    if (folder / "failed.txt").exists():
        return Progress("failed", iteration, last)
    return Progress("begun" if (folder / RESUME).exists() else "waiting", iteration, last)


def table(planned: list[PlannedRun], out: Path) -> str:
    """A Markdown table of all runs; those not yet run are marked."""
    lines = ["| run | state | iteration | loss | watched IoU |", "| --- | --- | --- | --- | --- |"]
    for run in planned:
        found = progress(run, out / run.name)
        figures = found.last.get("watched", {})
        watched = f"{sum(figures.values()) / len(figures):.1f}" if figures else ""
        lines.append(
            f"| {run.name} | {found.state} | {found.iteration} of {run.iterations} "
            f"| {found.last.get('loss', '')} | {watched} |"
        )
    return "\n".join(lines)


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Refuse to work where another process works through the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "sweep.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{out}: another sweep is at work here. Wait for it, or name another --out."
            ) from None
        yield


def command(run: PlannedRun, options: argparse.Namespace) -> list[str]:
    """The run as a command of its own."""
    folder = options.out / run.name
    words = [sys.executable, "-m", "training", run.method, str(run.settings)]
    words += ["--data-root", str(options.data_root), "--out", str(folder)]
    if options.weights_root is not None:
        words += ["--weights-root", str(options.weights_root)]
    words += ["--threads", str(options.threads), "--device", options.device]
    words += ["--workers", str(options.workers)]
    for change in run.changes:
        words += ["--set", change]
    return [*words, "--resume"] if (folder / RESUME).exists() else words


def work(planned: list[PlannedRun], options: argparse.Namespace) -> int:
    """Bring every run to its end; returns how many failed."""
    failures = 0
    for run in planned:
        folder = options.out / run.name
        if progress(run, folder).state == "done":
            continue
        print(f"==> {run.name}", flush=True)
        (folder / "failed.txt").unlink(missing_ok=True)
        if subprocess.run(command(run, options)).returncode:
            failures += 1
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "failed.txt").write_text("see the sweep's log\n")
    return failures


def main(options: argparse.Namespace) -> int:
    """`python -m training sweep`; its options are those of training/__main__.py."""
    planned = read_sweep(options.file)
    if options.status:
        print(table(planned, options.out))
        return 0
    if options.background:
        words = [sys.executable, "-m", "training", *sys.argv[1:]]
        words.remove("--background")
        options.out.mkdir(parents=True, exist_ok=True)
        log = options.out / "sweep.log"
        with log.open("a") as file:
            child = subprocess.Popen(
                words, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
            )
        print(f"process {child.pid} works through {len(planned)} runs; its log: {log}")
        return 0
    with only_one(options.out):
        failures = work(planned, options)
    print(table(planned, options.out))
    return 1 if failures else 0
