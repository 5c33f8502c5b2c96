"""A long run of mixed queries that watches memory, threads and open files.

python -m tests.soak --minutes 20      as `make soak` does; exit status 1 on growth
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import psutil

from fsseg_sdk import InputError, Segmenter, Task
from fsseg_sdk.segmenter import shipped
from tests import opened, tiny

LEAST_SAMPLES = 20
MOST_BYTES_PER_QUERY = 1000.0
MOST_GROWTH = 20_000_000


@dataclass(frozen=True)
class Sample:
    """The process after this many queries: resident bytes, threads, open files."""

    queries: int
    resident: int
    threads: int
    handles: int


def watch(
    seconds: float, warm_up: float, tasks: Sequence[Task], samples: int = 200
) -> list[Sample]:
    """Mixed queries for `seconds`, after `warm_up` seconds of the same that are not looked at."""
    process = psutil.Process()
    rounds = itertools.cycle([_round(task, n) for n in range(7) for task in tasks])
    queries = 0
    end_of_warm_up = time.monotonic() + warm_up
    while time.monotonic() < end_of_warm_up:
        next(rounds)()
    taken: list[Sample] = []
    begin = time.monotonic()
    for number in range(samples):
        until = begin + seconds * (number + 1) / samples
        while time.monotonic() < until or queries == (taken[-1].queries if taken else 0):
            queries += next(rounds)()
        time.sleep(0.01)  # a thread that was joined leaves the system's count a moment later
        resident = process.memory_info().rss
        taken.append(Sample(queries, resident, process.num_threads(), process.num_fds()))
    return taken


def _round(task: Task, number: int) -> Callable[[], int]:
    """A few queries of one size; returns how many."""
    size = (90 + 61 * number, 300 - 37 * number)
    picture = opened.query(number, size).pixels
    image, mask = tiny.tiny_scene()

    def run() -> int:
        task.segment(picture).overlay()
        _ = task.segment(picture).scores
        task.segment_batch([picture, image])
        list(task.stream([picture, image], batch=2))
        list(task.stream([picture, image], latest=True))
        task.add("more", (image, mask)).segment(image, tile=48)
        try:
            task.segment(b"not a picture")
        except InputError:
            return 8
        raise AssertionError("a text was taken for a picture")

    return run


def slope(samples: Sequence[Sample]) -> float:
    """Bytes per query: the median slope of all pairs (Theil-Sen), which outliers do not move."""
    queries = np.array([sample.queries for sample in samples], np.float64)
    resident = np.array([sample.resident for sample in samples], np.float64)
    first, second = np.triu_indices(len(samples), 1)
    apart = queries[second] > queries[first]
    rise = (resident[second] - resident[first])[apart]
    return float(np.median(rise / (queries[second] - queries[first])[apart]))


def faults(samples: Sequence[Sample]) -> list[str]:
    """Why this run failed; nothing if it did not. Too little to judge by is a failure."""
    if len(samples) < LEAST_SAMPLES or samples[-1].queries < 10 * LEAST_SAMPLES:
        return [f"too few samples: {len(samples)}"]
    found = []
    if not (grows := slope(samples)) < MOST_BYTES_PER_QUERY:
        found.append(f"memory grows by {grows:.0f} bytes per query")
    tenth = max(len(samples) // 10, 1)
    start = statistics.median(sample.resident for sample in samples[:tenth])
    end = statistics.median(sample.resident for sample in samples[-tenth:])
    if not end - start < MOST_GROWTH:
        found.append(f"memory grew by {(end - start) / 1e6:.1f} MB")
    for what in ("threads", "handles"):
        counts = {getattr(sample, what) for sample in samples}
        if len(counts) > 1:
            found.append(f"the number of {what} is not constant: {sorted(counts)}")
    return found


def tasks() -> list[Task]:
    """The tiny bundle with both geometries, and the default one where it is shipped."""
    segmenters = [opened.tiny_segmenter("squash"), opened.tiny_segmenter("fit")]
    if "default" in shipped():
        segmenters.append(Segmenter.load("default", threads=1))
    return [segmenter.prepare(opened.support()) for segmenter in segmenters]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="minutes")
    parser.add_argument("--out", help="write all samples to this JSON file")
    options = parser.parse_args(arguments)
    samples = watch(options.minutes * 60, options.warm_up * 60, tasks())
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump([asdict(sample) for sample in samples], file)
    last = samples[-1]
    print(
        f"{last.queries} queries in {options.minutes:g} minutes: {slope(samples):+.1f} bytes per "
        f"query, {last.resident / 1e6:.1f} MB resident, {last.threads} threads, "
        f"{last.handles} open files"
    )
    found = faults(samples)
    for fault in found:
        print(f"FAILED: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
