"""A two-layer classifier of cells that learns while it looks: ``online_mlp`` (csrc/online_mlp).

``logits = output_weight . dropout(relu(hidden_weight . x + hidden_bias)) + output_bias`` for the
features x of one cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import checks
from .checks import FloatArray
from .counter import uniform
from .places import HOST, Place, place_of, to_host
from .runtime import choose_threads

__all__ = ["Mlp", "MlpFit", "online_mlp_fit", "online_mlp_scores", "online_mlp_start"]

MOST_CLASSES = 256
MOST_HIDDEN = 4096


class Mlp(NamedTuple):
    """The weights, laid out as torch's ``Linear`` has them, all float32."""

    hidden_weight: FloatArray
    """``[H, C]``"""
    hidden_bias: FloatArray
    """``[H]``"""
    output_weight: FloatArray
    """``[K, H]``"""
    output_bias: FloatArray
    """``[K]``"""


class MlpFit(NamedTuple):
    """What ``online_mlp_fit`` found."""

    mlp: Mlp
    losses: NDArray[np.float32]
    """``[iterations]``, each before its step; infinite from where the fit broke off."""
    diverged: bool
    """A loss or a weight became infinite or NaN: ``mlp`` is the one that was handed in.

    On a device nobody waits for that: False, and the next copy to the host raises KernelError.
    """


def online_mlp_start(channels: int, hidden: int, classes: int, seed: int = 0) -> Mlp:
    """Weights to start from: uniform in ``+-1 / sqrt(fan in)``, as torch's ``Linear`` has them.

    From a counter-based generator: the same seed gives the same bits on every machine.
    Raises InputError.
    """
    channels = checks.whole(channels, "channels", 1)
    hidden = checks.whole(hidden, "hidden", 1, MOST_HIDDEN)
    classes = checks.whole(classes, "classes", 1, MOST_CLASSES)
    seed = checks.whole(seed, "seed", 0, 2**63 - 1)
    first, second = channels**-0.5, hidden**-0.5
    return Mlp(
        uniform(seed, 0, (hidden, channels), first),
        uniform(seed, 1, (1, hidden), first)[0],
        uniform(seed, 2, (classes, hidden), second),
        uniform(seed, 3, (1, classes), second)[0],
    )


def online_mlp_fit(
    samples: Sequence[tuple[object, object]],
    mlp: Mlp,
    *,
    iterations: int,
    learning_rate: float,
    momentum: float = 0.0,
    dropout: float = 0.0,
    length: float | None = None,
    seed: int = 0,
    precision: str = "fp32",
    threads: int | None = None,
) -> MlpFit:
    """Full-batch SGD of the classifier on the cells of some feature maps, all iterations at once.

    samples: pairs of features ``[B, C, h, w]`` and targets ``[B, K, h, w]``, float32, targets >= 0
    (soft ones are fine). Cells whose targets are all 0 are no samples and are not read. The loss is
    ``- sum of target * log(softmax(logits))`` over cells and classes: a sum, so targets carry the
    weights; let each class sum to 1/K for class balance.

    mlp: where to start; it is not changed. momentum: as in ``torch.optim.SGD``. dropout: of hidden
    units, 0 <= dropout < 1; which are dropped depends on seed, iteration, the cell's number among
    all cells and unit alone. length: each cell's features are scaled to this Euclidean length
    first (zero stays zero); None leaves them as they are. precision: ``"fp32"``, or ``"bf16"``,
    which rounds the inputs of the two large products to bfloat16 (sums stay float32). The same
    bits for every number of threads. Raises InputError.
    """
    place, pairs = _samples(samples)
    weights = _mlp(mlp, pairs[0][0].shape[1], place)
    for number, (_, targets) in enumerate(pairs):
        if targets.shape[1] != weights.output_weight.shape[0]:
            checks.agree(
                targets.shape[1:2],
                weights.output_weight.shape[:1],
                f"samples[{number}] targets",
                "classes of mlp:",
            )
    rate = checks.within(learning_rate, "learning_rate", 0.0, None)
    inertia = checks.within(momentum, "momentum", 0.0, 1.0)
    probability = checks.within(dropout, "dropout", 0.0, 1.0, open_end=True)
    counter = checks.whole(seed, "seed", 0, 2**63 - 1)
    fitted = Mlp(*(place.empty(array.shape) for array in weights))
    losses = place.empty((checks.whole(iterations, "iterations", 1, 1_000_000),))
    # On a device a look would wait for it; nothing to learn from leaves the classifier as it is.
    if place is HOST and not any(bool((targets > 0).any()) for _, targets in pairs):
        _blame(pairs, weights)
        raise InputError(
            "samples",
            expected="a cell with a target above 0",
            got="none in any sample",
            remedy="Leave the classifier as it is where there is nothing to learn from.",
        )
    finite, diverged = place.kernels.online_mlp_fit(
        pairs,
        tuple(weights),
        rate,
        inertia,
        probability,
        _length(length),
        counter,
        checks.bf16(precision),
        tuple(fitted),
        losses,
        choose_threads(threads),
    )
    if not finite:
        _blame(pairs, weights)
        checks.blame({"samples": pairs[0][0]}, "Scale the features down.")
    return MlpFit(Mlp(*mlp) if diverged else fitted, losses, diverged)


