"""Evaluation: named protocols on lists of episodes, and bundles on any labelled set.

`python -m training.evaluate` is the command; docs/evaluation.md says what is measured how.
"""

from training.evaluation.heldout import (
    Annotate,
    Episode,
    Outcome,
    ProtocolSettings,
    evaluate,
    list_episodes,
    paired_interval,
    with_absent,
)
from training.evaluation.metrics import auroc, calibration_error
from training.evaluation.protocols import PROTOCOLS, Protocol, protocol_of

__all__ = [
    "Annotate",
    "Episode",
    "Outcome",
    "PROTOCOLS",
    "Protocol",
    "ProtocolSettings",
    "auroc",
    "calibration_error",
    "evaluate",
    "list_episodes",
    "paired_interval",
    "protocol_of",
    "with_absent",
]
