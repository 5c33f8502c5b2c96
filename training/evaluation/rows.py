"""From counted pixels to the rows of a table: mean-IoU and FB-IoU by run, class and fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.auxiliary import given_of
from training.evaluation.bootstrap import interval, picture_weights
from training.evaluation.engine import FoldCounts, Setting
from training.evaluation.lists import FewShot
from training.evaluation.metrics import Cells, binary, intersections_and_unions

RULES = {
    "all": "a class's false positives count in every episode that asks for it",
    "present": "a class's false positives count only where the query shows it (PANet's code)",
}
"""Two ways to count in episodes of several classes. With one class they are the same, and the row
says "all"."""
PER_EPISODE = ("intersection", "union")


def list_name(fold: int, shots: int, ways: int) -> str:
    return f"fold{fold}-{ways}way-{shots}shot"


def list_facts(runs: Sequence[Sequence[FewShot]]) -> dict[str, list[Any]]:
    """What the per-episode figures of rows belong to; an entry is one class of one episode."""
    entries = [
        (run, episode.query, identity)
        for run, episodes in enumerate(runs)
        for episode in episodes
        for identity, _ in episode.support
    ]
    run, query, identity = zip(*entries, strict=True)
    return {"run": list(run), "query": list(query), "class": list(identity)}


def rows_of(
    fold: int,
    counts: FoldCounts,
    lists: Mapping[str, Mapping[str, Sequence[Any]]],
    class_names: Sequence[str],
    repeats: int = 1000,
) -> list[dict[str, Any]]:
    """A row for each setting, resolution and rule of counting false positives."""
    rows = []
    for setting, by_resolution in counts.confusions.items():
        name = list_name(fold, setting.shots, setting.ways)
        for resolution, confusions in by_resolution.items():
            for rule in RULES if setting.ways > 1 else ("all",):
                own = _row(setting, confusions, lists[name], rule, class_names, repeats)
                rows.append(
                    {
                        "fold": fold,
                        **setting._asdict(),
                        "resolution": resolution,
                        "false_positives": rule,
                        "ms_per_query": counts.ms_per_query,
                        "list": name,
                        **own,
                    }
                )
    return rows


def _row(
    setting: Setting,
    confusions: NDArray[np.int64],
    entries: Mapping[str, Sequence[Any]],
    rule: str,
    class_names: Sequence[str],
    repeats: int,
) -> dict[str, Any]:
    intersections, unions = by_entry(confusions, rule)
    cells = Cells.of(entries["run"], entries["class"])
    iou = cells.iou(intersections, unions)
    by_class: dict[int, list[float]] = {}
    for (_, identity), value in zip(cells.names, iou, strict=True):
        by_class.setdefault(identity, []).append(value)
    weights = picture_weights(entries["query"], repeats=repeats)
    runs = 100 * cells.by_group(iou)
    fb = fb_iou(confusions, np.array(entries["run"])[:: setting.ways])
    return {
        "miou": float(np.nanmean(runs)),
        "std": deviation(runs),
        "interval": list(interval(lambda w: cells.mean_iou(intersections, unions, w), weights)),
        "runs": runs.tolist(),
        "fbiou": float(fb.mean()),
        "fbiou_std": deviation(fb),
        "per_class": {
            class_names[identity]: 100 * float(np.nanmean(values))
            for identity, values in sorted(by_class.items())
            if not np.isnan(values).all()
        },
        "episodes": len(confusions),
        "pictures": len(set(entries["query"])),
        "intersection": intersections.tolist(),
        "union": unions.tolist(),
    }


def by_entry(
    confusions: NDArray[np.int64], rule: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``[E * N]`` intersections and unions of each class in each episode, by one of `RULES`."""
    pairs = [intersections_and_unions(each) for each in confusions]
    right, either = (np.stack(part)[:, 1:] for part in zip(*pairs, strict=True))
    if rule == "present":
        shown = confusions.sum(2)[:, 1:] > 0
        right, either = right * shown, either * shown
    return right.ravel(), either.ravel()


