"""What a process that has just started pays: imports, the first mask, memory.

`run_fresh` starts a Python that imports nothing but this module (no numpy yet), lets one of the
functions below measure itself, and returns what that prints. Only the standard library is imported
up here, and as little of it as possible: what is loaded before the clock starts looks free.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IMPORT = """
import sys, time
begin = time.perf_counter()
import fsseg_sdk
middle = time.perf_counter()
loaded = [name for name in ("numpy", "PIL", "onnxruntime", "torch") if name in sys.modules]
again = time.perf_counter()
from fsseg_sdk import Box, Scribble, Segmenter
end = time.perf_counter()
later = [name for name in ("numpy", "PIL", "onnxruntime", "torch") if name in sys.modules]
import json
seconds = {"import": middle - begin, "names": middle - begin + end - again}
print(json.dumps({**seconds, "loaded": loaded, "loaded_by_names": later}))
"""
"""`import fsseg_sdk`, and with that its public names, each of which loads what it needs."""


def first_mask(bundle: str, folder: str, threads: int) -> dict[str, Any]:
    """Seconds from before `import fsseg_sdk` to the first mask, by step; arrays of pictures are
    read from files in between, which does not count. processor: of these, what was computed."""
    begin, computed = time.perf_counter(), time.process_time()
    from fsseg_sdk import Segmenter

    imported = time.perf_counter()
    segmenter = Segmenter.load(bundle, threads=threads)
    loaded = time.perf_counter()
    before = time.process_time()
    support, mask, query = arrays(folder)
    read, computed = time.perf_counter(), computed + time.process_time() - before
    task = segmenter.prepare({"bolt": [(support, mask)]})
    prepared = time.perf_counter()
    found = task.segment(query).mask
    end = time.perf_counter()
    return {
        "import": imported - begin,
        "load": loaded - imported,
        "prepare": prepared - read,
        "segment": end - prepared,
        "total": loaded - begin + end - read,
        "processor": time.process_time() - computed,
        "shape": list(found.shape),
    }


def memory(bundle: str, folder: str, threads: int, jpeg: bool, further: int) -> dict[str, Any]:
    """Resident megabytes after each stage: now, and the most so far; and growth by more queries."""
    stages = {"start": resident()}
    from fsseg_sdk import Segmenter

    stages["import"] = resident()
    segmenter = Segmenter.load(bundle, threads=threads)
    stages["load"] = resident()
    if jpeg:
        mask_path = f"{folder}/mask.png"
        task = segmenter.prepare({"bolt": [(f"{folder}/support.jpg", mask_path)]})
        query: Any = f"{folder}/query.jpg"
    else:
        support, mask, query = arrays(folder)
        task = segmenter.prepare({"bolt": [(support, mask)]})
    stages["prepare"] = resident()
    task.segment(query)
    stages["segment"] = resident()
    for _ in range(further):
        task.segment(query)
    stages[f"{further} more"] = resident()
    return {"stages": stages}


def arrays(folder: str) -> list[Any]:
    """Support, mask and query as numpy arrays."""
    import numpy as np

    return [
        np.load(f"{folder}/{name}.npy", allow_pickle=False) for name in ("support", "mask", "query")
    ]


def resident() -> dict[str, float]:
    """MB (10^6 bytes) of this process: VmRSS, VmHWM of /proc/self/status."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {
        name: int(fields[key].split()[0]) * 1024 / 1e6
        for name, key in (("now", "VmRSS"), ("most", "VmHWM"))
    }


def write_pictures(folder: Any) -> int:
    """What the functions above read, into ``folder``; returns the size of the query's JPEG."""
    import numpy as np
    from PIL import Image

    from benchmarks.pictures import pictures_of

    pictures = pictures_of()
    for name in ("support", "mask", "query"):
        np.save(f"{folder}/{name}.npy", getattr(pictures, name))
    Image.fromarray(pictures.support).save(f"{folder}/support.jpg", quality=92)
    Image.fromarray(pictures.mask).save(f"{folder}/mask.png")
    data = pictures.jpeg()
    with open(f"{folder}/query.jpg", "wb") as file:
        file.write(data)
    return len(data)


def run_fresh(what: str, **arguments: object) -> dict[str, Any]:
    """The answer of "import", "first_mask" or "memory" in a process of its own, and "process": its
    seconds from start to end as its parent sees them. Raises SystemExit with what it said where it
    failed."""
    import json

    call = ["-c", IMPORT]
    if what != "import":
        call = ["-m", "benchmarks.fresh", what, json.dumps(arguments)]
    begin = time.perf_counter()
    answer = _answer(call)
    return {**answer, "process": time.perf_counter() - begin}


def run_fresh_module(module: str, **arguments: object) -> dict[str, Any]:
    """What a module of the benchmarks prints, given these as JSON, in a process of its own. Raises
    SystemExit with what it said where it failed."""
    import json

    return _answer(["-m", module, json.dumps(arguments)])


def _answer(call: list[str]) -> dict[str, Any]:
    import json
    import os
    import subprocess
    from pathlib import Path

    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, *call], capture_output=True, text=True, env=environment, cwd=root
    )
    if done.returncode != 0:
        raise SystemExit(f"a fresh process failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    import json

    given = json.loads(sys.argv[2])
    print(json.dumps(memory(**given) if sys.argv[1] == "memory" else first_mask(**given)))
