"""Memory, threads and open files stay as they are. `make soak` runs the 20 minutes."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from tests import soak
from tests.soak import Sample


def test_a_few_seconds() -> None:
    samples = soak.watch(seconds=6.0, warm_up=3.0, tasks=soak.tasks()[:2], samples=60)
    assert soak.faults(samples) == []


@pytest.mark.slow
def test_twenty_minutes() -> None:
    minutes = float(os.environ.get("FSSEG_SOAK_MINUTES", "20"))
    assert soak.main(["--minutes", str(minutes)]) == 0


def flat(count: int = 100) -> list[Sample]:
    """Memory that goes up and down by a megabyte around 150."""
    noise = np.random.default_rng(0).integers(-1_000_000, 1_000_000, count)
    return [Sample(50 * n, 150_000_000 + int(noise[n]), 5, 12) for n in range(count)]


class TestTheWatchItself:
    def test_flat_is_fine(self) -> None:
        assert soak.faults(flat()) == []

    def test_a_leak_is_seen(self) -> None:
        leaking = [replace(s, resident=s.resident + 1500 * s.queries) for s in flat(400)]
        assert "bytes per query" in soak.faults(leaking)[0]
        assert abs(soak.slope(leaking) - 1500) < 100

    def test_a_jump_is_seen(self) -> None:
        jumped = [
            replace(s, resident=s.resident + 25_000_000 * (n > 90)) for n, s in enumerate(flat())
        ]
        assert soak.faults([*jumped, *jumped[-40:]])[-1].startswith("memory grew by 2")

    def test_one_spike_is_not_a_leak(self) -> None:
        spiked = flat()
        spiked[50] = replace(spiked[50], resident=900_000_000)
        assert soak.faults(spiked) == []

    def test_too_little_to_judge_by(self) -> None:
        assert "too few" in soak.faults([])[0]
        assert "too few" in soak.faults(flat(19))[0]
        assert (
            "too few" in soak.faults([replace(s, queries=n // 10) for n, s in enumerate(flat())])[0]
        )

    def test_nan_is_no_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(soak, "slope", lambda samples: float("nan"))
        assert soak.faults(flat())

    @pytest.mark.parametrize("what", ["threads", "handles"])
    def test_threads_and_files(self, what: str) -> None:
        growing = flat()
        growing[-1] = replace(growing[-1], **{what: 13})
        assert what in soak.faults(growing)[0]
