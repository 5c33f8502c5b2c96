"""``fsseg prepare``: labelled pictures -> a task file."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from ..support import read_support
from .auxiliary import read_folder
from .console import WarnOnce, load_segmenter, print_json
from .kept import check_kept, write_kept
from .shots import read_shots

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    support = read_shots(arguments.shots or [])
    auxiliary = read_folder(arguments.auxiliary, list(support))
    if arguments.kept:
        check_kept(arguments.kept, auxiliary)
    begin = perf_counter()
    given = read_support(support, auxiliary)
    task = load_segmenter(arguments).prepare(given)
    task.save(arguments.out)
    seconds = perf_counter() - begin
    if arguments.kept:
        write_kept(arguments.kept, task, given.auxiliary)
    warnings = [*task.notes, *task.fitted.warnings]
    WarnOnce()(warnings)
    size = Path(arguments.out).stat().st_size
    info = task.info()
    if arguments.json:
        summary = {"task": str(arguments.out), "file_bytes": size, "seconds": round(seconds, 3)}
        print_json({**summary, **info, "warnings": warnings})
        return 0
    print(f"{arguments.out}: {size / 1024:.1f} KiB, made in {seconds:.2f} s")
    for label, (name, counts) in enumerate(info["classes"].items(), 1):
        shots, more = counts["shots"], counts.get("auxiliary", 0)
        text = f"{shots} shot{'s' if shots != 1 else ''}"
        print(f"  {label}  {name}: {text}{f', {more} auxiliary' if more else ''}")
    return 0
