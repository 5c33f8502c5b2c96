"""Timing, and where it was done: shared by all benchmarks."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import ops
from fsseg_sdk.backends import Graph


def medians(
    functions: Mapping[str, Callable[[], object]],
    seconds: float = 1.0,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each function, called in turn: a busy moment hits all alike.

    Each is called once before, unmeasured. Rounds go on for ``seconds``, at least ``least``.
    clock: ``time.thread_time`` measures what one thread computes, however busy the machine is.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def clock_of(threads: int) -> Callable[[], float]:
    """One thread is timed by the processor's time: other work on the machine does not count."""
    return time.process_time if threads == 1 else time.perf_counter


class TimedGraph:
    """A graph and the seconds that it has run."""

    def __init__(self, graph: Graph, clock: Callable[[], float]) -> None:
        self.graph, self.clock, self.seconds = graph, clock, 0.0
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.backend, self.device, self.precision = graph.backend, graph.device, graph.precision

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        begin = self.clock()
        found = self.graph.run(feeds)
        self.seconds += self.clock() - begin
        return found


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": [round(x, 2) for x in load],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernels": ops.build_info(),
    }


def aligned(array: Any) -> Any:
    """A copy that starts at a page, as the output of an encoder does (numpy's own may not)."""
    memory = np.empty(array.nbytes + 4096, np.uint8)
    start = -memory.ctypes.data % 4096
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def write_json(path: str | None, result: Mapping[str, Any]) -> None:
    """``--json FILE``; None writes nothing."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
