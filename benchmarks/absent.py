"""Is it there at all? Presence scores on lists where half of the pictures do not show the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.models import open_bundle
from benchmarks.protocol import Protocol
from benchmarks.report import table
from training.evaluation import Outcome, auroc, calibration_error, evaluate, with_absent

SOURCES: dict[Literal["own", "any"], str] = {
    "own": "absent from a picture of the same set",
    "any": "absent from a picture of any held-out set",
}
PROTOCOL = (
    "Each episode of the held-out sets (the class is there) and the same example asked for in a "
    "picture that does not show it (the class is absent): half and half. AUROC: the chance that a "
    "picture with the class scores higher than one without. ECE: expected calibration error, ten "
    "bins. kept, false: share of the present and of the absent whose score reaches the threshold."
)
CAVEAT = (
    "Of another set it is assumed that its pictures do not show the class: nobody has labelled "
    "them for it (there are streets behind the clothing). Where every picture of a set shows a "
    "class, 'the same set' falls back to another one; 'fallbacks' counts those."
)


def measure(protocol: Protocol) -> dict[str, Any]:
    """Rows for each set and for all pooled, by where the absent queries come from."""
    segmenter = open_bundle(protocol.bundle, protocol.threads, protocol.memory)
    model = getattr(segmenter.settings, "presence", None)
    threshold = None if model is None else float(model.threshold)
    samples = [sample for each in protocol.held_out for sample in each.samples]
    result: dict[str, Any] = {"calibrated": model is not None, "threshold": threshold}
    for source, title in SOURCES.items():
        episodes = with_absent(
            protocol.episodes(seen=False), samples, protocol.settings.seed, source
        )
        outcome = evaluate(segmenter, episodes, title)
        rows = [
            figures(each.name, outcome.of(each.name), threshold)
            for each in protocol.held_out
            if outcome.of(each.name).episodes
        ]
        result[source] = [*rows, figures("pooled", outcome, threshold)] if rows else []
    return result


def figures(name: str, outcome: Outcome, threshold: float | None) -> dict[str, Any]:
    present = np.array([not e.absent for e in outcome.episodes])
    scores = outcome.presence.astype(np.float64)
    row: dict[str, Any] = {
        "set": name,
        "present": int(present.sum()),
        "absent": int((~present).sum()),
        "fallbacks": sum(e.absent and e.query.dataset != e.dataset for e in outcome.episodes),
        "auroc": auroc(scores, present),
        "ece": calibration_error(scores, present),
    }
    if threshold is not None:
        row["kept"] = float((scores[present] >= threshold).mean())
        row["false"] = float((scores[~present] >= threshold).mean())
    return row


def lines(result: Mapping[str, Any]) -> list[str]:
    text = [PROTOCOL, CAVEAT]
    if not result["calibrated"]:
        text.append(
            "This bundle's scores are not calibrated: they rank pictures, and no class is ever "
            "ruled out. The ECE below only says how far they are from probabilities."
        )
    for source, title in SOURCES.items():
        text += ["", f"{title}:", table(_cells(result[source], source == "own"))]
    return text


def _cells(rows: Sequence[Mapping[str, Any]], own: bool) -> list[list[str]]:
    last = "fallbacks" if own else "other sets"
    columns = ["set", "present", "absent", last, "AUROC", "ECE", "kept", "false"]
    cells = [columns]
    for row in rows:
        shares = [f"{100 * row[key]:.0f} %" if key in row else "-" for key in ("kept", "false")]
        counts = [str(row[key]) for key in ("present", "absent", "fallbacks")]
        cells.append([row["set"], *counts, f"{row['auroc']:.3f}", f"{row['ece']:.3f}", *shares])
    return cells
