"""What reading every mask of a set found, kept in a file, since reading ten thousand is slow.

The file is JSON Lines: a first line with a stamp of all files it was made from, then a line a
picture. It is written beside itself and renamed, so there is never half of one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from training.files import write_whole

VERSION = 1
FEW = 200  # items for which starting processes takes longer than it saves

Item = TypeVar("Item")
Found = TypeVar("Found")
Row = dict[str, Any]


def stamp(files: Iterable[Path], *facts: str) -> str:
    """A hash of the files' names, sizes and times of change; a missing file counts as such."""
    lines = [f"{VERSION}", *facts]
    for file in files:
        try:
            status = file.stat()
            lines.append(f"{file} {status.st_size} {status.st_mtime_ns}")
        except OSError:
            lines.append(f"{file} missing")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cache_file(folder: Path, cache: Path | str | None, layout: str) -> Path:
    """Where the index of ``folder`` is kept: within it, or under its own name in ``cache``."""
    if cache is None:
        return folder / f".fsseg-{layout}.jsonl"
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return Path(cache) / f"{layout}-{place}.jsonl"


def load_rows(file: Path, expected: str) -> tuple[Row, list[Row]] | None:
    """``(facts, rows)``; None where the file is missing, cut off or has another stamp."""
    try:
        with file.open() as lines:
            first = json.loads(next(lines))
            if first["stamp"] != expected:
                return None
            rows = [json.loads(line) for line in lines]
            return (first["facts"], rows) if len(rows) == first["rows"] else None
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        return None


def save_rows(file: Path, expected: str, facts: Row, rows: Sequence[Row]) -> None:
    """Write the file whole or not at all. Where it cannot be written a warning says so: the set
    can still be used, but will be read again the next time."""
    head = {"stamp": expected, "rows": len(rows), "facts": facts}
    try:
        write_whole(file, "".join(json.dumps(row) + "\n" for row in (head, *rows)))
    except OSError as error:
        warnings.warn(
            f"{file}: the index of this set cannot be kept ({error.strerror}); every mask will be "
            "read again the next time. Pass another folder as cache.",
            stacklevel=2,
        )


def each(
    work: Callable[[Item], Found], items: Sequence[Item], label: str, workers: int = 0
) -> Iterator[Found]:
    """``work`` of each item, in order, with a progress bar; in ``workers`` processes if several."""
    from tqdm import tqdm

    def bar(results: Iterable[Found]) -> Iterable[Found]:
        shown: Iterable[Found] = tqdm(results, label, len(items), mininterval=1, disable=None)
        return shown

    if workers < 2 or len(items) < FEW:
        yield from bar(map(work, items))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from bar(pool.map(work, items, chunksize=32))


def kept_rows(
    file: Path,
    expected: str,
    make: Callable[[], tuple[Row, Sequence[Item]]],
    work: Callable[[Item], Row],
    label: str,
    workers: int,
) -> tuple[Row, list[Row]]:
    """``(facts, rows)`` from the file, or made and kept there.

    Args:
        make: gives the facts and the items that ``work`` turns into rows; not called where the
            file holds what is wanted.
    """
    known = load_rows(file, expected)
    if known is None:
        facts, items = make()
        known = facts, list(each(work, items, label, workers))
        save_rows(file, expected, *known)
    return known
