"""Queries of the command line: files, folders and globs -> pictures with names for results."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["SUFFIXES", "Query", "expand", "pictures_of"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_TAKEN = "report"  # report.json is the run's own


@dataclass(frozen=True)
class Query:
    """path: of the picture; stem: a name of its own for the files of its results."""

    path: Path
    stem: str


def expand(given: Sequence[str], out: Path, *, recursive: bool) -> tuple[list[Query], list[str]]:
    """(queries in order, each once; files in the folders that are no pictures).

    A file that was named is always a query, whatever its suffix; of a folder those with the suffix
    of a picture, sorted. Raises InputError for a folder or glob without pictures, and for an `out`
    whose results would be queries of the next run.
    """
    paths: list[Path] = []
    left_out: list[str] = []
    for text in given:
        if os.path.isdir(text):
            found, others = pictures_of(Path(text), recursive=recursive)
            left_out += others
        elif os.path.lexists(text) or not glob.has_magic(text):
            paths.append(Path(text))
            continue
        else:
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
            found = [path for path in matches if path.is_file() and _is_picture(path)]
            left_out += [str(path) for path in matches if path not in found]
        if not found:
            raise InputError(
                f"query {text!r}",
                expected=f"pictures ({', '.join(SUFFIXES)})",
                got="a folder without any" if os.path.isdir(text) else "a pattern matching none",
                remedy="Check the path; --recursive looks into subfolders.",
            )
        _check_apart(text, found, out)
        paths += found
    return _named(paths), left_out


def pictures_of(folder: Path, *, recursive: bool = False) -> tuple[list[Path], list[str]]:
    """(pictures, other files) of a folder, sorted; hidden ones are left alone."""
    files = sorted(
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    )
    pictures = [path for path in files if _is_picture(path)]
    return pictures, [str(path) for path in files if not _is_picture(path)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _check_apart(text: str, found: Sequence[Path], out: Path) -> None:
    if out.resolve() in {path.parent.resolve() for path in found}:
        raise InputError(
            "--out",
            expected="a folder beside the pictures",
            got=f"{str(out)!r}, which {text!r} is read from",
            remedy="Choose another folder: the next run would take masks for pictures.",
        )


def _named(paths: Sequence[Path]) -> list[Query]:
    """Different stems, also where case does not count: x, x-2, x-3."""
    taken = {_TAKEN}
    queries: list[Query] = []
    for path in dict.fromkeys(paths):
        plain = re.sub(r"[\\:\0/]", "_", path.stem)[:150] or "picture"
        stem, number = plain, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{plain}-{number}"
        taken.add(stem.lower())
        queries.append(Query(path, stem))
    return queries
