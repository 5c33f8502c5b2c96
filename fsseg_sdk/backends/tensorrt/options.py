"""What can be chosen when an engine is built, and must be the same when it is looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import BackendError, InputError
from ..graph import GraphSpec, TensorInfo

__all__ = ["VARIABLE", "BuildOptions", "Profile", "profiles_of", "read_options"]

VARIABLE = "FSSEG_TENSORRT"
MAX_BATCH = 64
_RANGES = {"batch": (1, MAX_BATCH), "workspace": (16, 1 << 20), "dla": (0, 15)}


@dataclass(frozen=True)
class BuildOptions:
    """batch: the most pictures in one call of the engine; more are run in several. It is tuned for
    one. workspace: MiB of memory that the build may use for a layer, None for what suits the
    device. dla: a core of the deep learning accelerator (Jetson Orin), -1 for the GPU."""

    batch: int = 8
    workspace: int | None = None
    dla: int = -1


def read_options(text: str | None = None) -> BuildOptions:
    """From "batch=1,workspace=512,dla=0", by default the environment's FSSEG_TENSORRT."""
    given = os.environ.get(VARIABLE, "") if text is None else text
    options, seen = BuildOptions(), set()
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, _, value = part.partition("=")
        low, high = _RANGES.get(name, (1, 0))
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high) or name in seen:
            ranges = ", ".join(f"{key}={a}..{b}" for key, (a, b) in _RANGES.items())
            raise InputError(
                VARIABLE,
                expected=f"a list such as 'batch=1,workspace=512' ({ranges}), each once",
                got=repr(given[:80]),
                remedy="Leave it out for what suits the device.",
            )
        seen.add(name)
        options = replace(options, **{name: int(value)})
    return options


@dataclass(frozen=True)
class Profile:
    """The shapes of one input that an engine serves: smallest, the one it is tuned for, largest."""

    name: str
    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    def __str__(self) -> str:
        shapes = ("x".join(map(str, shape)) for shape in (self.least, self.best, self.most))
        return f"{self.name} {' '.join(shapes)}"


def profiles_of(spec: GraphSpec, options: BuildOptions) -> tuple[Profile, ...]:
    """One for each input whose first axis is free. BackendError where another axis is."""
    return tuple(
        Profile(
            info.name,
            _shape(info, 1, spec),
            _shape(info, 1, spec),
            _shape(info, options.batch, spec),
        )
        for info in spec.inputs
        if -1 in info.shape
    )


def free_axes(infos: Sequence[TensorInfo]) -> bool:
    """Whether all of these have a free first axis."""
    return all(info.shape[:1] == (-1,) for info in infos)


def _shape(info: TensorInfo, length: int, spec: GraphSpec) -> tuple[int, ...]:
    if -1 in info.shape[1:]:
        raise BackendError(
            f"graph {spec.file!r}",
            expected="inputs whose first axis alone is free",
            got=str(info),
            remedy="Export the graph with fixed sizes; TensorRT needs to know them.",
        )
    return tuple(length if axis == -1 else axis for axis in info.shape)
