"""``fsseg prepare``: labelled pictures -> a task file."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from .console import WarnOnce, load_segmenter, print_json
from .shots import read_shots

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    support = read_shots(arguments.shots or [])
    begin = perf_counter()
    task = load_segmenter(arguments).prepare(support)
    task.save(arguments.out)
    seconds = perf_counter() - begin
    WarnOnce()(task.notes)
    size = Path(arguments.out).stat().st_size
    if arguments.json:
        summary = {"task": str(arguments.out), "file_bytes": size, "seconds": round(seconds, 3)}
        print_json({**summary, **task.info(), "warnings": list(task.notes)})
        return 0
    print(f"{arguments.out}: {size / 1024:.1f} KiB, made in {seconds:.2f} s")
    for label, (name, shots) in enumerate(support.items(), 1):
        print(f"  {label}  {name}: {len(shots)} shot{'s' if len(shots) != 1 else ''}")
    return 0
