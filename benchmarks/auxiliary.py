"""What pictures with image-level labels bring: `paia` with and without them, right and wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from benchmarks.iou import summary
from benchmarks.models import open_shared
from benchmarks.protocol import Protocol
from training.datasets import Sample
from training.evaluation import Episode, Outcome, evaluate

GIVEN = {"paia, U = 0": (0, 0), "U = 2": (2, 0), "U = 5": (5, 0), "U = 2 + 2 wrong": (2, 2)}
"""Pictures of the class, and of others that are said to be."""


def measure(protocol: Protocol) -> dict[str, Any]:
    """PANet, and `paia` with auxiliary pictures of the episode's set; fewer are some of more."""
    opened, _ = open_shared(protocol.bundle, protocol.threads, protocol.memory, ("panet", "paia"))
    episodes = protocol.episodes()
    outcomes: dict[str, Outcome] = {"panet": evaluate(opened["panet"], episodes, "panet")}
    samples = {each.name: each.samples for each in protocol.sets}
    for name, (right, wrong) in GIVEN.items():

        def drawn(episode: Episode, right: int = right, wrong: int = wrong) -> list[Sample]:
            return draw(episode, samples[episode.dataset], right, wrong, protocol.settings.seed)

        outcomes[name] = evaluate(opened["paia"], episodes, name, auxiliary=drawn)
    return summary(protocol, outcomes, [(name, "panet") for name in GIVEN])


def draw(
    episode: Episode, samples: Sequence[Sample], right: int, wrong: int, seed: int
) -> list[Sample]:
    """``right`` other pictures that show the episode's class and ``wrong`` that do not, or as many
    as there are; never its support or its query."""
    generator = random.Random(
        f"{seed} {episode.support.key} {episode.query.key} {episode.identity}"
    )
    others = [s for s in samples if s.key not in (episode.support.key, episode.query.key)]
    chosen = []
    for shows, count in ((True, right), (False, wrong)):
        found = [s for s in others if (episode.identity in s.classes) == shows]
        generator.shuffle(found)
        chosen += found[:count]
    return chosen
