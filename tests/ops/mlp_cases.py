"""The case tables of online_mlp, and a fit as one array, which is how the suites compare it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fsseg_sdk import ops
from fsseg_sdk.ops import reference
from tests.ops.case import Arguments, Case
from tests.ops.inputs import LAYOUTS, laid_out, values

# How far a weight may be off, relative to the largest movement of its array. A unit whose input is
# zero but for rounding counts in one arithmetic and not in the other; with bfloat16 what is nearly
# a tie is rounded either way. Both touch one cell's part of a sum.
MOVEMENT = {"fp32": 1e-4, "bf16": 5e-3}
LOSSES = {"fp32": 1e-5, "bf16": 2e-4}
SCORES = {"fp32": 1e-5, "bf16": 2e-3}
CHANNELS, MAPS = (1, 2, 15, 33, 65), ((1, 1), (1, 7), (9, 11), (33, 41))
WEIGHT_ROUNDING = 3e-7  # of weights that hardly move


def targets_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    """float32 ``[B, K, h, w]``, each class with the same sum, 1 in all."""
    batch, classes, height, width = shape
    if kind == "soft":
        targets = rng.random(shape, dtype=np.float32)
    else:
        chosen = rng.integers(0, classes, (batch, height, width))
        targets = (chosen[:, None] == np.arange(classes)[:, None, None]).astype(np.float32)
    if kind == "few":  # most cells are no samples
        targets *= rng.random((batch, 1, height, width)) < 0.1
    if kind in ("one", "few"):
        targets[-1, :, -1, -1] = 1.0
    if kind == "one":
        targets.reshape(-1)[:-1] = 0.0
    total = targets.sum(axis=(0, 2, 3), keepdims=True)
    return (targets / np.where(total > 0, total * classes, 1.0)).astype(np.float32)


def fit_arguments(
    rng: np.random.Generator,
    f: tuple[int, ...],
    hidden: int = 19,
    classes: int = 2,
    *,
    kind: str = "normal",
    targets: str = "hard",
    layout: str = "contiguous",
    maps: int = 1,
    **options: Any,
) -> Arguments:
    """Arguments of online_mlp_fit."""
    samples = []
    for _ in range(maps):
        features = laid_out(values(rng, f, kind), layout)
        target = targets_of(rng, (f[0], classes, *f[2:]), targets)
        samples.append((features, laid_out(target, layout)))
    mlp = ops.online_mlp_start(f[1], hidden, classes, seed=int(rng.integers(0, 1000)))
    usual = {"iterations": 2, "learning_rate": 0.5, "momentum": 0.9, "dropout": 0.5, "seed": 5}
    return {"samples": samples, "mlp": mlp, **usual, **options}


def online_mlp_fit() -> Iterator[Case]:
    def case(f: Any, hidden: int = 19, classes: int = 2, **options: Any) -> Case:
        said = "-".join(f"{name}-{value}" for name, value in options.items())
        name = f"{'x'.join(map(str, f))}-H-{hidden}-K-{classes}-{said}"
        maker = lambda rng: fit_arguments(rng, f, hidden, classes, **options)  # noqa: E731
        return Case("online_mlp_fit", name, maker)

    for channels, size in itertools.product(
        (1, 2, 15, 33, 65), ((1, 1), (1, 7), (9, 11), (33, 41))
    ):
        yield case((2, channels, *size))
    for hidden in (1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 49, 70):
        for precision in ("fp32", "bf16"):
            yield case((1, 21, 9, 11), hidden, precision=precision)
    for classes in (1, 3, 4, 5, 6, 7, 13, 256):
        yield case((1, 21, 9, 11), 19, classes)
        yield case((1, 21, 5, 7), 37, classes, precision="bf16", targets="soft")
    for targets in ("soft", "few", "one"):
        for maps in (1, 3):
            yield case((2, 35, 13, 17), targets=targets, maps=maps)
            yield case((2, 35, 13, 17), targets=targets, maps=maps, precision="bf16")
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 33, layout=layout)
        yield case((3, 20, 9, 11), 33, layout=layout, precision="bf16")
    for kind, precision in itertools.product(
        ("relu", "zero", "mixed", "huge", "tiny", "denormal", "limit"), ("fp32", "bf16")
    ):
        yield case((2, 20, 9, 11), kind=kind, length=3.0, precision=precision)
    for dropout, momentum, length in itertools.product((0.0, 0.3, 0.99), (0.0, 0.9), (None, 2.0)):
        yield case((1, 40, 9, 11), dropout=dropout, momentum=momentum, length=length, iterations=3)
    yield case((1, 600, 9, 11), 300, 3)  # more channels than one run of a tile takes
    yield case((1, 600, 9, 11), 300, 3, precision="bf16")
    yield case((1, 70, 60, 61), 70, 3)  # more cells than one run takes
    yield case((1, 70, 60, 61), 70, 3, precision="bf16")


def online_mlp_scores() -> Iterator[Case]:
    def case(
        f: Any,
        hidden: int = 19,
        classes: int = 2,
        kind: str = "normal",
        layout: str = "contiguous",
        length: float | None = None,
        precision: str = "fp32",
    ) -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            features = laid_out(values(rng, f, kind), layout)
            mlp = ops.online_mlp_start(f[1], hidden, classes, seed=3)
            return {"features": features, "mlp": mlp, "length": length, "precision": precision}

        name = (
            f"{'x'.join(map(str, f))}-H-{hidden}-K-{classes}-{kind}-{layout}-{length}-{precision}"
        )
        return Case("online_mlp_scores", name, make)

    both = ("fp32", "bf16")
    for channels, size in itertools.product(
        (1, 2, 15, 33, 65), ((1, 1), (1, 7), (9, 11), (33, 41))
    ):
        yield case((2, channels, *size))
    for hidden, precision in itertools.product((1, 7, 8, 16, 17, 31, 33, 70), both):
        yield case((1, 21, 9, 11), hidden, precision=precision)
    for classes, precision in itertools.product((1, 3, 4, 5, 6, 7, 13, 256), both):
        yield case((1, 21, 9, 11), 19, classes, precision=precision)
    for kind, precision in itertools.product(
        ("relu", "zero", "mixed", "huge", "tiny", "denormal", "limit"), both
    ):
        yield case((2, 20, 9, 11), kind=kind, length=3.0, precision=precision)
    for layout, precision in itertools.product(LAYOUTS, both):
        yield case((3, 20, 9, 11), layout=layout, precision=precision)
    for precision in both:
        yield case((1, 600, 9, 11), 300, 3, precision=precision)
        yield case((1, 192, 28, 28), 300, 2, "relu", length=1.0, precision=precision)


def flat(arrays: Any, losses: Any) -> Any:
    """The arrays of an Mlp and the losses of a fit, one after another."""
    return np.concatenate([np.asarray(array).reshape(-1) for array in (*arrays, losses)])


def fit_reference(arguments: Arguments) -> Any:
    """flat() of the reference."""
    return flat(*reference.online_mlp_fit(**arguments))


def fit_limits(arguments: Arguments, expected: Any) -> Any:
    """The error allowed to each value of flat()."""
    precision = arguments.get("precision", "fp32")
    start, limits = 0, np.empty_like(expected)
    for array in arguments["mlp"]:
        part = slice(start, start + array.size)
        moved = float(np.abs(expected[part] - array.reshape(-1)).max())
        limits[part] = MOVEMENT[precision] * moved + WEIGHT_ROUNDING
        start += array.size
    limits[start:] = LOSSES[precision] * np.maximum(np.abs(expected[start:]), 1e-2)
    return limits
