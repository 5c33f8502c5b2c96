"""What works on this machine: a small graph, run for real on each backend and device."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import InputError
from . import registry
from .graph import BackendStatus, GraphSpec, TensorInfo

__all__ = ["PROBE", "PROBE_SPEC", "has_device", "probe", "probed"]

# features = image + 1 on [batch, 3, 2, 2]: small, and every runtime must get it right.
PROBE = bytes.fromhex(
    "080712003a82010a1b0a05696d6167650a036f6e65120866656174757265732203416464120570726f62652a"
    "0d100142036f6e654a040000803f5a240a05696d616765121b0a19080112150a07120562617463680a020803"
    "0a0208020a02080262270a086665617475726573121b0a19080112150a07120562617463680a0208030a0208"
    "020a02080242040a00100d"
)
PROBE_SPEC = GraphSpec(
    "probe.onnx",
    (TensorInfo("image", "float32", (-1, 3, 2, 2)),),
    (TensorInfo("features", "float32", (-1, 3, 2, 2)),),
)


def probe() -> list[BackendStatus]:
    """Runs a small graph on each backend and device, and says how that went; never raises for a
    broken one."""
    found = []
    for name in registry.NAMES:
        for device in registry.module_of(name).devices():
            try:
                found.append(_probe(name, device))
            except InputError as error:  # of an environment variable; loading raises it
                found.append(BackendStatus(name, False, str(error), None, device, ()))
    return found


def _probe(name: str, device: str) -> BackendStatus:
    feeds = {"image": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}
    status: BackendStatus = registry.module_of(name).probe(PROBE, PROBE_SPEC, feeds, device)
    return status


probed = cache(_probe)
"""What `auto` asks: once in a process. Raises InputError for an environment variable."""


def has_device(device: str) -> bool:
    """Whether the machine has that device: without a driver nobody waits for a GPU."""
    from .tensorrt.driver import probe_driver

    return device == "cpu" or bool(probe_driver().devices)
