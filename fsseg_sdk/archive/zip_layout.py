"""The bytes of a canonical zip: what they must be, given names, sizes and checksums.

Standard zip readers accept many spellings of one archive (extra fields,
gaps, two lists of names that disagree); every one of them is a place to hide something.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..fields import Refusal

__all__ = [
    "LIMIT",
    "STRUCTURE",
    "Entry",
    "Layout",
    "central_header",
    "check_structure",
    "end_record",
    "local_header",
    "name_fault",
    "open_regular",
    "read_at",
    "read_layout",
]

STRUCTURE = "archive structure"
LIMIT = 0xFFFFFFFF  # of sizes and offsets without zip64, which canonical archives do not use

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_NEEDS = 20  # version 2.0
_MADE_BY = 3 << 8 | _NEEDS  # Unix, so that the attributes below are understood
_DATE = 1 << 5 | 1  # 1980-01-01, midnight
_ATTRIBUTES = (stat.S_IFREG | 0o644) << 16
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*(/[a-z0-9_][a-z0-9_.-]*)*")


@dataclass(frozen=True)
class Entry:
    """One member as the central directory states it."""

    name: str
    crc: int
    size: int
    offset: int  # of the local header

    @property
    def payload_offset(self) -> int:
        return self.offset + _LOCAL.size + len(self.name)


@dataclass(frozen=True)
class Layout:
    """Where everything stands; `check_structure` must follow once the payloads are known."""

    entries: tuple[Entry, ...]
    central: bytes
    end: bytes
    comment: bytes


def local_header(name: str, crc: int, size: int) -> bytes:
    fixed = _LOCAL.pack(b"PK\3\4", _NEEDS, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
    return fixed + name.encode("ascii")


def central_header(name: str, crc: int, size: int, offset: int) -> bytes:
    fixed = _CENTRAL.pack(
        b"PK\1\2", _MADE_BY, _NEEDS, 0, 0, 0, _DATE, crc, size, size,
        len(name), 0, 0, 0, 0, _ATTRIBUTES, offset,
    )  # fmt: skip
    return fixed + name.encode("ascii")


def end_record(count: int, central_bytes: int, central_offset: int, comment: bytes) -> bytes:
    return (
        _END.pack(b"PK\5\6", 0, 0, count, count, central_bytes, central_offset, len(comment))
        + comment
    )


def name_fault(name: bytes, most_bytes: int) -> str | None:
    """What is wrong with a member's name; None when nothing is."""
    if len(name) > most_bytes:
        return f"a name of {len(name)} bytes"
    text = name.decode("ascii", "backslashreplace")
    shown = ascii(text)
    if b"\0" in name:
        return f"a NUL in the name {shown}"
    if b"\\" in name:
        return f"a backslash in the name {shown}"
    if name.startswith(b"/"):
        return f"the absolute path {shown}"
    if name[1:2] == b":":
        return f"a drive letter in the name {shown}"
    if b".." in name.split(b"/"):
        return f"a way out, '..', in the name {shown}"
    if text != text.lower():
        return f"capitals in the name {shown}"
    if not _NAME.fullmatch(text) or b"\n" in name:
        return f"the name {shown}"
    return None


