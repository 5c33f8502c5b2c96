"""What the tests of exported heads share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.build import ExportReport
from fsseg_sdk import Segmenter
from training.evaluation.models import of_checkpoint
from training.evaluation.protocols import PROTOCOLS
from training.scenes import draw_pair

SIDE = 96


def episode(seed: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]:
    """A drawn picture, the mask of marks in it, and a picture to find them in."""
    (shown, families), (query, _) = draw_pair(np.random.default_rng(seed), SIDE)
    return shown, families == 1, query


def check_evaluation(checkpoint: Path, report: ExportReport, method: str) -> NDArray[np.uint8]:
    """Evaluation runs a checkpoint on torch as the bundle answers that was made of it, at the
    bundle's size; the bundle's labels."""
    shown, mask, query = episode()
    segmenter = Segmenter.load(report.path, threads=1)
    protocol = replace(PROTOCOLS["panet-417"], side=segmenter.input_size[0])
    predictor = of_checkpoint(checkpoint, protocol)
    assert predictor.facts["method"] == method
    rows = predictor.summarise(shown, [mask])
    labels = predictor.segment(query, [rows], [(SIDE, SIDE)])[0]
    expected = segmenter.segment(shown, mask, query).labels
    assert (labels == expected).mean() > 0.98
    return expected
