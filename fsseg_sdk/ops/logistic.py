"""Independent logistic regressions on the same cells, fitted in one call: csrc/logistic_fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import checks
from .checks import FloatArray
from .places import place_of, to_host
from .runtime import choose_threads

__all__ = ["LogisticFit", "logistic_fit"]

MOST_CLASSES = 65535
MOST_STEPS = 1_000_000
LARGEST_RATE = 2.0
LARGEST_L2 = 1e30


class LogisticFit(NamedTuple):
    """What ``logistic_fit`` found, as ``linear_match`` takes it, and the way there."""

    weight: FloatArray
    """``[G, C]``"""
    bias: FloatArray
    """``[G]``"""
    losses: NDArray[np.float32]
    """``[steps, G]``, each before its step."""


def logistic_fit(
    cells: object,
    targets: object,
    weights: object,
    *,
    steps: int,
    rate: float = 1.0,
    momentum: float = 0.9,
    l2: float = 0.0,
    threads: int | None = None,
) -> LogisticFit:
    """G weighted logistic regressions by full-batch gradient descent, from zero.

    Of class g, with ``z = weight[g] . cell + bias[g]``::

        loss[g] = sum over cells of weights * cross_entropy(targets, sigmoid(z))
                  + l2 / 2 * |weight[g]|^2

    cells: ``[M, C]`` float32; targets: ``[M, G]`` float32 of 0 to 1; weights: ``[M, G]`` float32 of
    0 or more. A sum: let the weights of a class sum to 1 (half for each side, for balance).

    rate: in units of 1 / (the largest curvature that a class's loss can have), so 1 suits all
    features; at most 2. Scale cells to one length: their spread decides how many steps are needed.
    momentum: as in ``torch.optim.SGD``, below 1. A class without weight stays at 0.
    The same bits for every number of threads. Raises InputError.
    """
    place = place_of(cells, "cells")
    x = checks.rows(cells, "cells", (2,), "[M, C]", place)
    t = checks.matrix(targets, "targets", 2, "[M, G]", place)
    w = checks.matrix(weights, "weights", 2, "[M, G]", place)
    classes = t.shape[1]
    if t.shape[0] != x.shape[0]:
        checks.agree(t.shape[:1], x.shape[:1], "targets", "rows of cells:")
    if w.shape != t.shape:
        checks.agree(w.shape, t.shape, "weights", "shape of targets:")
    checks.whole(classes, "classes of targets", 1, MOST_CLASSES)
    count = checks.whole(steps, "steps", 1, MOST_STEPS)
    speed = checks.within(rate, "rate", 0.0, LARGEST_RATE, open_start=True)
    inertia = checks.within(momentum, "momentum", 0.0, 1.0, open_end=True)
    decay = checks.within(l2, "l2", 0.0, LARGEST_L2)
    fit = LogisticFit(
        place.empty((classes, x.shape[1])),
        place.empty((classes,)),
        place.empty((count, classes)),
    )
    numbers = (speed, inertia, decay)
    if not place.kernels.logistic_fit(x, t, w, *numbers, *fit, choose_threads(threads)):
        checks.no_negative(t, "targets")
        checks.no_negative(w, "weights")
        seen = to_host(t)
        if (seen > 1).any():
            where = tuple(int(i) for i in np.argwhere(seen > 1)[0])
            got = f"{seen[where]} at index {where}"
            checks.refuse("targets", "values of 0 to 1", got, "Divide by the largest.")
        checks.blame({"cells": x, "targets": t, "weights": w}, "Scale the cells to one length.")
    return fit
