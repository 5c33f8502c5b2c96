"""Task files (.task): what a method keeps of its shots, in a canonical archive.

    manifest.json    format, version, the bundle and encoder it belongs to, classes, arrays
    state/NAME.npy   one array of the state each

A task file means nothing without its encoder, so a reader compares all that decides about features
and refuses what differs, field by field.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .archive import Archive, read_archive, write_archive
from .core import Core
from .errors import InputError, TaskError
from .fields import Fields, thaw
from .methods import State
from .npy import read_npy, write_npy
from .support import MAX_CLASSES

if TYPE_CHECKING:
    from .task import Task

__all__ = ["describe", "read_task", "read_task_info", "write_task"]

_KIND = "fsseg-task"
_TYPES = ("float32", "int64")
_MAX_SHOTS = 1_000_000


def write_task(task: Task, path: str | os.PathLike[str]) -> None:
    """Write `task` to `path`, whole or not at all. TaskError where that cannot be done."""
    arrays = {"way": task.state.way, **task.state.arrays}
    manifest: dict[str, object] = {
        "created_with": f"fsseg_sdk {__version__}",
        **_identity(task.core),
        "classes": list(task.classes),
        "notes": list(task.notes),
        "arrays": {
            name: {"dtype": array.dtype.name, "shape": list(array.shape)}
            for name, array in arrays.items()
        },
    }
    members = {_member(name): write_npy(array) for name, array in arrays.items()}
    write_archive(Path(path), _KIND, manifest, members, TaskError)


def read_task(
    path: str | os.PathLike[str], core: Core
) -> tuple[tuple[str, ...], State, tuple[str, ...]]:
    """(classes, state, notes) of a file made with this core's encoder and method.

    TaskError: damaged, of another version, or made with another encoder; says which field differs.
    """
    archive = read_archive(Path(path), _KIND, TaskError)
    fields = Fields(archive.manifest, "manifest.json", archive.refuse, lenient=True)
    _compare(archive, fields, core)
    classes = _classes(fields, archive)
    arrays = _arrays(fields, archive)
    way = arrays.pop("way")
    if sorted(set(way.tolist())) != list(range(len(classes))):
        raise archive.refuse(
            "member 'state/way.npy'",
            expected=f"shots of each of the {len(classes)} classes",
            got=f"shots of {sorted(set(way.tolist()))[:20]}",
        )
    state = State(way, arrays)
    try:
        core.method.check(state, core.encoder.channels)
    except InputError as error:
        raise archive.refuse(error.argument, expected=error.expected, got=error.got) from error
    return classes, state, tuple(str(note) for note in _list(fields, "notes"))


def read_task_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a task file says about itself, like `Task.info`; needs no bundle. TaskError."""
    archive = read_archive(Path(path), _KIND, TaskError)
    fields = Fields(archive.manifest, "manifest.json", archive.refuse, lenient=True)
    arrays = _arrays(fields, archive)
    identity = {key: thaw(fields.free(key)) for key in ("bundle", "method", "encoder")}
    return _describe(identity, _classes(fields, archive), arrays)


def describe(task: Task) -> dict[str, Any]:
    """`Task.info`."""
    arrays = {"way": task.state.way, **task.state.arrays}
    return _describe(_identity(task.core), task.classes, arrays)


def _describe(
    identity: Mapping[str, object],
    classes: tuple[str, ...],
    arrays: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    shots = np.bincount(arrays["way"], minlength=len(classes))
    return {
        **identity,
        "classes": {name: {"shots": int(n)} for name, n in zip(classes, shots, strict=True)},
        "arrays": {
            name: {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.nbytes}
            for name, array in arrays.items()
        },
        "bytes": sum(array.nbytes for array in arrays.values()),
    }


def _identity(core: Core) -> dict[str, object]:
    """All that must agree between a task file and the Segmenter that reads it."""
    encoder = core.encoder
    return {
        "bundle": {"name": core.bundle, "sha256": core.digest or "none: graphs were handed in"},
        "method": {"name": core.method.name, "settings": dict(core.changes)},
        "encoder": {
            "precision": encoder.graph.precision,
            "input_size": list(encoder.input_size),
            "geometry": encoder.geometry,
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "channels": encoder.channels,
            "grid": list(encoder.grid),
        },
    }


def _compare(archive: Archive, fields: Fields, core: Core) -> None:
    differing: list[tuple[str, object, object]] = []
    for part, values in _identity(core).items():
        stored = fields.nested(part)
        for key, ours in dict(values).items():  # type: ignore[call-overload]
            theirs = thaw(stored.any(key))
            if theirs != ours:
                differing.append((f"{part}.{key}", ours, theirs))
    if differing:
        raise archive.refuse(
            ", ".join(name for name, _, _ in differing),
            expected="; ".join(_short(ours) for _, ours, _ in differing),
            got="; ".join(_short(theirs) for _, _, theirs in differing),
            remedy="Open the bundle, method and precision that made it, or prepare it again.",
        )


def _classes(fields: Fields, archive: Archive) -> tuple[str, ...]:
    names = _list(fields, "classes")
    texts = tuple(name for name in names if isinstance(name, str) and name.isprintable() and name)
    if (
        len(texts) != len(names)
        or len(set(texts)) != len(texts)
        or not 1 <= len(texts) <= MAX_CLASSES
    ):
        raise archive.refuse(
            "manifest.json.classes",
            expected=f"1 to {MAX_CLASSES} different names",
            got=f"{names!r:.80}",
        )
    return texts


def _list(fields: Fields, key: str) -> list[object]:
    value = fields.any(key)
    if not isinstance(value, (list, tuple)):
        raise fields.fail(key, "a list", value)
    return list(value)


def _arrays(fields: Fields, archive: Archive) -> dict[str, NDArray[Any]]:
    listed = fields.nested("arrays")
    arrays: dict[str, NDArray[Any]] = {}
    for name in listed.names():
        entry = listed.nested(name)
        dtype = entry.choice("dtype", _TYPES)
        shape = entry.integers("shape", range(1, 5), 0, 1 << 40)
        member = _member(name)
        if member not in archive.members:
            raise archive.refuse(f"member {member!r}", expected="an array", got="nothing")
        arrays[name] = read_npy(
            archive.members[member], f"member {member!r}", archive.refuse, dtype=dtype, shape=shape
        )
    if "way" not in arrays or len(arrays) != len(archive.members):
        raise archive.refuse(
            "manifest.json.arrays",
            expected="an entry 'way' and one for every member",
            got=", ".join(arrays) or "none",
        )
    rows = len(arrays["way"])
    for name, array in arrays.items():
        if len(array) != rows or rows > _MAX_SHOTS:
            raise archive.refuse(
                f"member {_member(name)!r}", expected=f"{rows} rows", got=f"{len(array)}"
            )
    way = arrays["way"]
    if way.ndim != 1 or way.dtype != np.int64 or not ((way >= 0) & (way < MAX_CLASSES)).all():
        raise archive.refuse(
            "member 'state/way.npy'", expected="int64 class numbers", got=f"{way[:8]!r}"
        )
    return arrays


def _member(name: str) -> str:
    return f"state/{name}.npy"


def _short(value: object) -> str:
    return f"{value[:16]}…" if isinstance(value, str) and len(value) == 64 else str(value)
