"""``fsseg segment``: pictures in; masks, overlays and a report out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError
from ..taskfile import read_task_info
from .auxiliary import read_folder
from .console import (
    Progress,
    WarnOnce,
    check_tile,
    load_segmenter,
    print_json,
    summary_of,
    unwritable,
    warn,
    write_json,
)
from .queries import Query, expand
from .shots import read_shots

if TYPE_CHECKING:
    from ..segmenter import Segmenter
    from ..task import Task

__all__ = ["run"]

REPORT = "report.json"


def run(arguments: argparse.Namespace) -> int:
    check_tile(arguments.tile)
    support = _what_to_find(arguments)
    auxiliary = None
    if arguments.auxiliary:
        known = read_task_info(arguments.task)["classes"] if support is None else support
        auxiliary = read_folder(arguments.auxiliary, list(known))
    out = Path(arguments.out)
    queries, left_out = expand(arguments.queries, out, recursive=arguments.recursive)
    _make_folder(out)
    segmenter = load_segmenter(arguments)
    if support is None:
        task = segmenter.load_task(arguments.task)
        task = task if auxiliary is None else task.add(auxiliary=auxiliary)
    else:
        task = segmenter.prepare(support, auxiliary)
    batch = _Batch(task, out, arguments.tile, overlay=not arguments.no_overlay)
    begin = perf_counter()
    try:
        batch.segment(queries, show=not arguments.json)
    finally:  # an interrupted run has its report, too
        report = _report(segmenter, task, batch.entries, queries, left_out, perf_counter() - begin)
        write_json(out / REPORT, report)
    if arguments.json:
        print_json(report)
    else:
        _print_summary(report, out)
    return 1 if report["summary"]["failed"] else 0


def _what_to_find(arguments: argparse.Namespace) -> Any:
    """The support, or None for a task file. Raises InputError for both or neither."""
    if arguments.task and arguments.shots:
        raise InputError(
            "--task",
            expected="a task or labelled pictures",
            got="both",
            remedy="Leave one out; fsseg prepare puts labelled pictures into a task.",
        )
    if arguments.task:
        return None
    if not arguments.shots:
        raise InputError(
            "what to find",
            expected="--task, --class, or --support with --mask, --box or --scribble",
            got="none of them",
            remedy="Show one example, such as --support a.jpg --mask a_mask.png.",
        )
    return read_shots(arguments.shots, arguments.name)


def _make_folder(out: Path) -> None:
    """Before any work is done: a folder that takes files."""
    probe = out / ".fsseg-probe.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(out, error) from error


class _Batch:
    """Segments one query after the other and keeps an entry of the report for each."""

    def __init__(self, task: Task, out: Path, tile: Any, *, overlay: bool) -> None:
        self._task = task
        self._out = out
        self._tile = tile
        self._overlay = overlay
        self.entries: list[dict[str, Any]] = []

    def segment(self, queries: Sequence[Query], *, show: bool) -> None:
        progress = Progress(len(queries))
        said = WarnOnce()
        try:
            for query in queries:
                entry = self._one(query)
                self.entries.append(entry)
                progress.clear()
                if entry["status"] == "failed":
                    warn(f"{query.path}: {entry['error']}")
                elif show:
                    found = summary_of(entry["classes"])
                    milliseconds = entry["timings_ms"]["total"]
                    print(f"{query.path}  {found}  {milliseconds:.0f} ms", flush=True)
                said(entry.get("warnings", ()))
                progress.step(query.path.name)
        finally:
            progress.clear()

    def _one(self, query: Query) -> dict[str, Any]:
        """Only what is wrong with this picture is caught; a full disk ends the run."""
        named = {"query": str(query.path)}
        try:
            result = self._task.segment(query.path, tile=self._tile)
        except InputError as error:
            return {**named, "status": "failed", "error": str(error).removeprefix("query: ")}
        kept = result if self._overlay else replace(result, picture=None)
        files = kept.save(self._out, query.stem)
        names = {kind: path.name for kind, path in files.items()}
        return {**named, "status": "segmented", "files": names, **result.to_dict()}


def _report(
    segmenter: Segmenter,
    task: Task,
    entries: Sequence[dict[str, Any]],
    queries: Sequence[Query],
    left_out: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    segmented = sum(entry["status"] == "segmented" for entry in entries)
    return {
        "format": "fsseg-report",
        "format_version": "1.0.0",
        "created_with": f"fsseg_sdk {__version__}",
        "bundle": segmenter.bundle,
        "method": segmenter.method,
        "backend": segmenter.backend,
        "device": segmenter.device,
        "precision": segmenter.precision,
        "classes": list(task.classes),
        "warnings": list(task.notes),
        "summary": {
            "queries": len(queries),
            "segmented": segmented,
            "failed": len(entries) - segmented,
            "complete": len(entries) == len(queries),
            "seconds": round(seconds, 3),
            "per_second": round(len(entries) / max(seconds, 1e-9), 3),
        },
        "queries": list(entries),
        "no_pictures": list(left_out),
    }


def _print_summary(report: dict[str, Any], out: Path) -> None:
    summary = report["summary"]
    text = f"{summary['segmented']} of {summary['queries']} pictures in {summary['seconds']:.1f} s"
    print(f"{text}, {summary['per_second']:.1f} per second with writing; results in {out}")
    if report["no_pictures"]:
        print(f"left out, because no pictures: {len(report['no_pictures'])} files (see {REPORT})")