def online_mlp_scores(
    features: object,
    mlp: Mlp,
    *,
    length: float | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> FloatArray:
    """The logits of every cell, both layers in one pass over tiles of cells (no dropout).

    features: ``[B, C, h, w]`` float32; length, precision: as in ``online_mlp_fit``. Returns
    ``[B, K, h, w]`` float32. Raises InputError.
    """
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    weights = _mlp(mlp, f.shape[1], place)
    out = place.empty((f.shape[0], weights.output_weight.shape[0], *f.shape[2:]))
    arguments = (_length(length), checks.bf16(precision), out, choose_threads(threads))
    if not place.kernels.online_mlp_scores(f, tuple(weights), *arguments):
        checks.blame({"features": f, **_named(weights)}, "Scale the features down.")
    return out


def _samples(
    samples: Sequence[tuple[object, object]],
) -> tuple[Place, list[tuple[FloatArray, FloatArray]]]:
    if not isinstance(samples, Sequence) or not samples:
        _refuse("samples", "pairs of features and targets, at least one", repr(type(samples)))
    pairs: list[tuple[FloatArray, FloatArray]] = []
    place = HOST
    for number, pair in enumerate(samples):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            _refuse(f"samples[{number}]", "a pair of features and targets", repr(type(pair)))
        name = f"samples[{number}]"
        if number == 0:
            place = place_of(pair[0], f"{name} features")
        f = checks.planes(pair[0], f"{name} features", place=place, halves=True)
        t = checks.planes(pair[1], f"{name} targets", "[B, K, h, w]", place=place)
        if t.shape[0] != f.shape[0] or t.shape[2:] != f.shape[2:]:
            got, wanted = (t.shape[0], *t.shape[2:]), (f.shape[0], *f.shape[2:])
            what = "batch, height and width of features:"
            checks.agree(got, wanted, f"samples[{number}] targets", what)
        if pairs and f.shape[1] != pairs[0][0].shape[1]:
            got, wanted = f.shape[1:2], pairs[0][0].shape[1:2]
            checks.agree(got, wanted, f"samples[{number}] features", "channels of samples[0]:")
        pairs.append((f, t))
    return place, pairs


def _mlp(mlp: Mlp, channels: int, place: Place) -> Mlp:
    if not isinstance(mlp, tuple) or len(mlp) != 4:
        _refuse("mlp", "an Mlp", type(mlp).__name__)
    hidden_weight = checks.matrix(mlp[0], "mlp.hidden_weight", 2, "[H, C]", place)
    hidden_bias = checks.matrix(mlp[1], "mlp.hidden_bias", 1, "[H]", place)
    output_weight = checks.matrix(mlp[2], "mlp.output_weight", 2, "[K, H]", place)
    output_bias = checks.matrix(mlp[3], "mlp.output_bias", 1, "[K]", place)
    hidden, classes = hidden_weight.shape[0], output_weight.shape[0]
    if hidden > MOST_HIDDEN:
        _refuse("mlp.hidden_weight", f"at most {MOST_HIDDEN} hidden units", str(hidden))
    if classes > MOST_CLASSES:
        _refuse("mlp.output_weight", f"at most {MOST_CLASSES} classes", str(classes))
    for array, name, wanted, what in (
        (hidden_weight, "mlp.hidden_weight", (hidden, channels), "hidden units, channels:"),
        (hidden_bias, "mlp.hidden_bias", (hidden,), "rows of mlp.hidden_weight:"),
        (output_weight, "mlp.output_weight", (classes, hidden), "classes, hidden units:"),
        (output_bias, "mlp.output_bias", (classes,), "rows of mlp.output_weight:"),
    ):
        if array.shape != wanted:
            checks.agree(array.shape, wanted, name, what)
    return Mlp(hidden_weight, hidden_bias, output_weight, output_bias)


def _named(mlp: Mlp) -> dict[str, FloatArray]:
    return {f"mlp.{name}": array for name, array in mlp._asdict().items()}


def _blame(pairs: list[tuple[FloatArray, FloatArray]], mlp: Mlp) -> None:
    """Raises InputError for the first value that may not be."""
    named = _named(mlp)
    for number, pair in enumerate(pairs):
        features, targets = (to_host(array) for array in pair)
        negative = targets < 0
        if negative.any():
            where = tuple(int(i) for i in np.argwhere(negative)[0])
            got = f"{targets[where]} at index {where}"
            _refuse(f"samples[{number}] targets", "values of 0 or more", got)
        named[f"samples[{number}] targets"] = targets
        named[f"samples[{number}] features"] = features
    for name, array in named.items():
        if not np.isfinite(to_host(array)).all():
            checks.blame({name: array}, "")


def _length(length: float | None) -> float:
    return 0.0 if length is None else checks.within(length, "length", 0.0, None, open_start=True)


def _refuse(argument: str, expected: str, got: str) -> None:
    raise InputError(argument, expected=expected, got=got, remedy="Pass that instead.")
