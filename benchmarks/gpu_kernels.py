"""``python -m benchmarks gpu kernels``: each op as a node of a CUDA graph, beside torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_device import SHORT, Device
from benchmarks.gpu_rows import Form, Row, Tensors, all_rows

MOST_SETS, NODES = 48, 48
MOST_BYTES = 8 << 30
PATIENCE = 80.0  # seconds of the section after which nothing is handed to torch.compile any more
BASELINES = (
    "Baselines: torch with the features' dtype, TF32 off, no dropout. 'eager': calls on a stream, "
    "as published code runs; 'graph': the same calls in a CUDA graph; 'compiled': torch.compile, "
    "in a CUDA graph. All on rotating inputs that together exceed the second-level cache."
)


def doubled(tensors: Tensors) -> Tensors:
    return {k: t if t.dtype == torch.uint8 else t.double() for k, t in tensors.items()}


def error_of(found: Any, expected: Any) -> float:
    """Relative to the largest value; of labels, the share that differs. NaN stays NaN."""
    found = np.asarray(found)
    if found.dtype == np.uint8:
        return float((found != expected).mean())
    if found.shape != expected.shape:  # distance_stats also gives the mean
        found = found[..., : expected.shape[-1]].reshape(expected.shape)
    return float((np.abs(found - expected) / np.abs(expected).max()).max())


def bytes_of(tensors: Mapping[str, torch.Tensor], used: Any) -> int:
    """Each input once, each result once."""
    return sum(t.numel() * t.element_size() for t in tensors.values()) + int(used.nbytes)


def measure(device: Device, row: Row, dtype: torch.dtype, limits: dict[str, float]) -> Any:
    """All figures of a row; SystemExit where a result is wrong."""
    given = row.make(device, row.size, dtype, 0)
    call = row.bind(device, device.arrays(given), row.size)
    expected = next(iter(row.torch_forms.values()))(doubled(given)).cpu().numpy()
    array = call()
    result = array.to_host()
    read = {name: t for name, t in given.items() if name not in row.unread}
    error = error_of(result, expected)
    figures: dict[str, Any] = {
        "name": row.name,
        "size": str(row.size),
        "dtype": SHORT[dtype],
        "error": error,
        "tolerance": row.tolerance,
        "bytes": bytes_of(read, array),
        "flops": row.flops,
        "right": bool(error <= row.tolerance),
        "errors_of_torch": {},
    }
    for name, form in row.torch_forms.items():
        figures["errors_of_torch"][name] = error_of(form(given).float().cpu().numpy(), expected)
    if not figures["right"] or not device.timed:
        return figures
    del expected, result, array
    return figures | _times(device, row, dtype, given, figures, limits)


def _times(
    device: Device,
    row: Row,
    dtype: torch.dtype,
    given: Tensors,
    figures: dict[str, Any],
    limits: dict[str, float],
) -> dict[str, Any]:
    one = max(1, sum(t.numel() * t.element_size() for t in given.values()))
    sets = max(2, min(MOST_SETS, 1 + 4 * device.cache // one, MOST_BYTES // one))
    tensors = [given, *(row.make(device, row.size, dtype, seed) for seed in range(1, sets))]
    calls = [row.bind(device, device.arrays(t), row.size) for t in tensors]
    slow = row.flops > 1e10 or row.name.startswith(("logistic", "prototype_fusion"))
    nodes = sets if slow else max(NODES, sets)
    before = device.context._allocations
    seconds = {
        "op": device.graph_seconds(calls, nodes),
        "op, same inputs": device.graph_seconds(calls[:1], nodes),
    }
    found: dict[str, Any] = {"sets": sets, "nodes": nodes, "failures": {}}
    found["allocations"] = device.context._allocations - before
    for name, form in row.torch_forms.items():
        for kind in ("eager", "graph", *(["compiled"] if row.compiled else [])):
            try:
                seconds[f"torch {name}, {kind}"] = _torch_seconds(device, form, kind, tensors)
            except Exception as error:  # noqa: BLE001 - of compilers of all kinds; others go on
                found["failures"][f"torch {name}, {kind}"] = f"{type(error).__name__}: {error}"
    floor = figures["bytes"] / limits["copy"]
    if row.flops:
        floor = max(floor, row.flops / limits[row.unit])
    found["roofline"] = floor / seconds["op"]
    found["of_copy"] = figures["bytes"] / seconds["op"] / limits["copy"]
    found["seconds"] = seconds
    found["ratios"] = {n: s / seconds["op"] for n, s in seconds.items() if n.startswith("torch")}
    target = row.targets.get(SHORT[dtype])
    if target is not None:
        found |= {"target_us": target, "reached": seconds["op"] * 1e6 <= target}
    if row.share is not None:
        found |= {"target_share": row.share, "reached": found["of_copy"] >= row.share}
    return found


def _torch_seconds(device: Device, form: Form, kind: str, tensors: list[Tensors]) -> float:
    if kind == "eager":
        turns = count()
        call = lambda: form(tensors[next(turns) % len(tensors)])  # noqa: E731
        return device.event_seconds(call, 2 * len(tensors))
    if kind == "compiled":
        form = device.compiled(form)
    # default arguments: each call has its own inputs
    calls = [lambda t=t: form(t) for t in tensors]
    return device.graph_seconds(calls, max(len(calls), 12))


def run(device: Device, limits: dict[str, float], only: str = "") -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for row in all_rows(device.emulated):
        if time.perf_counter() - begin > PATIENCE:
            row = replace(row, compiled=False)
        for dtype in row.dtypes:
            if only not in row.name:
                continue
            where = f"{row.name} [{row.size}] {SHORT[dtype]}"
            try:
                rows.append(measure(device, row, dtype, limits))
            except Exception as error:  # noqa: BLE001 - one that fails is told, others go on
                said = f"{type(error).__name__}: {error}"
                short = {"name": row.name, "size": str(row.size), "dtype": SHORT[dtype]}
                rows.append({**short, "right": False, "failure": said})
            if not device.emulated:
                torch.cuda.empty_cache()
                device.context.trim()
            print(f"{where}: {_line(rows[-1])}", flush=True)
    return {"rows": rows, "baselines": BASELINES, "passed": all(r["right"] for r in rows)}


def _line(row: dict[str, Any]) -> str:
    if "failure" in row:
        return f"FAILED: {row['failure']}"
    if not row["right"]:
        return f"WRONG by {row['error']:.1e}"
    if "seconds" not in row:
        return f"right to {row['error']:.1e}"
    return f"{row['seconds']['op'] * 1e6:.2f} us, {100 * row['roofline']:.0f} % of the roofline"


def table(result: dict[str, Any]) -> list[list[str]]:
    heads = "op,size,type,error,us,in cache,% copy,% roof,target,eager,graph,compiled"
    cells = [heads.split(",")]
    for row in result["rows"]:
        first = [row["name"], row["size"], row["dtype"]]
        if "failure" in row:
            cells.append([*first, "FAILED", *[""] * 8])
            continue
        line = [*first, f"{row['error']:.0e}{'' if row['right'] else ' WRONG'}"]
        if "seconds" not in row:
            cells.append([*line, *["-"] * 8])
            continue
        seconds = row["seconds"]
        target = ""
        if "reached" in row:
            asked = f"{100 * row['target_share']:.0f} % of copy" if "target_share" in row else ""
            asked = asked or f"{row['target_us']:g} us"
            target = f"{asked}: {'yes' if row['reached'] else 'NO'}"
        line += [f"{seconds[name] * 1e6:.2f}" for name in ("op", "op, same inputs")]
        line += [f"{100 * row['of_copy']:.0f}", f"{100 * row['roofline']:.0f}", target]
        for kind in ("eager", "graph", "compiled"):
            best = [x for name, x in row["ratios"].items() if name.endswith(", " + kind)]
            line.append(f"{min(best):.1f}x" if best else "-")
        cells.append(line)
    return cells
