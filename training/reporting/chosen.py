"""Which episodes a page shows: by rank, so that nobody picks."""

from __future__ import annotations

import numpy as np

from training.reporting.measured import Row

RANKS = {"good": 0.9, "median": 0.5, "bad": 0.1}
"""Shares of the episodes that are worse. The worst and best of a thousand say little."""


def chosen(row: Row, each: int) -> list[tuple[str, int, float]]:
    """(rank's name, index of the episode, its IoU in %).

    Episodes are sorted by IoU (of all ways together), those of one IoU by their place in the list.
    The ``each`` next to a rank are taken, from the rank upwards, a query only once.
    """
    ways = row.setting.ways
    right, either = (
        np.array(row.figures[key], np.float64).reshape(-1, ways).sum(1)
        for key in ("intersection", "union")
    )
    queries = row.entries["query"][::ways]
    some = np.flatnonzero(either > 0)
    iou = 100 * right[some] / either[some]
    order = some[np.argsort(iou, kind="stable")]
    taken: set[str] = set()
    found = []
    for name, share in RANKS.items():
        middle = min(int(share * len(order)), len(order) - 1)
        # from the rank to the top, then below it: so that a short list still gives some
        places = [*range(middle, len(order)), *range(middle - 1, -1, -1)]
        fresh: list[tuple[str, int, float]] = []
        for place in places:
            index = int(order[place])
            if len(fresh) < each and queries[index] not in taken:
                taken.add(queries[index])
                fresh.append((name, index, 100 * float(right[index] / either[index])))
        found += fresh
    return found
