"""What this build and machine can do: everything is tried, nothing is only listed."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .board import board
from .errors import FssegError

__all__ = ["drawn_picture", "examine", "machine"]

LEAST_OVERLAP = 0.5
"""Intersection over union with the drawn disc: a working bundle is far above it."""

_PACKAGES = (
    *("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
    *("opencv-python-headless", "opencv-python"),
)


def examine() -> dict[str, Any]:
    """All that `fsseg doctor --json` prints, in plain Python types.

    ok: the default bundle found a drawn disc here. A part that fails says so under its own key;
    this function raises nothing for that.
    """
    kernels = _tried(_kernels)
    default = _tried(_segment_drawn)
    return {
        "ok": bool(default.get("ok")),
        "version": __version__,
        "methods": _methods(),
        "backends": _backends(),
        "simd": kernels.get("simd"),
        "simd_levels": kernels.get("levels", []),
        "bf16": kernels.get("bf16"),
        "cuda": kernels.get("cuda") or _no_cuda(kernels),
        "threads": kernels.get("threads"),
        "kernels": {"ok": "error" not in kernels, "error": kernels.get("error")},
        "default_bundle": default,
        "python": platform.python_version(),
        "packages": packages(),
        "machine": machine(),
    }


def _tried(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return part()
    except FssegError as error:
        return {"ok": False, "error": str(error)}


def _kernels() -> dict[str, Any]:
    from . import ops

    return ops.build_info()


def _no_cuda(kernels: dict[str, Any]) -> dict[str, Any]:
    return {"built": False, "reason": f"the kernels: {kernels.get('error')}", "devices": []}


def _methods() -> list[str]:
    try:
        from . import methods
    except FssegError:  # the kernels, which say so themselves
        return []
    return list(methods.names())


def _backends() -> list[dict[str, Any]]:
    try:
        from . import backends

        return [{**asdict(s), "precisions": list(s.precisions)} for s in backends.probe()]
    except FssegError as error:
        return [{"name": "all", "available": False, "reason": str(error)}]


def _segment_drawn() -> dict[str, Any]:
    """Load the default bundle, show it a disc, and look for it in the mirrored picture."""
    from .segmenter import Segmenter

    begin = perf_counter()
    segmenter = Segmenter.load("default")
    loaded = perf_counter()
    image, masks = drawn_picture(640, 480)
    task = segmenter.prepare({"disc": [(image, masks[0])]})
    result = task.segment(image[:, ::-1])
    truth = masks[0][:, ::-1]
    found = result.raw_labels > 0
    overlap = np.count_nonzero(found & truth) / np.count_nonzero(found | truth)
    return {
        "ok": bool(overlap >= LEAST_OVERLAP),
        "name": segmenter.bundle,
        "backend": segmenter.backend,
        "device": segmenter.device,
        "precision": segmenter.precision,
        "overlap": round(float(overlap), 4),
        "load_ms": round((loaded - begin) * 1e3, 2),
        "query_ms": round(result.timings["total"], 2),
    }


def drawn_picture(
    width: int, height: int, ways: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A drawn picture [H, W, 3] of `ways` discs of different colours on a textured ground, and the
    masks [ways, H, W] of the discs. The same arguments give the same pixels."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    weave = np.sin(columns / 7) * np.sin(rows / 5) * 12 + (rows * 7 + columns * 13) % 17
    image = np.empty((height, width, 3), np.uint8)
    for channel, level in enumerate((96, 108, 116)):
        image[..., channel] = np.clip(level + weave + 24 * rows / height, 0, 255)
    masks = np.zeros((ways, height, width), np.bool_)
    across = int(np.ceil(np.sqrt(ways)))
    pitch = (width / across, height / -(-ways // across))
    radius = 0.32 * min(pitch)
    for way in range(ways):
        x = (way % across + 0.42) * pitch[0]
        y = (way // across + 0.5) * pitch[1]
        distance = np.hypot(columns - x, rows - y)
        masks[way] = distance <= radius
        light = 1 - 0.45 * distance[masks[way]] / radius
        colour = np.array([230, 60 + 37 * way % 180, 40 + 91 * way % 200], np.float32)
        image[masks[way]] = (light[:, None] * colour).astype(np.uint8)
    return image, masks


def packages() -> dict[str, str]:
    """Versions of what is installed, found without importing it."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Facts without which a measured figure means little."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory_gib": _memory(),
        "load": [round(value, 2) for value in os.getloadavg()] if os.name == "posix" else None,
        "system": platform.platform(),
        "board": board(),
        "python": platform.python_version(),
        "executable": sys.executable,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
