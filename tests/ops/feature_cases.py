"""The case tables of the ops that read feature maps at their own size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.ops.case import Arguments, Case
from tests.ops.inputs import KINDS, LAYOUTS, WEIGHTS, cell_weights, laid_out, mask_of, values

# Most are no multiple of any vector: one pixel, one row, one column, odd, a tile and more.
MAPS = [(1, 1), (1, 7), (5, 1), (3, 5), (7, 13), (16, 16), (28, 28), (33, 41), (60, 60)]
CHANNELS = [1, 2, 15, 16, 17, 33, 192]


def weighted_pool() -> Iterator[Case]:
    def case(
        f: Any, maps: int, kind: str = "normal", layout: str = "contiguous", weights: str = "float"
    ) -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            masks = mask_of(rng, (f[0] * maps, *f[2:]), weights).astype(np.float32)
            w = laid_out(masks.reshape(f[0], maps, *f[2:]), layout)
            return {"features": laid_out(values(rng, f, kind), layout), "weights": w, "eps": 1e-5}

        name = f"{'x'.join(map(str, f))}-maps-{maps}-{kind}-{layout}-{weights}"
        return Case("weighted_pool", name, make)

    for channels, size in itertools.product(CHANNELS, MAPS):
        yield case((2, channels, *size), 2)
    for maps in (1, 3, 4, 5, 11):
        yield case((2, 19, 9, 11), maps)
    for kind in KINDS:
        yield case((2, 20, 9, 11), 3, kind)
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 3, layout=layout)
    for weights in ("empty", "full", "pixel"):
        yield case((2, 17, 7, 9), 2, weights=weights)
    yield case((1, 9, 130, 131), 2, "offset")
    yield case((1, 1024, 60, 60), 2, "relu")


def _vectors(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    """Prototypes: rows of a kind, the last one zero where there are three or more."""
    rows = values(rng, shape, "normal" if kind in ("mixed", "denormal") else kind)
    if shape[-2] >= 3:
        rows[..., -1, :] = 0
    return rows


def cosine_match() -> Iterator[Case]:
    def case(
        f: Any,
        count: int,
        kind: str = "normal",
        layout: str = "contiguous",
        own: bool = False,
        softmax: bool = False,
        scale: float = 20.0,
        rows: str = "normal",
    ) -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            shape = (f[0], count, f[1]) if own else (count, f[1])
            return {
                "features": laid_out(values(rng, f, kind), layout),
                "prototypes": _vectors(rng, shape, rows),
                "scale": scale,
                "softmax": softmax,
            }

        name = f"{'x'.join(map(str, f))}-P-{count}-{kind}-{layout}-own-{own}-softmax-{softmax}"
        return Case("cosine_match", f"{name}-scale-{scale}-{rows}", make)

    for channels, size in itertools.product(CHANNELS, MAPS):
        yield case((2, channels, *size), 2)
    for count, own, softmax in itertools.product(
        (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 21), (False, True), (False, True)
    ):
        yield case((2, 35, 9, 11), count, own=own, softmax=softmax)
    # more channels than a run of sums takes, and planes 2,048 bytes apart, which go another way
    for size, count in itertools.product(((9, 11), (16, 32), (64, 64)), (2, 6, 7, 13)):
        yield case((1, 100, *size), count)
    for kind, softmax in itertools.product(KINDS, (False, True)):
        yield case((2, 20, 9, 11), 3, kind, softmax=softmax)
    for rows in ("huge", "tiny", "limit", "zero", "offset"):
        yield case((1, 20, 9, 11), 3, rows=rows)
        yield case((1, 20, 9, 11), 3, "mixed", rows=rows)
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 3, layout=layout, own=True)
    for scale in (1.0, -3.0, 0.0, 1000.0):
        yield case((1, 20, 9, 11), 3, scale=scale, softmax=True)
    yield case((1, 3, 70, 71), 2)
    for count in (2, 6):
        yield case((1, 1024, 60, 60), count, "relu")


def linear_match() -> Iterator[Case]:
    def case(f: Any, count: int, kind: str = "normal", layout: str = "contiguous") -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            weights = values(rng, (count, f[1]), "normal")
            if kind == "limit":
                weights *= np.float32(0.01)  # products overflow in float32 sums only on the way
            return {
                "features": laid_out(values(rng, f, kind), layout),
                "weights": weights,
                "bias": values(rng, (count,), "normal"),
            }

        return Case("linear_match", f"{'x'.join(map(str, f))}-K-{count}-{kind}-{layout}", make)

    for channels, size in itertools.product(CHANNELS, MAPS):
        yield case((2, channels, *size), 2)
    for count in (1, 3, 4, 5, 6, 7, 13):
        yield case((2, 35, 9, 11), count)
    for size in ((9, 11), (16, 32)):
        yield case((1, 100, *size), 6)
    for kind in KINDS:
        yield case((2, 20, 9, 11), 3, kind)
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 3, layout=layout)
    yield case((1, 1024, 60, 60), 6, "relu")


def distance_stats() -> Iterator[Case]:
    def case(
        f: Any,
        count: int,
        kind: str = "normal",
        layout: str = "contiguous",
        weights: str | None = None,
    ) -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            if kind == "constant":
                pixel = rng.standard_normal((1, f[1], 1, 1)) * np.ones(f)
                features = (pixel * rng.uniform(0.1, 9.0, (f[0], 1, *f[2:]))).astype(np.float32)
            else:
                features = values(rng, f, kind)
            prototypes = _vectors(rng, (count, f[1]), "normal")
            covers = cell_weights(rng, f, weights)
            features = laid_out(features, layout)
            return {"features": features, "prototypes": prototypes, "weights": covers}

        name = f"{'x'.join(map(str, f))}-N-{count}-{kind}-{layout}"
        return Case("distance_stats", f"{name}-{weights}" if weights else name, make)

    for channels, size in itertools.product(CHANNELS, MAPS):
        yield case((2, channels, *size), 2)
    for count in (1, 3, 6, 7, 13):
        yield case((2, 35, 9, 11), count)
    for kind in [*KINDS, "constant"]:
        yield case((2, 20, 9, 11), 3, kind)
        yield case((2, 20, 9, 11), 3, kind, weights="few")
    for weights, size in itertools.product(WEIGHTS, [(1, 1), (1, 7), (33, 41), (60, 60)]):
        yield case((2, 17, *size), 2, weights=weights)
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 3, layout=layout)
    yield case((1, 1024, 60, 60), 2, "relu")
