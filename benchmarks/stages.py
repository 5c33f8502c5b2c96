"""Milliseconds of a query by stage, and what all but the encoder costs beside the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from fsseg_sdk.task import Task

STAGES = ("decode", "preprocess", "encoder", "match", "label", "other", "total")


def measure(
    task: Task, query: object, seconds: float, batch: int = 1, least: int = 5
) -> dict[str, Any]:
    """Segment ``query`` again and again for ``seconds``; figures are per picture.

    "total" is the call as its caller sees it, "other" what no stage claims of that. "beside" is
    everything but the encoder, and "after" is match and label, both in percent of the same call's
    encoder.
    """
    from tqdm import tqdm

    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    task.segment_batch([query] * batch, batch=batch)
    end = perf_counter() + seconds
    with tqdm(total=round(seconds), unit="s", disable=None, leave=False) as bar:
        while perf_counter() < end or len(times["total"]) < least:
            begin = perf_counter()
            results = task.segment_batch([query] * batch, batch=batch)
            wall = (perf_counter() - begin) * 1e3 / batch
            for stage in STAGES[:-2]:
                claimed = sum(result.timings[stage] for result in results) / batch
                times[stage].append(claimed)
            times["other"].append(wall - sum(times[stage][-1] for stage in STAGES[:-2]))
            times["total"].append(wall)
            bar.n = min(bar.total, round(seconds - (end - perf_counter())))
            bar.refresh()
    encoder, total = np.array(times["encoder"]), np.array(times["total"])
    after = np.array(times["match"]) + np.array(times["label"])
    result: dict[str, Any] = {stage: percentiles(values) for stage, values in times.items()}
    result["runs"], result["batch"] = len(total), batch
    result["fps"] = 1e3 / float(np.median(total))
    result["beside_percent"] = float(np.median(100 * (total - encoder) / encoder))
    result["after_percent"] = float(np.median(100 * after / encoder))
    return result


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": float(p50), "p95": float(p95)}
