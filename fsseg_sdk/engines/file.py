"""An engine's file: eight letters, a length, a JSON header, the plan. Checked before it is used.

A plan is native code: TensorRT runs what it is given, and its own check of a plan does not see that
a file was cut off or changed. So the sha256 of the plan stands in the header, and no byte of a plan
reaches TensorRT before it has been compared. That shows damage; against another user the private
folder helps (see `folder`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackendError, FssegError
from ..fields import Fields, Refusal, parse_object
from .key import EngineKey, read_key

__all__ = ["Engine", "Header", "pack", "read_engine", "read_header"]

MAGIC = b"FSSEGENG"
FORMAT = "fsseg-engine"
VERSION = (1, 0, 0)
MAX_HEADER = 64 * 1024
MAX_PLAN = 8 << 30
_PREFIX = struct.Struct("<8sI")


@dataclass(frozen=True)
class Header:
    """What stands before a plan. build: how it came about (seconds, log, ...), plain JSON."""

    key: EngineKey
    sha256: str
    plan_bytes: int
    build: Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Engine:
    """A plan whose hash is right, and its header."""

    header: Header
    plan: memoryview


def pack(key: EngineKey, plan: bytes | memoryview, build: Mapping[str, object]) -> bytes:
    """The head of an engine's file; the plan follows it. It can be read again, or BackendError."""
    described = {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": memoryview(plan).nbytes}
    faults = []
    for notes in (dict(build), {}):  # a log that is too long, or odd, is no reason to lose one
        header = {
            "format": FORMAT,
            "format_version": ".".join(map(str, VERSION)),
            "key": key.to_json(),
            "plan": described,
            "build": notes,
        }
        try:
            text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
            head = _PREFIX.pack(MAGIC, len(text)) + text
            if _parse(Path(key.graph), head)[0].key == key:
                return head
            faults.append("another key, when it is read again")
        except FssegError as error:
            faults.append(f"{error.argument}: {error.got}")
        except (TypeError, ValueError) as error:  # no JSON, no UTF-8
            faults.append(str(error))
    raise _refusal(Path(key.graph))("header", expected="one that can be read again", got=faults[-1])


def read_header(path: Path) -> Header:
    """The header alone: no hash is computed. BackendError says what is wrong with the file."""
    data, size = _read(path, whole=False)
    header, begin = _parse(path, data)
    if size - begin != header.plan_bytes:
        raise _damaged(path, f"a plan of {header.plan_bytes} bytes", f"{max(size - begin, 0)}")
    return header


def read_engine(path: Path, wanted: EngineKey) -> Engine | Header:
    """The engine in `path` if its header says `wanted` and its plan is whole; the Header alone if
    that says something else (nothing more is read then). BackendError for damage."""
    header = read_header(path)
    if header.key != wanted:
        return header
    data, _ = _read(path, whole=True)
    again, begin = _parse(path, data)
    plan = memoryview(data)[begin:]
    found = hashlib.sha256(plan).hexdigest()
    if again != header or found != header.sha256:
        raise _damaged(path, f"a plan with sha256 {header.sha256[:12]}...", f"{found[:12]}...")
    return Engine(header, plan)


def _read(path: Path, *, whole: bool) -> tuple[bytes, int]:
    """The bytes, and the length of the file. It must be a plain file of ours, not a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _damaged(path, "a plain file", "something else")
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise _damaged(path, "a file that only this user can write", "one that others can")
            if status.st_size > MAX_PLAN:
                raise _damaged(path, f"at most {MAX_PLAN} bytes", f"{status.st_size}")
            wanted = status.st_size if whole else min(status.st_size, _PREFIX.size + MAX_HEADER)
            return read_whole(file, wanted), status.st_size
    except OSError as error:
        raise _damaged(path, "a file that can be read", error.strerror or str(error)) from error


def read_whole(file: io.RawIOBase, size: int) -> bytes:
    """`size` bytes, or as many as there are: Linux gives no more than 2 GiB at once. What it gave
    is not copied, which would cost more than the hash."""
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parse(path: Path, data: bytes) -> tuple[Header, int]:
    if len(data) < _PREFIX.size:
        raise _damaged(path, "an engine of fsseg_sdk", f"a file of {len(data)} bytes")
    magic, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _damaged(path, "an engine of fsseg_sdk", "another kind of file")
    if not 2 <= length <= MAX_HEADER or len(data) < _PREFIX.size + length:
        raise _damaged(path, "a whole header", f"one of {length} bytes, cut off")
    refuse = _refusal(path)
    begin = _PREFIX.size + length
    value = parse_object(data[_PREFIX.size : begin], "header", refuse)
    fields = Fields(value, "header", refuse, lenient=True)
    fields.choice("format", [FORMAT])
    version = fields.text("format_version", r"\d{1,4}\.\d{1,4}\.\d{1,4}", "a version")
    if int(version.split(".")[0]) != VERSION[0]:
        raise fields.fail("format_version", f"{VERSION[0]}.x.y", version)
    plan = fields.nested("plan")
    header = Header(
        key=read_key(fields.nested("key")),
        sha256=plan.text("sha256", r"[0-9a-f]{64}", "64 hex digits"),
        plan_bytes=plan.integer("bytes", 1, MAX_PLAN),
        build=fields.free("build"),
    )
    return header, begin


def _refusal(path: Path) -> Refusal:
    return Refusal(
        BackendError,
        f"engine {path.name!r}",
        "It is built again when it is needed; 'fsseg engine clear' removes it.",
    )


def _damaged(path: Path, expected: str, got: str) -> FssegError:
    return _refusal(path)("file", expected=expected, got=got)
