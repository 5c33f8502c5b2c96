"""Which TensorRT: the module is a parameter of everything else in this package."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, cast

from ...errors import BackendError
from ..checks import printable
from .api import Module

__all__ = ["MODULES", "Log", "find_module", "make_logger"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
"""Backend: the module that it imports."""

INSTALL = {
    "tensorrt": "Install TensorRT 10.3 to 11.x: JetPack brings it; on a server 'pip install "
    "tensorrt-cu13' from NVIDIA's index, or 'apt install tensorrt python3-libnvinfer'.",
    "tensorrt-rtx": "pip install --no-deps tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
}
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 4)}
_NEWEST = {"tensorrt": 11, "tensorrt-rtx": 1}  # major versions
_KEEP = 40


def find_module(backend: str) -> Module:
    """The imported module. BackendError where it is missing, broken, or of a version that this
    package does not know. Call it after the driver was found, or to build without a device."""
    name = MODULES[backend]
    try:
        module = import_module(name)
        version = str(module.__version__)
        missing = [
            part for part in ("Builder", "OnnxParser", "Runtime") if not hasattr(module, part)
        ]
    except (ImportError, AttributeError, OSError) as error:
        text = " ".join(str(error).split())[:300]
        raise BackendError(
            f"backend {backend!r}",
            expected=f"the Python package {name!r}, which is not part of fsseg_sdk",
            got=text or type(error).__name__,
            remedy=INSTALL[backend],
        ) from error
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    oldest, newest = _OLDEST[backend], _NEWEST[backend]
    if missing or len(numbers) < 2 or tuple(numbers) < oldest or numbers[0] > newest:
        raise BackendError(
            f"backend {backend!r}",
            expected=f"{name} from {oldest[0]}.{oldest[1]} to {newest}.x, with builder and parser",
            got=f"version {version}" + (f" without {', '.join(missing)}" if missing else ""),
            remedy=INSTALL[backend],
        )
    return cast(Module, module)


class Log:
    """The last lines that TensorRT said, the worst of them apart. Nothing is printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []

    def add(self, kind: str, text: str) -> None:
        line = printable(text)[:500]
        if kind in ("ERROR", "INTERNAL_ERROR"):
            self.errors = [*self.errors, line][-_KEEP:]
        if kind != "VERBOSE":
            self.lines = [*self.lines, f"{kind.lower()}: {line}"][-_KEEP:]

    def worst(self) -> str:
        """For an error of ours: the first failure explains the ones after it."""
        return "; ".join(self.errors[:2])[:400] or "no reason given"


def make_logger(trt: Module, log: Log) -> Any:
    """TensorRT's logger that writes to `log`. Python must keep it as long as what uses it."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.add(str(getattr(severity, "name", severity)), msg)

    return Logger()
