"""Where engines lie: a private folder, one lock, files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import BackendError, InputError

__all__ = ["Folder", "UnwritableError", "default_folder", "default_most_bytes"]

VARIABLE = "FSSEG_ENGINE_CACHE"
SIZE_VARIABLE = "FSSEG_ENGINE_CACHE_MIB"
DEFAULT_MIB = 4096
_PART = ".part"
_LOCK = "lock"
_POLL_SECONDS = 0.1


class UnwritableError(BackendError):
    """A folder in which nothing can be kept; what was to be kept may still be used once."""


def default_folder() -> Path:
    """FSSEG_ENGINE_CACHE, or fsseg_sdk/engines in the user's folder for caches. BackendError for a
    user without a home."""
    given = os.environ.get(VARIABLE, "")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "fsseg_sdk" / "engines"
    except RuntimeError as error:  # no HOME, and no such user in the system's list
        raise BackendError(
            "engine cache",
            expected="a user with a home folder",
            got="none",
            remedy=f"Set {VARIABLE} to a folder that only this user can write to.",
        ) from error


def default_most_bytes() -> int:
    """FSSEG_ENGINE_CACHE_MIB, or 4 GiB."""
    given = os.environ.get(SIZE_VARIABLE, "") or str(DEFAULT_MIB)
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= 1 << 24:
        raise InputError(
            SIZE_VARIABLE,
            expected=f"a number of MiB from 1 to {1 << 24}",
            got=repr(given),
            remedy=f"Leave it out for {DEFAULT_MIB}.",
        )
    return int(given) << 20


class Folder:
    """A folder that only this user can enter (mode 0700), made when it is first written to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """The folder, private; UnwritableError where it cannot be made, BackendError where others
        can write to it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        except OSError as error:
            raise self._unwritable(error) from error
        self.check()

    def check(self) -> bool:
        """Whether the folder is there; BackendError if it is no private folder of this user."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unwritable(error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise self._unusable("something that is no folder")
        if status.st_uid != os.geteuid():
            raise self._unusable("a folder of another user")
        if status.st_mode & 0o022:
            raise self._unusable(
                f"a folder that others can write to (mode {status.st_mode & 0o777:o})"
            )
        return True

    def files(self, suffix: str) -> list[Path]:
        """The plain files with this suffix, by name; links are left alone."""
        if not self.check():
            return []
        with os.scandir(self.path) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False)
            )

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> Path:
        """The whole file, in place of an older one, or nothing. BackendError for a full disk."""
        self.make()
        path = self.path / name
        temporary = self.path / f".{secrets.token_hex(8)}{_PART}"
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise BackendError(
                f"engine cache {str(self.path)!r}",
                expected=f"room for {sum(memoryview(part).nbytes for part in parts)} bytes",
                got=error.strerror or str(error),
                remedy=f"Free space ('fsseg engine clear'), or set {VARIABLE} to another folder.",
            ) from error
        finally:  # also after Ctrl-C: no half a file is left
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    @contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """One process (and one thread) at a time; the system frees it when its holder dies.

        One lock for the whole folder: engines are measured while they are built, so two builds at
        once would disturb each other, and a small board has memory for one. waiting: called once
        if somebody else holds it.
        """
        self.make()
        try:
            descriptor = os.open(
                self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            while not _try_lock(descriptor, self):
                if waiting is not None:
                    waiting()
                    waiting = None
                time.sleep(_POLL_SECONDS)
            for rest in self.files(_PART):  # of a process that was killed: nobody else writes now
                with suppress(OSError):
                    rest.unlink()
            yield
        finally:
            # Closing alone would leave it to a process that was forked meanwhile.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(
            f"engine cache {str(self.path)!r}",
            expected="a folder that can be written to",
            got=error.strerror or str(error),
            remedy=f"Make it writable, or set {VARIABLE} to another folder; until then engines are "
            "built at every start.",
        )

    def _unusable(self, got: str) -> BackendError:
        return BackendError(
            f"engine cache {str(self.path)!r}",
            expected="a folder that only this user can write to: engines are native code",
            got=got,
            remedy=f"Make it private ('chmod 700'), or set {VARIABLE} to another folder.",
        )


def _try_lock(descriptor: int, folder: Folder) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise folder._unwritable(error) from error  # no locks there
    return True
