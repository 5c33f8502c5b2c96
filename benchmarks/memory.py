"""Resident memory of a fresh process that segments 1920x1080 pictures, stage by stage.

    python -m benchmarks memory [--bundle NAME] [--further N]

A process starts, imports fsseg_sdk, loads the bundle, prepares a task from one picture and mask and
segments one query; then as many more. Pictures come as numpy arrays in one process and as JPEG
files in another. "most" is VmHWM of /proc/self/status, so Linux only; one thread by default.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # the processes that are started inherit this

from benchmarks import report  # noqa: E402
from benchmarks.fresh import run_fresh, write_pictures  # noqa: E402
from benchmarks.pictures import SCREEN  # noqa: E402
from fsseg_sdk.errors import FssegError  # noqa: E402
from fsseg_sdk.segmenter import Segmenter  # noqa: E402

TARGET = 200.0  # MB, up to and with the first query
STEPS = {
    "start": "Python alone",
    "import": "after from fsseg_sdk import Segmenter",
    "load": "after Segmenter.load",
    "prepare": "after prepare",
    "segment": "after the first query",
}


def main(arguments: Sequence[str]) -> int:
    parser = report.command("memory", __doc__.split("\n")[0])
    parser.add_argument("--further", type=int, default=200, metavar="N", help="queries after that")
    options = parser.parse_args(arguments)
    if options.further < 0 or options.threads < 1:
        parser.error("--further takes 0 or more, --threads 1 or more")
    if not Path("/proc/self/status").is_file():
        print("left out: this system has no /proc/self/status, where Linux says what is resident")
        return 1
    try:
        name = Segmenter.load(options.bundle, threads=options.threads).bundle
    except FssegError as error:
        parser.error(str(error))
    path = Path(options.bundle)
    bundle = str(path.resolve()) if path.exists() else options.bundle
    kinds: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        size = write_pictures(folder)
        for kind in ("arrays", "JPEG files"):
            kinds[kind] = run_fresh(
                "memory",
                bundle=bundle,
                folder=folder,
                threads=options.threads,
                jpeg=kind != "arrays",
                further=options.further,
            )["stages"]
    print(report.where())
    print(
        f"{name}: 1 class, {SCREEN[1]}x{SCREEN[0]} support and query "
        f"(JPEG: {size / 1e3:.0f} kB), {options.threads} thread(s); MB resident"
    )
    _show(kinds, options.further)
    report.write_report(options.json, options, {"memory_mb": kinds, "target_mb": TARGET})
    if options.plot:
        groups = {
            kind: {STEPS.get(step, step): values["most"] for step, values in steps.items()}
            for kind, steps in kinds.items()
        }
        report.bars(options.plot, [("Resident at most so far", groups, "MB")])
    return 0


def _show(kinds: Mapping[str, Mapping[str, Mapping[str, float]]], further: int) -> None:
    cells = [["", *(text for kind in kinds for text in (f"{kind}: now", "most"))]]
    for step in next(iter(kinds.values())):
        values = [
            f"{stages[step][key]:.1f}" for stages in kinds.values() for key in ("now", "most")
        ]
        cells.append([STEPS.get(step, f"after {step}"), *values])
    print(report.table(cells))
    for kind, stages in kinds.items():
        most = stages["segment"]["most"]
        last = stages[f"{further} more"]
        print(
            f"{kind}: {most:.0f} MB at most up to the first mask (target {TARGET:g}: "
            f"{'yes' if most <= TARGET else 'NO'}); {further} queries later "
            f"{last['now'] - stages['segment']['now']:+.1f} MB, at most {last['most']:.0f} MB"
        )
