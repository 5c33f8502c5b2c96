"""Few-shot segmentation: show one example of something new, find it in other pictures.

``import fsseg_sdk`` costs next to nothing: numpy, Pillow, the kernels and the runtime of a backend
are imported by the first use of a name or a call that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    BackendError,
    BundleError,
    DeviceMemoryError,
    FssegError,
    InputError,
    KernelError,
    TaskError,
)

if TYPE_CHECKING:
    from .result import Result
    from .segmenter import Segmenter
    from .support import Box, Scribble
    from .task import Task

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Box",
    "BundleError",
    "FssegError",
    "InputError",
    "DeviceMemoryError",
    "KernelError",
    "Result",
    "Scribble",
    "Segmenter",
    "Task",
    "TaskError",
    "__version__",
]

_HOME = {  # public name -> the module that defines it, imported on first use
    "Box": "support",
    "Result": "result",
    "Scribble": "support",
    "Segmenter": "segmenter",
    "Task": "task",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
