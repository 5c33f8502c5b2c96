"""A queue of training runs: one after another, each in its own process and folder.

A run that was interrupted is resumed, one that failed is tried again at the next start, one that
is done is left alone. So the same command may be given as often as one likes.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import read_header
from training.methods import METHODS
from training.run import settings_of
from training.runfolder import CHECKPOINT, LOG, RESUME
from training.runlog import read_log
from training.settings import RunSettings
from training.tables import differences, read_tables, with_changes

FAILED = "failed.txt"
_KEYS = {"name", "method", "settings", "vary"}


@dataclass(frozen=True)
class PlannedRun:
    """One row of a sweep. changes: as after ``--set``."""

    name: str
    method: str
    file: Path
    changes: tuple[str, ...]
    settings: RunSettings[Any]


def read_sweep(path: Path) -> list[PlannedRun]:
    """The runs of a sweep file, in its order.

    The file is a list of tables ``[[runs]]`` with ``name``, ``method``, ``settings`` (a file beside
    it), ``vary`` (field -> values: all combinations are run, the first field varies slowest) and,
    if wanted, ``set`` (field -> value, of all of them).
    A run is called ``name-field1value1-field2value2`` by what varies; lists are joined by ``_``.

    Raises:
        ValueError: a key is missing or unknown, two runs have one name, or a run's settings are
            refused.
    """
    tables = read_tables(path)
    if set(tables) != {"runs"} or not isinstance(tables["runs"], list):
        raise ValueError(f"{path}: expected tables [[runs]] and nothing else, got {list(tables)}")
    planned: list[PlannedRun] = []
    for table in tables["runs"]:
        if not isinstance(table, dict) or set(table) - {"set"} != _KEYS:
            raise ValueError(
                f"{path}: expected name, method, settings and vary in each of [[runs]], and set "
                f"if wanted, got {table!r:.200}"
            )
        if table["method"] not in METHODS:
            raise ValueError(f"{path}: method: expected one of {', '.join(METHODS)}")
        vary = table["vary"]
        if not isinstance(vary, dict) or not all(isinstance(v, list) for v in vary.values()):
            raise ValueError(f"{path}: vary: expected lists of values by field, got {vary!r:.200}")
        common = table.get("set", {})
        if not isinstance(common, dict):
            raise ValueError(f"{path}: set: expected values by field, got {common!r:.200}")
        file = path.parent / table["settings"]
        base = read_tables(file)
        for values in itertools.product(*vary.values()):
            pairs = list(zip(vary, values, strict=True))
            every = [*common.items(), *pairs]
            changes = tuple(f"{field}={json.dumps(value)}" for field, value in every)
            parts = [f"{field.rpartition('.')[2]}{_word(value)}" for field, value in pairs]
            settings = settings_of(table["method"], with_changes(base, changes), str(file))
            planned.append(
                PlannedRun(
                    "-".join([table["name"], *parts]),
                    table["method"],
                    file,
                    changes,
                    settings,
                )
            )
    names = [run.name for run in planned]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: expected names that differ, got {sorted(twice)} twice")
    return planned


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    return "_".join(map(_word, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    state: waiting, begun, done, failed, or "other settings": its folder holds a run by other
        settings than the sweep's.
    loss: of the log's last row. watched: the figure of the weights that were kept.
    """

    state: str
    iteration: int
    loss: float | None = None
    watched: float | None = None


def progress(run: PlannedRun, folder: Path) -> Progress:
    """What ``folder`` tells of a run."""
    rows = read_log(folder / LOG)
    iteration, loss = (int(rows[-1]["iteration"]), rows[-1]["loss"]) if rows else (0, None)
    figures = [list(row["watched"].values()) for row in rows if row["kept"] and "watched" in row]
    watched = sum(figures[-1]) / len(figures[-1]) if figures else None
    state = "begun" if (folder / RESUME).exists() else "waiting"
    if (folder / CHECKPOINT).exists():
        if differences(read_header(folder / CHECKPOINT)["settings"], run.settings.to_json()):
            state = "other settings"
        elif iteration >= run.settings.trainer.iterations:
            state = "done"
    if state != "done" and (folder / FAILED).exists():
        state = "failed"
    return Progress(state, iteration, loss, watched)


def table(planned: list[PlannedRun], out: Path) -> str:
    """A Markdown table of all runs; those not yet run are marked."""
    lines = ["| run | state | iteration | loss | watched IoU |", "| --- | --- | --- | --- | --- |"]
    for run in planned:
        found = progress(run, out / run.name)
        loss = "" if found.loss is None else found.loss
        watched = "" if found.watched is None else f"{found.watched:.1f}"
        lines.append(
            f"| {run.name} | {found.state} | {found.iteration} of "
            f"{run.settings.trainer.iterations} | {loss} | {watched} |"
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
    words = [sys.executable, "-m", "training", run.method, str(run.file)]
    words += ["--data-root", str(options.data_root), "--out", str(folder)]
    if options.weights_root is not None:
        words += ["--weights-root", str(options.weights_root)]
    if options.latents_root is not None:
        words += ["--latents-root", str(options.latents_root)]
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
        (folder / FAILED).unlink(missing_ok=True)
        words = command(run, options)
        if code := subprocess.run(words).returncode:
            failures += 1
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAILED).write_text(f"exit code {code}: {shlex.join(words)}\n")
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
