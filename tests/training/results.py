"""Results as `training.evaluate` writes them, with figures that can be checked by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Entry = tuple[int, str, int, int, int]
"""run, query, class, intersection, union"""

NAMES = {6: "bus", 7: "car", 11: "table"}
CAVEAT = "Not PASCAL-5i: another subset."


def row(
    fold: int,
    entries: Sequence[Entry],
    value: float,
    std: float | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A row of a result; ``_entries`` becomes its list."""
    runs = len({entry[0] for entry in entries})
    return {
        "fold": fold,
        "shots": 1,
        "ways": 1,
        "annotation": "dense",
        "resolution": "417x417",
        "false_positives": "all",
        "ms_per_query": 50.0,
        "miou": value,
        "std": std,
        "interval": [value - 5, value + 5],
        "runs": [value] * runs,
        "fbiou": value + 10,
        "fbiou_std": None,
        "per_class": {NAMES[entry[2]]: 100 * entry[3] / entry[4] for entry in entries},
        "episodes": len(entries),
        "pictures": len({entry[1] for entry in entries}),
        "intersection": [entry[3] for entry in entries],
        "union": [entry[4] for entry in entries],
        "_entries": entries,
        **fields,
    }


def result(name: str, *rows: dict[str, Any], **model: Any) -> dict[str, Any]:
    """One result with these rows. model: facts of the model."""
    lists, written = {}, []
    for each in rows:
        own = f"fold{each['fold']}-{each['ways']}way-{each['shots']}shot"
        entries = each["_entries"]
        lists[own] = {
            "run": [entry[0] for entry in entries],
            "query": [entry[1] for entry in entries],
            "class": [entry[2] for entry in entries],
        }
        written.append({k: v for k, v in each.items() if k != "_entries"} | {"list": own})
    facts = {"name": name, "kind": "torch", "trained": {"seed": 0}, **model}
    return {
        "protocol": "panet-417",
        "data": {"name": "voc2012", "pictures": 3426, "caveat": CAVEAT},
        "model": facts,
        "models": {str(each["fold"]): facts for each in rows},
        "notes": ["fold 0: has too few pictures."],
        "rows": written,
        "means": [],
        "lists": lists,
    }


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)
