"""Settings as tables, before they are checked: read from TOML, changed, compared."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_tables(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        FileNotFoundError, ValueError: no such file, or not TOML; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a settings file. training/configs holds some to start from."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML: {error}") from error


def with_changes(tables: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Tables with ``"trainer.iterations=10"`` and the like applied; values are TOML."""
    return _changed(tables, changes, "--set", "table.field=value", 2)


def changes_of(words: Sequence[str]) -> dict[str, Any]:
    """``["hidden=64", "panet.scale=10"]`` as nested tables; values are TOML."""
    return _changed({}, words, "--setting", "field=value", 1)


def _changed(
    tables: Mapping[str, Any], changes: Sequence[str], option: str, form: str, depth: int
) -> dict[str, Any]:
    result = {
        name: dict(table) if isinstance(table, Mapping) else table for name, table in tables.items()
    }
    for change in changes:
        name, separator, text = change.partition("=")
        place = [part.strip() for part in name.split(".")]
        if not separator or len(place) < depth or not all(place):
            raise ValueError(f"{option} {change}: expected {form}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()  # a bare word is a string
        table: dict[str, Any] = result
        for part in place[:-1]:
            below = table.get(part, {})
            if not isinstance(below, dict):
                raise ValueError(f"{option} {change}: {part} is no table")
            table[part] = dict(below)
            table = table[part]
        table[place[-1]] = value
    return result


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two JSON values differ: ``"trainer.iterations: 10, now 20"``."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [*one, *(name for name in other if name not in one)]
        return [
            line
            for name in names
            for line in differences(
                one.get(name), other.get(name), f"{place}.{name}" if place else str(name)
            )
        ]
    return [] if one == other else [f"{place}: {one!r}, now {other!r}"]