def fb_iou(confusions: NDArray[np.int64], run: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[runs]`` percent: the mean of foreground's and background's IoU, each summed over a run,
    with all classes as one foreground."""
    found = []
    for number in np.unique(run):
        right, either = intersections_and_unions(binary(confusions[run == number].sum(0)))
        found.append(100 * float(np.mean(right[either > 0] / either[either > 0])))
    return np.array(found)


def deviation(runs: NDArray[np.float64]) -> float | None:
    """Standard deviation of a sample of runs; None of one run."""
    return float(np.std(runs, ddof=1)) if len(runs) > 1 else None


SAME = ("shots", "ways", "annotation", "resolution", "false_positives")
"""Of rows that stand in one column: the episodes and what was counted."""


def mean_rows(
    rows: Sequence[Mapping[str, Any]],
    lists: Mapping[str, Mapping[str, Sequence[Any]]],
    repeats: int = 1000,
) -> list[dict[str, Any]]:
    """Rows of the same setting over folds: the mean, with an interval by pictures drawn within
    each fold. One fold alone has no mean."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((*(row[name] for name in SAME), given_of(row)), []).append(row)
    means = []
    for (*same, given), members in groups.items():
        if len(members) > 1:
            entries = Entries.of(members, lists)
            each = np.array([row["runs"] for row in members]).mean(0)
            means.append(
                {
                    "folds": [row["fold"] for row in members],
                    **dict(zip(SAME, same, strict=True)),
                    **given._asdict(),
                    "miou": float(np.mean([row["miou"] for row in members])),
                    "std": deviation(each),
                    "interval": list(entries.interval(repeats)),
                    "runs": each.tolist(),
                    "fbiou": float(np.mean([row["fbiou"] for row in members])),
                }
            )
    return means


class Entries:
    """The per-episode figures of rows of one or more folds, ready to be drawn again."""

    def __init__(
        self,
        folds: Sequence[int],
        runs: Sequence[int],
        queries: Sequence[str],
        classes: Sequence[int],
        intersections: NDArray[np.int64],
        unions: NDArray[np.int64],
    ) -> None:
        self.keys = list(zip(folds, runs, queries, classes, strict=True))
        self.folds, self.queries = folds, queries
        self.cells = Cells.of(list(zip(folds, runs, strict=True)), classes)
        self.intersections, self.unions = intersections, unions

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        lists: Mapping[str, Mapping[str, Sequence[Any]]],
    ) -> Entries:
        names = [row["list"] for row in rows]
        folds = [r["fold"] for r in rows for _ in lists[r["list"]]["run"]]
        joined = [[v for n in names for v in lists[n][k]] for k in ("run", "query", "class")]
        counts = [
            np.concatenate([np.array(row[key], np.int64) for row in rows]) for key in PER_EPISODE
        ]
        return cls(folds, joined[0], joined[1], joined[2], counts[0], counts[1])

    def mean_iou(self, weights: NDArray[np.float64] | None = None) -> float:
        return self.cells.mean_iou(self.intersections, self.unions, weights)

    def interval(self, repeats: int = 1000) -> tuple[float, float]:
        weights = picture_weights(self.queries, self.folds, repeats)
        return interval(self.mean_iou, weights)

    def less(self, other: Entries, repeats: int = 1000) -> tuple[float, float, float]:
        """This mean-IoU less the other's, and the 95 % interval of that: pictures are drawn, the
        same ones for both.

        Raises:
            ValueError: the two are not of the same episodes.
        """
        if self.keys != other.keys:
            raise ValueError("expected figures of the same episodes, got those of other lists")

        def difference(weights: NDArray[np.float64] | None) -> float:
            return self.mean_iou(weights) - other.mean_iou(weights)

        weights = picture_weights(self.queries, self.folds, repeats)
        return (difference(None), *interval(difference, weights))
