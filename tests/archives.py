"""Archives as an attacker would make them: canonical in form, with any content and any hashes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsseg_sdk.archive import MANIFEST, zip_layout
from fsseg_sdk.archive.read import comment_of

KIND = "fsseg-bundle"


def pack(entries: list[tuple[str, bytes]], comment: bytes) -> bytes:
    """A zip of stored members, in this order, with right checksums and offsets."""
    body, central = bytearray(), bytearray()
    for name, payload in entries:
        crc = zlib.crc32(payload)
        central += zip_layout.central_header(name, crc, len(payload), len(body))
        body += zip_layout.local_header(name, crc, len(payload)) + payload
    end = zip_layout.end_record(len(entries), len(central), len(body), comment)
    return bytes(body + central + end)


def sealed(manifest: bytes, members: Mapping[str, bytes], kind: str = KIND) -> bytes:
    """An archive around any manifest bytes, its comment right."""
    entries = [(MANIFEST, manifest), *sorted(members.items())]
    return pack(entries, comment_of(kind, manifest))


def listed(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest's "members" for these."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in sorted(members.items())
    }


def forged(
    manifest: Mapping[str, Any], members: Mapping[str, bytes], version: str = "1.0.0"
) -> bytes:
    """An archive with right hashes around a manifest that no writer would have accepted."""
    document = {
        "format": KIND,
        "format_version": version,
        **manifest,
        "members": listed(members),
    }
    return sealed(json.dumps(document).encode(), members)


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest and members of an archive, by the offsets in its headers."""
    members: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        size = int.from_bytes(data[at + 18 : at + 22], "little")
        length = int.from_bytes(data[at + 26 : at + 28], "little")
        name = data[at + 30 : at + 30 + length].decode()
        members[name] = data[at + 30 + length : at + 30 + length + size]
        at += 30 + length + size
    return json.loads(members.pop(MANIFEST)), members


def borders(data: bytes) -> list[int]:
    """Offsets at which a part of the archive begins: headers, payloads, directory, end."""
    found, at = [0], 0
    while data[at : at + 4] == b"PK\3\4":
        size = int.from_bytes(data[at + 18 : at + 22], "little")
        payload = at + 30 + int.from_bytes(data[at + 26 : at + 28], "little")
        at = payload + size
        found += [payload, at]
    while data[at : at + 4] == b"PK\1\2":
        at += 46 + int.from_bytes(data[at + 28 : at + 30], "little")
        found.append(at)
    return [*found, len(data) - 86, len(data)]


def edited(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], object]) -> Path:
    """Changes manifest and members of the bundle at `path` in place, with right hashes again."""
    manifest, members = unpack(path.read_bytes())
    change(manifest, members)
    version = manifest.pop("format_version")
    for key in ("format", "members"):
        manifest.pop(key)
    path.write_bytes(forged(manifest, members, version))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, to see that nothing came, went or changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def flips(path: Path, positions: Iterable[int], pattern: int = 0) -> Iterator[int]:
    """Flips bits of one byte of the file after another, and back again; yields where.

    pattern: what to flip; 0 takes another bit at every byte. In place, since making a file anew
    costs more than all else in such a test.
    """
    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for at in positions:
            file.seek(at)
            file.write(bytes([data[at] ^ (pattern or 1 << at % 8)]))
            yield at
            file.seek(at)
            file.write(data[at : at + 1])
