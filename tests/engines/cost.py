"""What the engine cache's own checks cost: `python -m tests.engines.cost [MEGABYTES [CALLS]]`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

from fsseg_sdk.engines import Built, EngineCache
from tests.engines.test_cache import KEY


def least(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """(wall, processor) milliseconds, the least of so many calls."""
    walls, processors = [], []
    for _ in range(calls):
        wall, processor = perf_counter(), process_time()
        call()
        walls.append(perf_counter() - wall)
        processors.append(process_time() - processor)
    return min(walls) * 1e3, min(processors) * 1e3


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    with tempfile.TemporaryDirectory() as folder:
        cache = EngineCache(Path(folder) / "engines")
        plan = os.urandom(int(megabytes * 1e6))
        cache.obtain(KEY, lambda: Built(plan, {}))
        for name, key in (("found", KEY), ("stale", replace(KEY, driver="560.1"))):
            wall, processor = least(lambda key=key: cache.find(key), calls)  # type: ignore[misc]
            print(f"{name}: {wall:.2f} ms, {processor:.2f} ms of the processor ({megabytes:g} MB)")


if __name__ == "__main__":
    main()
