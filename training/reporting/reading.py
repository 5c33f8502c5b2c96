"""Result files, checked, as sections; and the names that are expected in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.auxiliary import given_of
from training.evaluation.results import read_result
from training.evaluation.rows import PER_EPISODE, SAME
from training.reporting.measured import Method, Row, Section, Setting
from training.sweep import read_sweep

_FOLD = re.compile(r"[-_ ]fold-?\d+")
_SHAPE: Mapping[str, tuple[type, ...]] = {
    "fold": (int,),
    "miou": (int, float),
    "fbiou": (int, float),
    "std": (int, float, type(None)),
    "ms_per_query": (int, float, type(None)),
    "interval": (list,),
    "runs": (list,),
    "per_class": (dict,),
    "list": (str,),
    **dict.fromkeys(PER_EPISODE, (list,)),
}
"""What every row of a result has."""


def read_sections(files: Sequence[str], expected: Path | None = None) -> list[Section]:
    """Read result files, each ``PATH`` or ``NAME=PATH``.

    A method's name is NAME, else what the result says, without the fold. Files of one name are
    parts of one method; if their models had other training seeds, each seed is a method, and so is
    each number of auxiliary pictures.

    Args:
        expected: a sweep (TOML), or a text file with a name in each line: those become rows that
            are not yet run.

    Raises:
        FileNotFoundError, ValueError: a file is missing or not a result, or two files have the
            same row; the message names them.
    """
    results = []
    for text in files:
        name, path = _named(text)
        results.append((path, name, _checked(path)))
    seeds: dict[str, set[Any]] = {}
    for _, name, result in results:
        for row in result["rows"]:
            seeds.setdefault(_name(name, result), set()).add(_seed(result, row["fold"]))
    sections: dict[tuple[Any, ...], Section] = {}
    for path, name, result in results:
        data = result["data"]
        pool = (data.get("pool", "all"), data.get("fewest"))
        place = (result["protocol"], data["name"], data["pictures"], *pool)
        section = sections.setdefault(place, Section(result["protocol"], data))
        section.notes += [n for n in result["notes"] if n not in section.notes]
        for figures in result["rows"]:
            own = _name(name, result)
            seed = _seed(result, figures["fold"])
            if len(seeds[own]) > 1 and seed is not None:
                own += f" (seed {seed})"
            _add(section, own, path, figures, result)
    if not sections:
        raise ValueError("results: expected at least one file, got none")
    for name, folds in _planned(expected).items():
        for section in sections.values():
            have = [m for m in section.methods if m.model == name]
            if not have:
                section.methods.append(Method(name, planned=folds))
            for method in have:
                method.planned = folds
    return list(sections.values())


def read_times(files: Sequence[str]) -> dict[str, float | None]:
    """Milliseconds a query of each method, of results that were measured for that: on an idle
    machine, on a few episodes. Files as in `read_sections`.

    Raises:
        FileNotFoundError, ValueError: as in `read_sections`, or two results time one method.
    """
    times: dict[str, float | None] = {}
    for section in read_sections(files):
        for method in section.methods:
            if method.name in times:
                raise ValueError(
                    f"times: {method.name!r} has some by {section.protocol} and by another "
                    "protocol. Name them apart: NAME=FILE."
                )
            times[method.name] = method.ms_per_query()
    return times


def _named(text: str) -> tuple[str | None, Path]:
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name, Path(path)


def _name(name: str | None, result: Mapping[str, Any]) -> str:
    return name or without_fold(result["model"]["name"])


def without_fold(name: str) -> str:
    """``resnet50-seed0-fold2`` -> ``resnet50-seed0``."""
    return _FOLD.sub("", name) or name


def _seed(result: Mapping[str, Any], fold: int) -> Any:
    model = result["models"].get(str(fold), result["model"])
    return (model.get("trained") or {}).get("seed")


def _add(
    section: Section, name: str, path: Path, figures: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    given = given_of(figures)
    place = (name, given)
    method = next((m for m in section.methods if (m.model, m.given) == place), None)
    if method is None:
        method = Method(name, given)
        section.methods.append(method)
    setting = Setting(*(figures[key] for key in SAME))
    fold = figures["fold"]
    if (setting, fold) in method.rows:
        raise ValueError(
            f"{path}: has the same row as {method.rows[setting, fold].file} ({name}, fold {fold}, "
            f"{setting}). Name them apart: NAME={path}."
        )
    model = result["models"].get(str(fold), result["model"])
    entries = result["lists"][figures["list"]]
    method.rows[setting, fold] = Row(path, fold, setting, figures, entries, model)


def _checked(path: Path) -> dict[str, Any]:
    """A result whose parts are all there."""
    result = read_result(path)

    def refuse(what: str) -> ValueError:
        return ValueError(
            f"{path}: expected a result of `python -m training.evaluate`, but {what}. "
            "Evaluate again."
        )

    shapes = {"protocol": str, "data": dict, "model": dict, "models": dict}
    for key, kind in {**shapes, "notes": list, "rows": list, "lists": dict}.items():
        if not isinstance(result.get(key), kind):
            raise refuse(f"{key!r} is missing or of another kind")
    for place, keys in (("data", ("name", "pictures", "caveat")), ("model", ("name",))):
        if missing := [key for key in keys if key not in result[place]]:
            raise refuse(f"{place} has no {missing[0]!r}")
    if not result["rows"]:
        raise refuse("it has no rows")
    for number, row in enumerate(result["rows"]):
        if not isinstance(row, dict):
            raise refuse(f"row {number} is no object")
        for key in SAME:
            if key not in row:
                raise refuse(f"row {number} has no {key!r}")
        for key, kinds in _SHAPE.items():
            if key not in row or not isinstance(row[key], kinds):
                raise refuse(f"row {number} has no {key!r}, or one of another kind")
        entries = result["lists"].get(row["list"])
        if not isinstance(entries, dict):
            raise refuse(f"row {number} belongs to the list {row['list']!r}, which is missing")
        lengths = {len(entries.get(key, ())) for key in ("run", "query", "class")}
        if lengths != {len(row[key]) for key in PER_EPISODE} or lengths == {0}:
            raise refuse(f"row {number} has not one figure for each entry of {row['list']!r}")
    return result


def _planned(file: Path | None) -> dict[str, tuple[int, ...]]:
    """Names that are expected, with the folds that a sweep plans for each."""
    if file is None:
        return {}
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected a sweep (TOML), or a text file of names")
    if file.suffix != ".toml":
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        return {line: () for line in lines if line and not line.startswith("#")}
    folds: dict[str, set[int]] = {}
    for run in read_sweep(file):
        own = folds.setdefault(without_fold(run.name), set())
        if found := _FOLD.search(run.name):
            own.add(int(re.sub(r"\D", "", found[0])))
    return {name: tuple(sorted(numbers)) for name, numbers in folds.items()}
