"""Task files (.task): what a method keeps of its shots, in a canonical archive.

    manifest.json        format, version, the bundle and encoder it belongs to, classes, arrays
    state/NAME.npy       one array of the state each
    auxiliary/NAME.npy   the same of auxiliary pictures, if there are any (since 1.1)

A task file means nothing without its encoder, so a reader compares all that decides about features
and refuses what differs, field by field.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
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
_VERSION = (1, 1, 0)
_TYPES = ("float32", "int64")
_MAX_ROWS = 1_000_000
_LISTS: Mapping[str, str] = MappingProxyType({"state": "arrays", "auxiliary": "auxiliary"})
"""Folder of members: the manifest's list of them."""


def write_task(task: Task, path: str | os.PathLike[str]) -> None:
    """Write `task` to `path`, whole or not at all. TaskError where that cannot be done."""
    manifest: dict[str, object] = {
        "created_with": f"fsseg_sdk {__version__}",
        **_identity(task.core),
        "classes": list(task.classes),
        "notes": list(task.notes),
    }
    members: dict[str, bytes] = {}
    for part, state in (("state", task.state), ("auxiliary", task.state.auxiliary)):
        if state is not None:
            arrays = _arrays_of(state)
            manifest[_LISTS[part]] = {
                name: {"dtype": array.dtype.name, "shape": list(array.shape)}
                for name, array in arrays.items()
            }
            members |= {_member(part, name): write_npy(array) for name, array in arrays.items()}
    write_archive(Path(path), _KIND, manifest, members, TaskError, version=_VERSION)


def read_task(
    path: str | os.PathLike[str], core: Core
) -> tuple[tuple[str, ...], State, tuple[str, ...]]:
    """(classes, state, notes) of a file made with this core's encoder and method.

    TaskError: damaged, of another version, or made with another encoder; says which field differs.
    """
    archive, fields = _open(path)
    _compare(archive, fields, core)
    classes, state = _classes(fields, archive), _state(fields, archive)
    ways = set(state.way.tolist())
    if sorted(ways) != list(range(len(classes))):
        raise archive.refuse(
            "member 'state/way.npy'",
            expected=f"shots of each of the {len(classes)} classes",
            got=f"shots of {sorted(ways)[:20]}",
        )
    if state.auxiliary is not None:
        if "auxiliary" not in core.method.properties:
            raise archive.refuse(
                "manifest.json.auxiliary",
                expected=f"none: the method {core.method.name!r} takes no such pictures",
                got=f"{len(state.auxiliary)} pictures",
            )
        if not set(state.auxiliary.way.tolist()) <= ways:
            raise archive.refuse(
                "member 'auxiliary/way.npy'",
                expected=f"pictures of the {len(classes)} classes",
                got=f"{state.auxiliary.way[:8]!r}",
            )
    try:
        core.method.check(state, core.encoder.channels, core.encoder.grid)
    except InputError as error:
        raise archive.refuse(error.argument, expected=error.expected, got=error.got) from error
    return classes, state, tuple(str(note) for note in _list(fields, "notes"))


def read_task_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a task file says about itself, like `Task.info`; needs no bundle. TaskError."""
    archive, fields = _open(path)
    identity = {key: thaw(fields.free(key)) for key in ("bundle", "method", "encoder")}
    return _describe(identity, _classes(fields, archive), _state(fields, archive))


def describe(task: Task) -> dict[str, Any]:
    """`Task.info`."""
    return _describe(_identity(task.core), task.classes, task.state)


def _describe(
    identity: Mapping[str, object], classes: tuple[str, ...], state: State
) -> dict[str, Any]:
    entries: dict[str, dict[str, int]] = {name: {} for name in classes}
    arrays: dict[str, NDArray[Any]] = {}
    for counted, prefix, rows in (
        ("shots", "", state),
        ("auxiliary", "auxiliary/", state.auxiliary),
    ):
        if rows is None:
            continue
        numbers = np.bincount(rows.way, minlength=len(classes))
        for entry, number in zip(entries.values(), numbers, strict=False):
            entry[counted] = int(number)
        arrays |= {f"{prefix}{name}": array for name, array in _arrays_of(rows).items()}
    return {
        **identity,
        "classes": entries,
        "arrays": {
            name: {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.nbytes}
            for name, array in arrays.items()
        },
        "bytes": sum(array.nbytes for array in arrays.values()),
    }


def _arrays_of(state: State) -> dict[str, NDArray[Any]]:
    return {"way": state.way, **state.arrays}


def _open(path: str | os.PathLike[str]) -> tuple[Archive, Fields]:
    archive = read_archive(Path(path), _KIND, TaskError, version=_VERSION[:2])
    return archive, Fields(archive.manifest, "manifest.json", archive.refuse, lenient=True)


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


def _state(fields: Fields, archive: Archive) -> State:
    """All rows of the file; ways are class numbers."""
    parts = [part for part, listed in _LISTS.items() if part == "state" or fields.has(listed)]
    states = [_rows(fields.nested(_LISTS[part]), part, archive) for part in parts]
    count = sum(len(_arrays_of(state)) for state in states)
    if count != len(archive.members):
        raise archive.refuse(
            "manifest.json.arrays",
            expected="one entry for every member",
            got=f"{count} for {len(archive.members)}",
        )
    return replace(states[0], auxiliary=states[1] if len(states) > 1 else None)


def _rows(listed: Fields, part: str, archive: Archive) -> State:
    arrays: dict[str, NDArray[Any]] = {}
    for name in listed.names():
        entry = listed.nested(name)
        dtype = entry.choice("dtype", _TYPES)
        shape = entry.integers("shape", range(1, 5), 0, 1 << 40)
        member = _member(part, name)
        if member not in archive.members:
            raise archive.refuse(f"member {member!r}", expected="an array", got="nothing")
        arrays[name] = read_npy(
            archive.members[member], f"member {member!r}", archive.refuse, dtype=dtype, shape=shape
        )
    if "way" not in arrays:
        raise archive.refuse(
            f"manifest.json.{_LISTS[part]}",
            expected="an entry 'way' and one for every member",
            got=", ".join(arrays) or "none",
        )
    way = arrays.pop("way")
    if way.ndim != 1 or way.dtype != np.int64 or not ((way >= 0) & (way < MAX_CLASSES)).all():
        raise archive.refuse(
            f"member {_member(part, 'way')!r}", expected="int64 class numbers", got=f"{way[:8]!r}"
        )
    for name, array in arrays.items():
        if len(array) != len(way) or len(way) > _MAX_ROWS:
            raise archive.refuse(
                f"member {_member(part, name)!r}", expected=f"{len(way)} rows", got=f"{len(array)}"
            )
    return State(way, arrays)


def _member(part: str, name: str) -> str:
    return f"{part}/{name}.npy"


def _short(value: object) -> str:
    return f"{value[:16]}…" if isinstance(value, str) and len(value) == 64 else str(value)
