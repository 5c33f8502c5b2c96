"""Engines that were built on this machine, found again; and the reason where one is of no use.

A file is called after its graph and the digest of its key, so engines of two GPUs or precisions lie
side by side. Whether one still fits is decided by its header alone: no runtime is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from ..errors import BackendError
from .file import Engine, Header, pack, read_engine, read_header
from .folder import SIZE_VARIABLE, Folder, UnwritableError, default_folder, default_most_bytes
from .key import EngineKey, differences

__all__ = ["Built", "Entry", "EngineCache", "Obtained"]

SUFFIX, TIMING = ".engine", ".timing"


@dataclass(frozen=True)
class Built:
    """A new plan; notes: how it was built, plain JSON for the header."""

    plan: bytes | memoryview
    notes: Mapping[str, object]


@dataclass(frozen=True)
class Obtained:
    """A plan that fits. path: its file, None where it could not be kept (`unkept` says why).

    reason: why it had to be built; "" where it was found. check_seconds: what the cache's own
    checks took, without building.
    """

    plan: bytes | memoryview
    path: Path | None
    reason: str
    unkept: str
    notes: Mapping[str, object]
    check_seconds: float


@dataclass(frozen=True)
class Entry:
    """A file of the cache. header: None where it is damaged; `fault` says how."""

    path: Path
    bytes: int
    used: float
    header: Header | None
    fault: str


class EngineCache:
    """A folder of engines with a cap on its size; what was used longest ago goes first. Engines for
    two drivers or TensorRTs (two containers with one home) lie side by side.

    folder, most_bytes: by default FSSEG_ENGINE_CACHE and FSSEG_ENGINE_CACHE_MIB, or
    ~/.cache/fsseg_sdk/engines and 4 GiB.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int | None = None) -> None:
        self.folder = Folder(folder or default_folder())
        self.most_bytes = default_most_bytes() if most_bytes is None else most_bytes

    def find(self, key: EngineKey) -> Engine | str:
        """The engine for `key`, or the reason why there is none."""
        try:
            if not self.folder.check():
                return "no engine has been built here yet"
        except UnwritableError as error:
            return f"nothing can be kept here: {error.got}"
        path = self._path(key)
        try:
            if path.exists() or path.is_symlink():
                found = read_engine(path, key)
                if isinstance(found, Engine):
                    with suppress(OSError):
                        os.utime(path)  # used now: the last to be evicted
                    return found
                return "; ".join(differences(found.key, key))
        except BackendError as error:
            return f"{error.expected} was expected in {path.name}, and {error.got} found"
        return self._nearest(key)

    def obtain(
        self,
        key: EngineKey,
        build: Callable[[], Built],
        *,
        refused: str = "",
        starting: Callable[[str], None] | None = None,
        waiting: Callable[[], None] | None = None,
    ) -> Obtained:
        """The engine for `key`: found, or built by `build` and kept. One builds, the others wait.

        refused: why an engine that was found is of no use after all; it is built anew then.
        starting: called with the reason before a build; waiting: called if another process builds.
        A folder that is full, read-only or cannot be made does not lose the plan: see
        `Obtained.unkept`. Raises BackendError for a folder that is not private, and whatever
        `build` raises.
        """
        begin = perf_counter()
        found = refused or self.find(key)
        spent = perf_counter() - begin
        if isinstance(found, Engine):
            return _kept(found, self._path(key), spent)
        with ExitStack() as held:
            unkept = ""
            try:
                held.enter_context(self.folder.locked(waiting))
            except UnwritableError as error:
                unkept = str(error)
            again = refused or self.find(key)  # another process may have built it meanwhile
            if isinstance(again, Engine):
                return _kept(again, self._path(key), spent)
            if starting is not None:
                starting(again)
            built, path = build(), None
            try:
                path = None if unkept else self._put(key, built)
            except BackendError as error:
                unkept = str(error)
        return Obtained(built.plan, path, again, unkept, built.notes, spent)

    def entries(self) -> list[Entry]:
        """Every engine in the folder, the one used last first."""
        found = []
        for path in self.folder.files(SUFFIX):
            header, fault = None, ""
            try:
                header = read_header(path)
            except BackendError as error:
                fault = f"expected {error.expected}, got {error.got}"
            with suppress(OSError):
                status = path.stat()
                found.append(Entry(path, status.st_size, status.st_mtime, header, fault))
        return sorted(found, key=lambda entry: (-entry.used, entry.path.name))

    def clear(self, which: Callable[[Entry], bool] | None = None) -> list[Entry]:
        """Removes the engines that `which` picks, by default all and what builds measured; returns
        the engines."""
        if not self.folder.check():
            return []
        with self.folder.locked():
            gone = [entry for entry in self.entries() if which is None or which(entry)]
            for entry in gone:
                entry.path.unlink(missing_ok=True)
            for timing in self.folder.files(TIMING) if which is None else ():
                timing.unlink(missing_ok=True)
        return gone

    def read_timing(self, key: EngineKey) -> bytes | None:
        """What earlier builds for the same device and library measured; None without."""
        timing = _timing_key(key)
        try:
            found = read_engine(self._path(timing, TIMING), timing)
        except BackendError:
            return None
        if not isinstance(found, Engine):
            return None
        with suppress(OSError):
            os.utime(self._path(timing, TIMING))
        return bytes(found.plan)

    def write_timing(self, key: EngineKey, data: bytes) -> None:
        """Keeps measurements for the next build; a folder that is full loses no more than these."""
        timing = _timing_key(key)
        with suppress(BackendError):
            self._keep(self._path(timing, TIMING).name, pack(timing, data, {}), data)

    def _path(self, key: EngineKey, suffix: str = SUFFIX) -> Path:
        return self.folder.path / f"{key.graph}-{key.digest}{suffix}"

    def _put(self, key: EngineKey, built: Built) -> Path:
        return self._keep(self._path(key).name, pack(key, built.plan, built.notes), built.plan)

    def _keep(self, name: str, head: bytes, plan: bytes | memoryview) -> Path:
        """Under the lock. What was used longest ago makes room first, engine or measurement; a
        file beyond the cap by itself is an error, and nothing goes for it."""
        size = len(head) + memoryview(plan).nbytes
        if size > self.most_bytes:
            raise BackendError(
                f"engine cache {str(self.folder.path)!r}",
                expected=f"at most {self.most_bytes} bytes, the cap",
                got=f"{size} bytes of {name}",
                remedy=f"Set {SIZE_VARIABLE} to more.",
            )
        self._evict(self.most_bytes - size, name)
        return self.folder.write(name, (head, plan))

    def _evict(self, most: int, replaced: str) -> None:
        used = []
        for path in (*self.folder.files(SUFFIX), *self.folder.files(TIMING)):
            with suppress(OSError):
                status = path.stat()
                if path.name != replaced:
                    used.append((-status.st_mtime, path.name, status.st_size, path))
        total = 0
        for _, _, size, path in sorted(used):
            total += size
            if total > most:
                path.unlink(missing_ok=True)

    def _nearest(self, key: EngineKey) -> str:
        """In what the most similar engine of the cache differs."""
        faults = [
            differences(entry.header.key, key)
            for entry in self.entries()
            if entry.header is not None and entry.header.key.graph == key.graph
        ]
        if not faults:
            return "no engine of this graph is there yet"
        _, nearest = min((len(fault), fault) for fault in faults)
        return "; ".join(nearest)


def _timing_key(key: EngineKey) -> EngineKey:
    """Measurements hold for a device and a library, whatever the graph."""
    return replace(key, graph="timing", onnx_sha256="0" * 64, precision="any", profiles=(), dla=-1)


def _kept(engine: Engine, path: Path, seconds: float) -> Obtained:
    return Obtained(engine.plan, path, "", "", engine.header.build, seconds)
