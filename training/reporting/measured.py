"""What was measured, sorted: by data and protocol, by method, by setting and fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from training.evaluation.auxiliary import NOTHING, Given
from training.evaluation.rows import Entries, mean_rows

NOT_YET = "not yet run"


class Setting(NamedTuple):
    """What figures of one table have in common; the fields are those of `rows.SAME`."""

    shots: int
    ways: int
    annotation: str
    resolution: str
    false_positives: str

    def __str__(self) -> str:
        rule = f", false positives: {self.false_positives}" if self.ways > 1 else ""
        return f"{self.ways}-way {self.shots}-shot, {self.annotation}, at {self.resolution}{rule}"


@dataclass(frozen=True)
class Row:
    """One setting in one fold. figures: the row as written; entries: run, query and class of each
    per-episode figure; model: facts of the model that this fold was measured with."""

    file: Path
    fold: int
    setting: Setting
    figures: Mapping[str, Any]
    entries: Mapping[str, Sequence[Any]]
    model: Mapping[str, Any]


@dataclass
class Method:
    """A row of the tables. A method that is only planned has no rows. given: the auxiliary pictures
    that it was measured with; without them it is another method."""

    model: str
    given: Given = NOTHING
    rows: dict[tuple[Setting, int], Row] = field(default_factory=dict)
    planned: tuple[int, ...] = ()
    _means: dict[tuple[Setting, tuple[int, ...]], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.model if self.given == NOTHING else f"{self.model}, {self.given}"

    def of(self, setting: Setting, folds: Sequence[int]) -> list[Row] | None:
        """The rows of these folds; None where one is missing."""
        found = [self.rows.get((setting, fold)) for fold in folds]
        rows = [row for row in found if row is not None]
        return rows if rows and len(rows) == len(found) else None

    def mean(self, setting: Setting, folds: Sequence[int]) -> Mapping[str, Any] | None:
        """Figures of the mean over folds (of the fold itself, if it is one); None where a fold is
        missing."""
        rows = self.of(setting, folds)
        if rows is None or len(rows) == 1:
            return None if rows is None else rows[0].figures
        place = (setting, tuple(folds))
        if place not in self._means:
            self._means[place] = mean_rows([row.figures for row in rows], _lists(rows))[0]
        return self._means[place]

    def ms_per_query(self) -> float | None:
        """The mean over folds."""
        by_fold = {row.fold: row.figures["ms_per_query"] for row in self.rows.values()}
        times = [float(ms) for ms in by_fold.values() if ms is not None]
        return sum(times) / len(times) if times else None


@dataclass
class Section:
    """All that may stand in one table: the same pictures, by the same protocol. times: the
    milliseconds a query by method, of other results; None: those that were measured along."""

    protocol: str
    data: Mapping[str, Any]
    methods: list[Method] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    times: Mapping[str, float | None] | None = None

    @property
    def title(self) -> str:
        pool = "" if self.data.get("pool", "all") == "all" else f" {self.data['pool']}"
        return f"{self.data['name']}{pool}, {self.protocol}"

    def ms_of(self, method: Method) -> float | None:
        """Milliseconds a query; None where they were not measured."""
        return method.ms_per_query() if self.times is None else self.times.get(method.name)

    def settings(self) -> list[Setting]:
        """Those that some method has, few ways and shots first."""
        found = dict.fromkeys(s for method in self.methods for s, _ in method.rows)
        return sorted(found, key=lambda s: (s.ways, s.shots))

    def folds(self, setting: Setting) -> list[int]:
        """Those that some method has, and those that a sweep plans."""
        planned = (method.planned for method in self.methods)
        return sorted(set(self.measured(setting)).union(*planned))

    def measured(self, setting: Setting) -> list[int]:
        """The folds that some method has."""
        return sorted({fold for m in self.methods for s, fold in m.rows if s == setting})

    def shown(self, setting: Setting) -> list[Method]:
        """The rows of the setting's table: what was measured, and what is planned."""
        return [m for m in self.methods if not m.rows or any(s == setting for s, _ in m.rows)]

    def method(self, name: str) -> Method:
        """
        Raises:
            ValueError: no method of that name was measured here.
        """
        for method in self.methods:
            if method.name == name and method.rows:
                return method
        known = ", ".join(repr(m.name) for m in self.methods if m.rows)
        raise ValueError(f"{self.title}: expected one of {known}, got {name!r}")


def difference(first: Sequence[Row], second: Sequence[Row]) -> tuple[float, float, float]:
    """Mean-IoU of the first rows less that of the second ones, and its 95 % interval: a bootstrap
    over pictures, the same ones for both.

    Raises:
        ValueError: the two were not measured on the same episodes.
    """
    own, other = (
        Entries.of([row.figures for row in rows], _lists(rows)) for rows in (first, second)
    )
    try:
        return own.less(other)
    except ValueError as error:
        files = " and ".join(dict.fromkeys(str(row.file) for row in (*first, *second)))
        raise ValueError(
            f"{files}: expected figures of the same episodes for a paired difference "
            f"({first[0].setting}), got those of other lists. Evaluate both with the same --lists, "
            "--runs and --episodes, or leave one out."
        ) from error


def _lists(rows: Sequence[Row]) -> dict[str, Mapping[str, Sequence[Any]]]:
    return {row.figures["list"]: row.entries for row in rows}