@contextmanager
def open_regular(path: Path, refuse: Refusal) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file without waiting (a FIFO would) and gives its size in bytes."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the path
        raise refuse("path", expected="a file's path", got=str(error)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise refuse("file", expected="a regular file", got="a folder or device")
    with open(descriptor, "rb", buffering=0) as file:
        yield file, status.st_size


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Up to `size` bytes from `offset`; fewer only at the end of the file."""
    file.seek(offset)
    data = file.read(size)
    while len(data) < size:  # the system reads at most 2 GiB at once
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def read_layout(
    file: BinaryIO,
    size: int,
    comment_bytes: int,
    most_members: int,
    most_name_bytes: int,
    refuse: Refusal,
) -> Layout:
    """Reads the end record and the central directory, and checks what they claim."""
    tail = _END.size + comment_bytes
    if size == 0:
        raise refuse("file", expected="an archive", got="an empty file")
    head = read_at(file, 0, 4)
    if head != b"PK\3\4":
        raise refuse(STRUCTURE, expected="an archive, which begins with PK\\3\\4", got=repr(head))
    if size < tail + _LOCAL.size + _CENTRAL.size:
        raise refuse(STRUCTURE, expected="a whole archive", got=f"{size} bytes, truncated")
    end = read_at(file, size - tail, tail)
    magic, _, _, _, count, central_bytes, central_offset, stated = _END.unpack(end[: _END.size])
    if magic != b"PK\5\6" or stated != comment_bytes:
        raise refuse(
            STRUCTURE,
            expected=f"the end record {tail} bytes before the end of the file",
            got="something else: truncated, extended, or made by another program",
        )
    if LIMIT in (central_bytes, central_offset):
        raise refuse(STRUCTURE, expected="no zip64 records", got="a zip64 archive")
    if not 1 <= count <= most_members:
        raise refuse(STRUCTURE, expected=f"1 to {most_members} members", got=f"{count}")
    if central_offset + central_bytes + tail != size:
        raise refuse(
            STRUCTURE,
            expected="the directory to end where the end record begins",
            got=f"{central_bytes} bytes at {central_offset} in a file of {size}",
        )
    if central_bytes > count * (_CENTRAL.size + most_name_bytes):
        raise refuse(STRUCTURE, expected="a directory without extras", got=f"{central_bytes} bytes")
    central = read_at(file, central_offset, central_bytes)
    entries = _entries(central, count, central_offset, most_name_bytes, refuse)
    return Layout(entries, central, end, end[_END.size :])


def _entries(
    central: bytes, count: int, central_offset: int, most_name_bytes: int, refuse: Refusal
) -> tuple[Entry, ...]:
    """The members in the order of the directory; their sizes must fill the file exactly."""
    entries: list[Entry] = []
    names: set[str] = set()
    at = offset = 0
    for index in range(count):
        fixed = central[at : at + _CENTRAL.size]
        if len(fixed) < _CENTRAL.size or fixed[:4] != b"PK\1\2":
            raise refuse(STRUCTURE, expected=f"{count} directory entries", got=f"{index}")
        (_, _, _, flags, method, _, _, crc, packed, size, name_bytes, extra, note, _, _,
         attributes, start) = _CENTRAL.unpack(fixed)  # fmt: skip
        raw = central[at + _CENTRAL.size : at + _CENTRAL.size + name_bytes]
        fault = name_fault(raw, most_name_bytes)
        if fault:
            raise refuse(STRUCTURE, expected="plain member names", got=fault)
        name = raw.decode("ascii")
        part = f"member {name!r}"
        if name in names:
            raise refuse(part, expected="each name once", got="a duplicate")
        names.add(name)
        for wrong, expected, got in (
            (flags & 1, "no encryption", "an encrypted member"),
            (method, "a stored member", f"compression method {method}"),
            (LIMIT in (packed, size, start), "no zip64 records", "a zip64 member"),
            (extra or note, "no extra fields", f"{extra + note} bytes of them"),
            (stat.S_IFMT(attributes >> 16) != stat.S_IFREG, "a regular file", "a link or folder"),
            (packed != size, "one size", f"{size} bytes from {packed}"),
            (start != offset, f"offset {offset}", f"{start}: a gap or an overlap"),
        ):
            if wrong:
                raise refuse(part, expected=expected, got=got)
        entries.append(Entry(name, crc, size, start))
        at += _CENTRAL.size + name_bytes
        offset = entries[-1].payload_offset + size
    if at != len(central) or offset != central_offset:
        raise refuse(
            STRUCTURE,
            expected=f"members of {central_offset} bytes and no gap before the directory",
            got=f"{offset} bytes",
        )
    return tuple(entries)


def check_structure(
    file: BinaryIO, layout: Layout, payloads: Sequence[memoryview], refuse: Refusal
) -> None:
    """Computes every byte outside the payloads from the payloads, and compares."""
    at = central_at = 0
    for entry, payload in zip(layout.entries, payloads, strict=True):
        crc = zlib.crc32(payload)
        local = local_header(entry.name, crc, len(payload))
        central = central_header(entry.name, crc, len(payload), at)
        for expected, found in (
            (local, read_at(file, at, len(local))),
            (central, layout.central[central_at : central_at + len(central)]),
        ):
            if expected != found:
                raise refuse(
                    f"member {entry.name!r}",
                    expected="the canonical header",
                    got="another: a damaged archive, or one made by another program",
                )
        at += len(local) + len(payload)
        central_at += len(central)
    end = end_record(len(payloads), central_at, at, layout.comment)
    if end != layout.end or len(layout.central) != central_at:
        raise refuse(STRUCTURE, expected="the canonical end record", got="another")
