"""benchmarks.gpu on an emulated device that pretends to be timed: what comes after the checks.

python -m tests.benchmarks.gpu_pretended FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu
from benchmarks.gpu_device import Device

LIMITS = {"copy": 4e12, "fp16": 7e14, "bf16": 7e14, "tf32": 3.5e14, "fp32": 5e13}


class Graph:
    """Replays nothing: an emulated op runs when it is called."""

    def replay(self) -> None:
        return None


class Pretended(Device):
    timed = True

    def captured(self, call: Any) -> tuple[Any, Any]:
        return Graph(), call()

    def graph_seconds(self, calls: Any, nodes: int) -> float:
        for node in range(min(nodes, 3)):
            calls[node % len(calls)]()
        return 5e-6

    def event_seconds(self, call: Any, count: int) -> float:
        call()
        return 1e-4

    def compiled(self, form: Any) -> Any:
        return form

    def limits(self) -> dict[str, float]:
        return LIMITS


def main() -> int:
    folder = Path(sys.argv[1])
    (folder / "limits.json").write_text(json.dumps(LIMITS))
    torch.manual_seed(0)
    import benchmarks.gpu_device as module

    module.Device = Pretended  # type: ignore[misc]
    return gpu.measure(["kernels", "online_mlp", "pipeline"], folder, "")


if __name__ == "__main__":
    sys.exit(main())
