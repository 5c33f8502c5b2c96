"""Writes canonical archives : all of the file, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import FssegError
from ..fields import Refusal
from . import zip_layout
from .read import DEFAULT_CAPS, MANIFEST, Archive, Caps, comment_of, read_checked

__all__ = ["write_archive"]


def write_archive(
    path: Path | str,
    kind: str,
    manifest: Mapping[str, object],
    members: Mapping[str, bytes],
    error_type: type[FssegError],
    caps: Caps = DEFAULT_CAPS,
    version: tuple[int, int, int] = (1, 0, 0),
    check: Callable[[Archive], object] | None = None,
) -> str:
    """Writes `members` and `manifest` to `path`; returns the archive's digest in hex.

    "format", "format_version" and "members" are put into the manifest here. The same input gives
    the same bytes. A sibling file is written, flushed to the disk, read back and checked,
    handed to `check`, and only then renamed: on any failure `path` is as it was before, and the
    sibling is gone. Raises error_type for a full disk as for content that a reader would refuse.
    """
    path = Path(path)
    head: dict[str, object] = {
        "format": kind,
        "format_version": ".".join(str(number) for number in version),
    }
    listed = {
        name: {"sha256": hashlib.sha256(members[name]).hexdigest(), "bytes": len(members[name])}
        for name in sorted(members)
    }
    document = {**head, **manifest, **head, "members": listed}
    try:
        raw = json.dumps(document, indent=1, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise error_type(
            MANIFEST,
            expected="values that JSON can hold: text, finite numbers, booleans, lists, objects",
            got=str(error),
            remedy="Convert numpy values with .item() or .tolist().",
        ) from error
    for name in members:
        fault = zip_layout.name_fault(name.encode("utf-8", "replace"), caps.name_bytes)
        if fault or name == MANIFEST:
            raise error_type(
                f"member {name!r}",
                expected="a name of lower-case letters, digits, '_', '-', '.' and '/'",
                got=fault or "the manifest's own name",
                remedy="Rename the member.",
            )
    payloads = {MANIFEST: raw, **{name: members[name] for name in sorted(members)}}
    if sum(map(len, payloads.values())) > min(caps.file_bytes, zip_layout.LIMIT // 2):
        raise error_type(
            path.name,
            expected=f"at most {caps.file_bytes} bytes",
            got="more",
            remedy="Use a smaller encoder, or store its weights as float16.",
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        _write(temporary, _pieces(payloads, comment_of(kind, raw)))
        refuse = Refusal(error_type, f"new file {path.name!r}", "Nothing was written.")
        archive = read_checked(temporary, kind, refuse, caps, version[:2])
        if check is not None:
            check(archive)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, ValueError) as error:
        _remove(temporary)
        if isinstance(error, FssegError):
            raise
        raise error_type(
            str(path),
            expected="a place to write to",
            got=str(error),
            remedy="Free some space or choose another folder; nothing was left behind.",
        ) from error
    except BaseException:  # also Ctrl-C: no half a file is left
        _remove(temporary)
        raise
    return archive.digest


def _pieces(payloads: Mapping[str, bytes], comment: bytes) -> Iterator[bytes]:
    central: list[bytes] = []
    at = 0
    for name, payload in payloads.items():
        crc = zlib.crc32(payload)
        central.append(zip_layout.central_header(name, crc, len(payload), at))
        local = zip_layout.local_header(name, crc, len(payload))
        at += len(local) + len(payload)
        yield local
        yield payload
    directory = b"".join(central)
    yield directory
    yield zip_layout.end_record(len(payloads), len(directory), at, comment)


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    with open(path, "xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError, ValueError):  # it may not exist, or its name cannot
        path.unlink()


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself durable, where the system can (not on Windows)."""
    if os.name != "posix":
        return
    with suppress(OSError):  # the file is in place; some file systems cannot do this
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
