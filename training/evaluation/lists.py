"""Lists of episodes as files: names, the first line, and what is checked when one is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.pool import Pool
from training.evaluation.protocols import Protocol
from training.files import write_whole

FOLDER = Path(__file__).resolve().parents[2] / "episodes"
SHIPPED = ("voc2012", 3426)
"""Name and pictures of the set whose lists lie in `FOLDER`; the whole of VOC has the same name."""

OTHER_LIST = (
    "The list was drawn for something else. Name another folder with --lists: the lists that it "
    "lacks are drawn there."
)
BROKEN_LIST = (
    "Draw the list again for these pictures with `python -m training.evaluation.episodes`."
)


@dataclass(frozen=True)
class FewShot:
    """query: key of a picture in its set. support: (class, keys of its pictures), in the order of
    the labels 1..N."""

    query: str
    support: tuple[tuple[int, tuple[str, ...]], ...]

    def to_json(self) -> str:
        line = {"query": self.query, "support": {str(c): list(s) for c, s in self.support}}
        return json.dumps(line, separators=(",", ":"), ensure_ascii=False)


def file_name(protocol: Protocol, fold: int, shots: int, ways: int, seed: int) -> str:
    several = f"{ways}way-" if ways > 1 else ""
    return f"{protocol.name}-fold{fold}-{several}{shots}shot-seed{seed}.jsonl"


def folder_of(pool: Pool) -> Path:
    """Where the lists of a pool lie, unless another folder is named."""
    if (pool.data, pool.pictures) == SHIPPED and pool.which == "all":
        return FOLDER
    end = "" if pool.which == "all" else f"-{pool.which}"
    return FOLDER / f"{pool.data}-{pool.pictures}{end}"


def write(path: Path, episodes: Sequence[FewShot], facts: Mapping[str, Any]) -> None:
    """The list with its first line, whole or not at all."""
    lines = [json.dumps(facts, separators=(",", ":")), *(e.to_json() for e in episodes)]
    write_whole(path, "".join(line + "\n" for line in lines))


def facts_of(pool: Pool, shots: int, ways: int, seed: int, count: int) -> dict[str, Any]:
    """The first line of a list; "pool" stands there only where it is not "all"."""
    classes = pool.classes(shots, ways)
    pictures = {key for c in classes for key in (*pool.queries[c], *pool.supports[c])}
    return {
        "protocol": pool.protocol.name,
        "data": pool.data,
        "split": pool.fold.split,
        "fold": pool.fold.number,
        "shots": shots,
        "ways": ways,
        "seed": seed,
        "episodes": count,
        "classes": classes,
        "pictures": len(pictures),
        **({} if pool.which == "all" else {"pool": pool.which}),
    }


def load(path: Path, pool: Pool, shots: int, ways: int, seed: int) -> list[FewShot]:
    """Read a list and check every line against the pictures.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the list was drawn from something else, or a line is no episode of these
            pictures; the message names line and reason.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a list of episodes. Draw it with "
            "`python -m training.evaluation.episodes`."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    expected, episodes = facts_of(pool, shots, ways, seed, 0), []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if number == 1:
                _check_facts(row, expected)
            else:
                episodes.append(_episode(row, pool, shots, ways))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            remedy = OTHER_LIST if number == 1 else BROKEN_LIST
            raise ValueError(f"{path}, line {number}: {reason}. {remedy}") from error
    if not episodes:
        raise ValueError(f"{path}: expected episodes, got none")
    return episodes


def _check_facts(row: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """All but the number of episodes must be as it would be written now."""
    known = {"pool": "all", **row}
    for name, value in {"pool": "all", **expected}.items():
        if name != "episodes" and known[name] != value:
            raise ValueError(f"{name}: expected {value!r}, got {known[name]!r}")


def _episode(row: Mapping[str, Any], pool: Pool, shots: int, ways: int) -> FewShot:
    query = row["query"]
    support = tuple((int(c), tuple(keys)) for c, keys in row["support"].items())
    if len(support) != ways or any(len(keys) != shots for _, keys in support):
        raise ValueError(f"expected {ways} classes with {shots} supports each")
    every = [key for _, keys in support for key in keys]
    for key in (query, *every):
        if key not in pool.samples:
            raise ValueError(f"picture {key!r} is not in the test pool of fold {pool.fold.number}")
    if query in every:
        raise ValueError(f"the query {query!r} is among the supports")
    if len(set(every)) != len(every):
        raise ValueError(f"a support stands there twice: {sorted(every)}")
    for identity, keys in support:
        if identity not in pool.fold.novel:
            raise ValueError(f"class {identity} is not novel in fold {pool.fold.number}")
        for key in keys:
            if identity not in pool.samples[key].classes:
                raise ValueError(f"picture {key!r} does not show class {identity}")
    if not any(identity in pool.samples[query].classes for identity, _ in support):
        raise ValueError(f"the query {query!r} shows none of the classes")
    return FewShot(query, support)
