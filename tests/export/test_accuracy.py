"""What int8 costs: how far an encoder is judged before it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import accuracy
from export.accuracy import DRAWS, FIRST, Judge, episodes_of
from fsseg_sdk import Segmenter
from fsseg_sdk.bundle import Bundle
from tests.tiny import tiny_bundle
from tests.training.squares import draw_parts
from training.evaluation.heldout import Episode, Outcome


def test_an_encoder_that_loses_far_too_much_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a part of the episodes; one that loses little is measured on all of them."""
    path = tiny_bundle(tmp_path / "tiny.fsseg")
    core = Segmenter.load(path, threads=1)._core
    graphs = {**core.graphs, "encoder": core.encoder.graph}
    draw_parts(tmp_path / "parts")
    some = episodes_of(tmp_path / "parts")[0]
    episodes = (some * (3 * FIRST // len(some) + 1))[: 3 * FIRST]
    share, asked = {"float32": 90, "good": 90, "bad": 60}, []

    def evaluated(segmenter: Segmenter, given: Sequence[Episode], label: str) -> Outcome:
        asked.append((label, len(given)))
        found = np.full(len(given), share[label])
        return Outcome(list(given), found, np.full(len(given), 100), np.ones(len(given)))

    monkeypatch.setattr(accuracy, "evaluate", evaluated)
    judge = Judge(Bundle.open(path).manifest.to_json(), graphs, episodes)
    bad = judge.cost(graphs["encoder"], "bad", 0.5)
    assert bad.loss == pytest.approx(30) and bad.part and "first episodes" in str(bad)
    good = judge.cost(graphs["encoder"], "good", 0.5)
    assert good.loss == good.high == 0 and not good.part
    judge.cost(graphs["encoder"], "bad")  # no limit: the whole cost is asked for
    every = [("float32", 300), ("bad", 100), ("good", 100), ("good", 300), ("bad", 300)]
    assert asked == every


def test_every_class_of_a_query_with_several_examples(tmp_path: Path) -> None:
    draw_parts(tmp_path / "parts")
    episodes, words = episodes_of(tmp_path / "parts", 3)
    first: Any = [(e.query.key, e.identity) for e in episodes]
    assert len(episodes) > DRAWS * 3 and words == f"{len(episodes)} episodes of parts"
    assert len({(*key, e.support.key) for key, e in zip(first, episodes, strict=True)}) > 6
