"""Reads canonical archives: parse, check everything, and only then hand out views."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from ..errors import FssegError
from ..fields import Fields, Refusal, parse_object
from . import zip_layout
from .zip_layout import STRUCTURE, Entry

__all__ = ["DEFAULT_CAPS", "MANIFEST", "Archive", "Caps", "read_archive"]

MANIFEST = "manifest.json"
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


@dataclass(frozen=True)
class Caps:
    """What a reader accepts at most; checked before memory is spent on it."""

    file_bytes: int = 1 << 30
    members: int = 64  # beside the manifest
    manifest_bytes: int = 256 * 1024
    name_bytes: int = 100


DEFAULT_CAPS = Caps()


@dataclass(frozen=True)
class Archive:
    """A checked archive, in memory.

    manifest: the parsed JSON; the caller checks what is its own in it. members: name -> content,
    without the manifest. digest: sha256 of manifest.json in hex, which covers every member.
    newer: written by a later minor version of the format, so unknown fields may be ignored.
    """

    manifest: Mapping[str, object]
    members: Mapping[str, memoryview]
    digest: str
    newer: bool
    refuse: Refusal


def read_archive(
    path: Path | str,
    kind: str,
    error_type: type[FssegError],
    caps: Caps = DEFAULT_CAPS,
    version: tuple[int, int] = (1, 0),
) -> Archive:
    """Reads and checks the archive at `path`: layout, names, hashes, format version.

    kind: the word in the manifest's "format", such as "fsseg-bundle"; version: the newest format
    (major, minor) that the caller understands. The same major is accepted, any minor.
    Raises error_type, which names the member at fault, or "archive structure".
    """
    noun = kind.removeprefix("fsseg-")
    refuse = Refusal(
        error_type,
        f"{noun} {Path(path).name!r}",
        f"The file is damaged or not a {noun}: copy or download it again.",
    )
    return read_checked(Path(path), kind, refuse, caps, version)


def read_checked(
    path: Path, kind: str, refuse: Refusal, caps: Caps, version: tuple[int, int]
) -> Archive:
    """`read_archive` with its errors made by `refuse`."""
    try:
        with zip_layout.open_regular(path, refuse) as (file, size):
            return _read(file, size, kind, caps, version, refuse)
    except OSError as error:
        raise refuse(
            "file",
            expected="a readable file",
            got=error.strerror or str(error),
            remedy="Check the path and its permissions.",
        ) from error


def _read(
    file: BinaryIO, size: int, kind: str, caps: Caps, version: tuple[int, int], refuse: Refusal
) -> Archive:
    if size > caps.file_bytes:
        raise refuse("file", expected=f"at most {caps.file_bytes} bytes", got=f"{size}")
    comment_bytes = len(comment_of(kind, b""))
    layout = zip_layout.read_layout(
        file, size, comment_bytes, caps.members + 1, caps.name_bytes, refuse
    )
    first = layout.entries[0]
    if first.name != MANIFEST:
        raise refuse(STRUCTURE, expected=f"{MANIFEST} as the first member", got=repr(first.name))
    if first.size > caps.manifest_bytes:
        raise refuse(
            _part(MANIFEST), expected=f"at most {caps.manifest_bytes} bytes", got=f"{first.size}"
        )
    raw = _payload(file, first, refuse)
    if comment_of(kind, raw) != layout.comment:
        raise refuse(
            _part(MANIFEST),
            expected="the sha256 that the archive's comment states",
            got="another hash or comment",
        )
    manifest = parse_object(raw, MANIFEST, refuse)
    newer = _check_format(manifest, kind, version, refuse)
    listed = _listed(manifest, caps, refuse, lenient=newer)
    _compare_names(listed, layout.entries[1:], refuse)

    members: dict[str, memoryview] = {}
    for entry in layout.entries[1:]:
        payload = _payload(file, entry, refuse)
        expected_hash = listed[entry.name][0]
        found_hash = hashlib.sha256(payload).hexdigest()
        if found_hash != expected_hash:
            raise refuse(
                _part(entry.name), expected=f"sha256 {expected_hash[:16]}…", got=found_hash[:16]
            )
        members[entry.name] = memoryview(payload)
    zip_layout.check_structure(file, layout, [memoryview(raw), *members.values()], refuse)
    digest = hashlib.sha256(raw).hexdigest()
    return Archive(manifest, MappingProxyType(members), digest, newer, refuse)


def comment_of(kind: str, manifest: bytes) -> bytes:
    """The archive's comment: what it is and the hash of its manifest."""
    return f"{kind} sha256:{hashlib.sha256(manifest).hexdigest()}".encode("ascii")


def _part(name: str) -> str:
    return f"member {name!r}"


def _payload(file: BinaryIO, entry: Entry, refuse: Refusal) -> bytes:
    payload = zip_layout.read_at(file, entry.payload_offset, entry.size)
    if len(payload) != entry.size:
        raise refuse(_part(entry.name), expected=f"{entry.size} bytes", got=f"{len(payload)}")
    return payload


def _check_format(
    manifest: Mapping[str, object], kind: str, version: tuple[int, int], refuse: Refusal
) -> bool:
    """True where the file has a newer minor version than `version`."""
    fields = Fields(manifest, MANIFEST, refuse, lenient=True)
    fields.choice("format", [kind])
    text = fields.text("format_version", _VERSION.pattern, "a version such as '1.0.0'")
    major, minor = (int(number) for number in text.split(".")[:2])
    if major != version[0]:
        raise refuse(
            f"{MANIFEST}.format_version",
            expected=f"{version[0]}.x.y, which this fsseg_sdk reads",
            got=text,
            remedy="Update fsseg_sdk."
            if major > version[0]
            else "Make the file again with this fsseg_sdk.",
        )
    return minor > version[1]


def _listed(
    manifest: Mapping[str, object], caps: Caps, refuse: Refusal, *, lenient: bool
) -> dict[str, tuple[str, int]]:
    """The manifest's own list of members: name -> (sha256, bytes)."""
    members = Fields(manifest, MANIFEST, refuse, lenient=lenient).nested("members")
    result: dict[str, tuple[str, int]] = {}
    for name in members.names():
        fault = zip_layout.name_fault(name.encode("utf-8"), caps.name_bytes)
        if fault or name == MANIFEST:
            raise members.fail(name, "a plain member name", fault or name)
        fields = members.nested(name)
        digest = fields.text("sha256", "[0-9a-f]{64}", "64 hexadecimal digits")
        result[name] = digest, fields.integer("bytes", 0, caps.file_bytes)
        if not lenient:
            fields.end()
    return result


def _compare_names(
    listed: Mapping[str, tuple[str, int]], entries: tuple[Entry, ...], refuse: Refusal
) -> None:
    stored = {entry.name: entry for entry in entries}
    for name in listed:
        if name not in stored:
            raise refuse(_part(name), expected="a member that the manifest lists", got="nothing")
    for name, entry in stored.items():
        if name not in listed:
            raise refuse(
                _part(name), expected="only members that the manifest lists", got="an extra one"
            )
        if listed[name][1] != entry.size:
            raise refuse(_part(name), expected=f"{listed[name][1]} bytes", got=f"{entry.size}")
    if [entry.name for entry in entries] != sorted(listed):
        raise refuse(STRUCTURE, expected="members sorted by name", got="another order")
