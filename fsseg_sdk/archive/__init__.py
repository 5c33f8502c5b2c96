"""Canonical archives: the container of bundles (.fsseg) and task files (.task).

An ordinary zip that any tool can list, with one freedom left, the bytes of its members:

    local header, manifest.json      first; JSON with "format", "format_version" and "members":
    local header, member             {name: {"sha256", "bytes"}}, the complete list; sorted by name
    ...
    central directory
    end record, comment "<kind> sha256:<hash of manifest.json>"

Members are stored, never compressed; times, attributes and flags are fixed. So the reader can
compute what every byte outside the members must be, and compares. With the hashes, a change of any
byte is found. Nothing may stand before, between or after the parts (no polyglots), nothing can grow
on reading (no bombs), and nothing is ever extracted (no path tricks).

The file is read once, each member straight into its own `bytes`. A memory map would save nothing
(its pages count as resident once they were hashed), and whoever can write the file could change
them after the check, or shorten the file and crash the process.
"""

from __future__ import annotations

from .read import MANIFEST, Archive, Caps, read_archive
from .write import write_archive

__all__ = ["MANIFEST", "Archive", "Caps", "read_archive", "write_archive"]
