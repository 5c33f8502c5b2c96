"""The case tables of nearest and logistic_fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.ops.case import Arguments, Case
from tests.ops.inputs import KINDS, LAYOUTS, laid_out, values

# What is nearly a tie of bfloat16 is rounded either way: one step of one of the factors.
NEAREST_BF16 = 2e-3
# A weight is off by the rounding of its gradients, relative to the largest weight of its class.
PARAMETERS, LOSSES = 2e-5, 2e-6


def nearest_arguments(
    rng: np.random.Generator,
    f: tuple[int, ...],
    count: int,
    groups: int = 2,
    *,
    kind: str = "normal",
    layout: str = "contiguous",
    rows: str = "normal",
    precision: str = "fp32",
) -> Arguments:
    """Arguments of nearest: with three groups or more the second has no rows."""
    members = values(rng, (count, f[1]), rows)
    if count >= 3:
        members[count // 2] = 0
    group = rng.integers(0, groups, count)
    if groups >= 3:
        group[group == 1] = 2
    features = laid_out(values(rng, f, kind), layout)
    given = {"features": features, "rows": members, "group": group, "groups": groups}
    return given | {"precision": precision}


def nearest() -> Iterator[Case]:
    def case(f: Any, count: int, groups: int = 2, **options: Any) -> Case:
        said = "-".join(f"{name}-{value}" for name, value in options.items())
        name = f"{'x'.join(map(str, f))}-M-{count}-G-{groups}-{said}"
        return Case(
            "nearest", name, lambda rng: nearest_arguments(rng, f, count, groups, **options)
        )

    both = ("fp32", "bf16")
    for precision in both:
        for channels, size in itertools.product(
            (1, 2, 15, 33, 65), ((1, 1), (1, 7), (9, 11), (33, 41))
        ):
            yield case((2, channels, *size), 29, precision=precision)
        for count, groups in itertools.product((1, 3, 11, 12, 13, 31, 33, 200), (1, 2, 5)):
            yield case((1, 21, 5, 21), count, groups, precision=precision)
        for kind in ("relu", "zero", "mixed", "huge", "tiny", "limit", "denormal"):
            yield case((2, 20, 9, 11), 30, kind=kind, precision=precision)
        yield case((1, 20, 9, 11), 40, 100, precision=precision)
        # more channels than a piece takes, more rows than a block, more cells than a tile
        yield case((1, 600, 9, 11), 430, 3, precision=precision)
        yield case((1, 1025, 5, 20), 50, precision=precision)
        yield case((1, 70, 60, 61), 40, precision=precision)
    for kind in KINDS:
        yield case((1, 20, 9, 11), 30, rows=kind)
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 30, layout=layout)


def logistic_arguments(
    rng: np.random.Generator,
    count: int,
    channels: int,
    classes: int = 2,
    *,
    targets: str = "hard",
    length: float = 1.0,
    steps: int = 12,
    rate: float = 1.0,
    momentum: float = 0.9,
    l2: float = 0.0,
    layout: str = "contiguous",
) -> Arguments:
    """Arguments of logistic_fit; weights of a class sum to 1, but of every fifth class to 0."""
    x = rng.standard_normal((count, channels))
    side = (x[:, :1] + rng.standard_normal((count, classes)) > 0.3).astype(np.float32)
    if targets == "soft":
        side = rng.random((count, classes), dtype=np.float32)
    weights = rng.random((count, classes)) * (rng.random((count, classes)) < 0.7)
    weights[:, 4::5] = 0.0
    total = weights.sum(axis=0)
    weights /= np.where(total > 0.0, total, 1.0)
    cells = (x * (length / np.linalg.norm(x, axis=1, keepdims=True))).astype(np.float32)
    if layout == "strided":
        wide = np.full((2 * count, channels + 5), np.nan, np.float32)
        wide[1::2, 2 : channels + 2] = cells
        cells = wide[1::2, 2 : channels + 2]
    numbers = {"steps": steps, "rate": rate, "momentum": momentum, "l2": l2}
    return {"cells": cells, "targets": side, "weights": weights.astype(np.float32), **numbers}


def logistic_fit() -> Iterator[Case]:
    def case(count: int, channels: int, classes: int = 2, **options: Any) -> Case:
        said = "-".join(f"{name}-{value}" for name, value in options.items())
        name = f"{count}x{channels}-G-{classes}-{said}"
        maker = lambda rng: logistic_arguments(rng, count, channels, classes, **options)  # noqa: E731
        return Case("logistic_fit", name, maker)

    for count, channels in itertools.product((1, 3, 15, 16, 17, 99), (1, 2, 15, 16, 17, 33, 70)):
        yield case(count, channels)
    for classes in (1, 2, 3, 4, 5, 6, 7, 13, 60):
        yield case(77, 21, classes)
        yield case(77, 21, classes, targets="soft", l2=0.1)
    for length, rate, momentum in itertools.product((1e-3, 1.0, 30.0), (0.1, 2.0), (0.0, 0.9)):
        yield case(60, 20, length=length, rate=rate, momentum=momentum, l2=1e-3)
    yield case(50, 20, layout="strided")
    yield case(50, 20, steps=1)
    yield case(2500, 40, 3)  # more blocks than chunks
    yield case(900, 600, 5)


def logistic_limits(arguments: Arguments, expected: Any) -> Any:
    """The error allowed to each value of weight, bias and losses, one after another."""
    classes, channels = arguments["targets"].shape[1], arguments["cells"].shape[1]
    weight, bias, losses = np.split(expected, [classes * channels, classes * (channels + 1)])
    rows = np.abs(weight.reshape(classes, channels))
    # z is what both serve: an error of one is as large as that of the other.
    length = float(np.linalg.norm(arguments["cells"], axis=1).max())
    size = PARAMETERS * (np.abs(bias) + length * np.linalg.norm(rows, axis=1) + 1e-3)
    by_class = losses.reshape(-1, classes)
    first = np.broadcast_to(LOSSES * by_class[:1] * len(by_class), by_class.shape)
    weights = np.repeat(size / max(length, 1e-3), channels)
    return np.concatenate([weights, size, first.reshape(-1)])
