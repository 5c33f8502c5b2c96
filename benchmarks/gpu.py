"""Ops, classifier and pipeline on a CUDA device, beside torch and the device's own limits.

    python -m benchmarks gpu [SECTION ...] [--out FOLDER] [--only WORDS]
    python -m benchmarks gpu --check            on an emulated device: all but the times
    python -m benchmarks gpu --table FOLDER     what a run has left there

Sections: kernels, online_mlp, pipeline, providers (ONNX Runtime's CUDA provider and TensorRT-RTX,
where they are installed). Results are checked against double precision before they are timed; each
section writes FOLDER/SECTION.json. The exit status says whether all results were right; targets
that are missed are said in the table alone. benchmarks/gpu_run.sh runs this and all else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

SECTIONS = {
    "kernels": "benchmarks.gpu_kernels",
    "online_mlp": "benchmarks.gpu_mlp",
    "pipeline": "benchmarks.gpu_pipeline",
    "providers": "benchmarks.gpu_providers",
}
STEPS = "steps.tsv"  # of gpu_run.sh: step, status, seconds, remark


def measure(names: Sequence[str], folder: Path, only: str) -> int:
    """0 where all results are right."""
    from benchmarks.gpu_device import Device

    device = Device()
    limits_file = folder / "limits.json"
    if limits_file.is_file():  # measured once for all sections
        limits = json.loads(limits_file.read_text())
    else:
        limits = device.limits()
        limits_file.write_text(json.dumps(limits, indent=1) + "\n")
    failed = 0
    for name in names:
        begin = time.perf_counter()
        module = import_module(SECTIONS[name])
        words = (only,) if name == "kernels" else ()
        result: dict[str, Any] = module.run(device, limits, *words)
        result |= {"facts": device.facts(), "limits": limits, "date": time.strftime("%Y-%m-%d")}
        result["took_s"] = round(time.perf_counter() - begin, 1)
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print("\n".join(section_lines(name, result)), flush=True)
        print(f"{name}: {'all right' if result['passed'] else 'NOT all right, see above'}")
        failed += not result["passed"]
    return 1 if failed else 0


def section_lines(name: str, result: Mapping[str, Any]) -> list[str]:
    said = "all right" if result["passed"] else "NOT all right"
    lines = ["", f"== {name}: {said} ({result['took_s']:g} s)"]
    if "baselines" in result:
        lines.append(result["baselines"])
    return [*lines, columns(import_module(SECTIONS[name]).table(result))]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines whose columns lie under each other; one of a single cell is as long as it is."""
    widths = [
        max((len(row[i]) for row in rows if 1 < len(row) > i), default=0)
        for i in range(len(rows[0]))
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )


def show(folder: Path) -> str:
    """Everything that a run has left in the folder, as text."""
    lines: list[str] = []
    steps = folder / STEPS
    if steps.is_file():
        rows = [line.split("\t") for line in steps.read_text().splitlines()]
        lines += [columns([["step", "status", "s", "remark"], *rows])]
    found = {name: folder / f"{name}.json" for name in SECTIONS}
    results = {n: json.loads(file.read_text()) for n, file in found.items() if file.is_file()}
    for result in list(results.values())[:1]:
        facts, limits = result["facts"], result["limits"]
        words = [f"{k} {v}" for k, v in facts.items() if k != "kernels"]
        lines += ["", f"{result['date']}: " + ", ".join(words)]
        rates = [f"{k} {v / 1e12:.2f} TFLOP/s" for k, v in limits.items() if k != "copy"]
        if limits:
            copied = f"copy {limits['copy'] / 1e9:.0f} GB/s (read and written)"
            lines.append("measured: " + ", ".join([copied, *rates]))
    for name, result in results.items():
        lines += section_lines(name, result)
    for file in sorted(folder.glob("ladder_*.json")):
        lines += ["", *_ladder(json.loads(file.read_text()))]
    return "\n".join(lines)


def _ladder(result: Mapping[str, Any]) -> list[str]:
    cells = [["step", "case", "type", "cold us", "warm us", "% copy", "% peak"]]
    for row in result["rows"]:
        first = [f"{row['step']} {row['name']}", row["case"], row["dtype"]]
        times = [f"{row[key]:.2f}" for key in ("cold_us", "warm_us")]
        shares = [f"{100 * row[key]:.0f}" for key in ("share_of_copy", "share_of_peak")]
        cells.append([*first, *times, *shares])
    return [f"== ladder of {result['op']}", columns(cells)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", metavar="FOLDER", default="bench-out/gpu")
    parser.add_argument("--only", default="", help="kernels: rows whose name holds this")
    parser.add_argument("--check", action="store_true", help="insist on an emulated device")
    parser.add_argument("--table", metavar="FOLDER", help="only print what is there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    if options.table:
        print(show(Path(options.table)))
        return 0
    from fsseg_sdk.ops.device import device_state

    state = device_state()
    emulated = "emulated" in state["reason"]
    if not state["devices"] or (options.check and not emulated):
        wanted = "an emulated device (FSSEG_CUDA=emulated)" if options.check else "a CUDA device"
        print(f"benchmarks gpu: expected {wanted}; this build: {state['reason']}")
        return 2
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    return measure(options.sections or list(SECTIONS), folder, options.only)
