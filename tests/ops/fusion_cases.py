"""The case tables of soft_pool and prototype_fusion, and what errors these are allowed.

A cell counts for one class or for none: a rounding decides where two scores, or a distance and the
radius, are nearly equal. For soft_pool the limits leave room for such cells to go either way. In a
loop they would lead on to other prototypes: arguments of prototype_fusion are drawn until the
reference meets no such cell in any step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fsseg_sdk import ops
from fsseg_sdk.ops import fusion_reference, reference
from tests.ops.case import Arguments, Case
from tests.ops.inputs import KINDS, LAYOUTS, WEIGHTS, cell_weights, laid_out, values

SEVERAL = ("soft_pool", "prototype_fusion")  # arrays in their result
BORDER = 3e-6  # of a cosine
MAX_ERROR = 1e-5
THRESHOLD_ERROR = 1e-3  # higher moments of a few distances that hardly differ
SMALLEST = 1e-44
DRAWS = 60


def in_one(result: Any) -> Any:
    """The arrays of a result, one after another."""
    return np.concatenate([np.asarray(array).reshape(-1) for array in result])


def sizes(op: str, a: Arguments) -> list[tuple[int, ...]]:
    """The shapes of those arrays."""
    batch, channels = a["features"].shape[:2]
    if op == "soft_pool":
        classes = len(a["prototypes"]) - a["parts"]
        return [(batch, classes, channels), (batch, classes)]
    (classes, _), parts, steps = a["sums"].shape, len(a["background"]), a["steps"]
    rows = [(parts + classes, channels), (classes, channels), (classes,)]
    return [*rows, (steps, batch, classes), (steps, classes)]


def split(flat: Any, shapes: list[tuple[int, ...]]) -> list[Any]:
    """Views of in_one() in these shapes."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [
        part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)
    ]


def near_a_border(a: Arguments, rows: Any, parts: int, radius: Any) -> Any:
    """``[B, cells]``: cells that rounding may move; zero features have the same cosine, exactly."""
    similarity = reference.cosines(a["features"], rows)
    scores = fusion_reference.class_scores(similarity, parts)
    top = np.sort(scores, axis=1)
    near = top[:, -1] - top[:, -2] < BORDER
    if radius is not None:
        winner = scores.argmax(axis=1)
        limit = np.concatenate([[np.inf], radius])[winner]
        distance = 1.0 - np.take_along_axis(scores, winner[:, None], axis=1)[:, 0]
        near |= np.abs(distance - limit) < BORDER
    return near & (similarity != 0.0).any(axis=1)


def pool_limits(a: Arguments) -> Any:
    """The error allowed to each value of in_one() of soft_pool."""
    batch, channels = a["features"].shape[:2]
    near = near_a_border(a, a["prototypes"], a["parts"], a["radius"])
    cover = np.ones(near.shape) if a["weights"] is None else a["weights"].reshape(batch, -1)
    shape = (batch, *a["features"].shape[2:])
    plain = {**a, "radius": None}
    sure = (cover * ~near).astype(np.float32).reshape(shape)
    mass = reference.soft_pool(**{**a, "weights": sure})[1]
    # Either way: the cells near a border, which may count for any class.
    either = (cover * near).sum(axis=1)[:, None] * np.ones_like(mass)
    every = reference.soft_pool(**plain)[1]
    rounding = MAX_ERROR * max(1.0, a["scale"] / 20)
    top = np.abs(a["features"].astype(np.float64)).max(axis=(1, 2, 3))[:, None]
    share = np.minimum(either / np.maximum(mass, 1e-300), 1.0)
    vectors = (rounding + 2 * share) * top + SMALLEST
    masses = rounding * every.max() + either
    return in_one([np.repeat(vectors[:, :, None], channels, axis=2), masses + SMALLEST])


def fusion_limits(a: Arguments, expected: Any) -> Any:
    """The error allowed to each value of in_one() of prototype_fusion."""
    limits = []
    for place, array in enumerate(split(expected, sizes("prototype_fusion", a))):
        top = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        # thresholds; the others
        error = THRESHOLD_ERROR * max(top, 1.0) if place == 4 else 3 * MAX_ERROR * top + SMALLEST
        limits.append(np.full(array.shape, error))
    return in_one(limits)


def clear(a: Arguments) -> bool:
    """No cell of any step is near a border."""
    parts = len(a["background"])
    for step in range(a["steps"]):
        rows = reference.prototype_fusion(**{**a, "steps": step})[0]
        radius = None
        if a["distilled"]:
            figures = reference.distance_stats(a["features"], rows[parts:], a["weights"])
            radius = fusion_reference.gamma_and_radius(figures, a["threshold"], a["radius"])[1]
        if near_a_border(a, rows, parts, radius).any():
            return False
    return True


def soft_pool_arguments(
    rng: np.random.Generator,
    f: tuple[int, ...],
    classes: int = 1,
    *,
    kind: str = "normal",
    layout: str = "contiguous",
    weights: str | None = None,
    radius: float | None = 1.0,
    parts: int = 1,
    ways: str = "own",
    scale: float = 20.0,
) -> Arguments:
    prototypes = values(rng, (parts + classes, f[1]), "normal")
    return {
        "features": laid_out(values(rng, f, kind), layout),
        "prototypes": prototypes,
        "ways": ways_of(rng, f[0], classes, ways),
        "parts": parts,
        "scale": scale,
        "radius": None if radius is None else np.full(classes, radius, np.float32),
        "weights": cell_weights(rng, f, weights),
    }


def ways_of(rng: np.random.Generator, batch: int, classes: int, kind: str) -> Any:
    """int64 ``[B]``: a class each, -1 all of them, or some of both."""
    if kind == "all":
        return np.full(batch, -1, np.int64)
    return rng.integers(-1 if kind == "mixed" else 0, classes, batch)


def fusion_arguments(
    rng: np.random.Generator,
    f: tuple[int, ...],
    classes: int = 1,
    *,
    kind: str = "normal",
    layout: str = "contiguous",
    weights: str | None = None,
    parts: int = 1,
    ways: str = "own",
    net: int = 0,
    **options: Any,
) -> Arguments:
    usual = {"steps": 3, "scale": 20.0, "distilled": True, "radius": 1.0}
    for _ in range(DRAWS):
        network = [rng.standard_normal(shape) * 0.2 for shape in ((net, 5), (net,), (net,))]
        arrays = (array.astype(np.float32) for array in network)
        arguments = {
            "features": laid_out(values(rng, f, kind), layout),
            "ways": ways_of(rng, f[0], classes, ways),
            "background": values(rng, (parts, f[1]), "normal"),
            "sums": values(rng, (classes, f[1]), "normal"),
            "counts": rng.integers(1, 4, classes).astype(np.float32),
            "threshold": ops.ThresholdMlp(*arrays, 1.0) if net else None,
            "weights": cell_weights(rng, f, weights),
            **usual,
            **options,
        }
        if clear(arguments):
            return arguments
    raise ValueError(f"{f}: each of {DRAWS} draws has a cell that rounding may move")


def _named(op: str, make: Any, f: Any, classes: int = 1, **options: Any) -> Case:
    said = "".join(f"-{name}-{value}" for name, value in options.items())
    name = f"{'x'.join(map(str, f))}-N-{classes}{said}"
    return Case(op, name, lambda rng: make(rng, f, classes, **options))


def soft_pool() -> Iterator[Case]:
    def case(f: Any, classes: int = 1, **options: Any) -> Case:
        return _named("soft_pool", soft_pool_arguments, f, classes, **options)

    maps = [(1, 1), (1, 7), (5, 1), (7, 13), (16, 16), (28, 28), (33, 41), (60, 60)]
    for channels, size in itertools.product((1, 2, 16, 33, 192), maps):
        yield case((2, channels, *size))
    for classes, parts, ways in itertools.product((1, 2, 5, 13), (1, 3), ("own", "all", "mixed")):
        yield case((3, 35, 9, 11), classes, parts=parts, ways=ways)
    for kind, ways in itertools.product(KINDS, ("own", "all")):
        yield case((2, 20, 33, 41), 2, kind=kind, ways=ways)
    for weights, radius in itertools.product([None, *WEIGHTS], (None, 0.8, 0.0, -1.0)):
        yield case((2, 20, 9, 11), 2, weights=weights, radius=radius)
    yield case((2, 20, 9, 11), 2, kind="tiny", weights="tiny")  # whose products underflow
    for layout in LAYOUTS:
        yield case((3, 20, 9, 11), 2, layout=layout, ways="mixed")
    for scale in (0.0, 1.0, 1000.0, 1e30):
        yield case((1, 20, 9, 11), 3, scale=scale, ways="all")
    yield case((1, 100, 64, 64), 2, ways="all")  # planes that share sets of the cache
    yield case((1, 1500, 13, 15), 2, ways="all")
    yield case((1, 1024, 60, 60), 2, kind="relu", ways="all")


def prototype_fusion() -> Iterator[Case]:
    def case(f: Any, classes: int = 1, **options: Any) -> Case:
        return _named("prototype_fusion", fusion_arguments, f, classes, **options)

    maps = [(1, 1), (1, 7), (5, 1), (7, 13), (16, 16), (33, 41)]
    for channels, size in itertools.product((2, 16, 33), maps):
        yield case((2, channels, *size))
    for classes, parts, ways in itertools.product((1, 2, 5), (1, 3), ("own", "all", "mixed")):
        yield case((3, 20, 7, 9), classes, parts=parts, ways=ways)
    for steps, distilled, net in itertools.product((0, 1, 5), (True, False), (0, 1, 20)):
        yield case((3, 20, 7, 9), 2, steps=steps, distilled=distilled, net=net)
    for kind in KINDS:
        yield case((1, 20, 7, 9), kind=kind)
    for weights in WEIGHTS:
        yield case((2, 20, 7, 9), 2, weights=weights, net=20)
    for layout in LAYOUTS:
        yield case((2, 20, 7, 9), layout=layout)
    for radius in (-1.0, 0.0, 0.9, 1e30):
        yield case((2, 20, 7, 9), radius=radius)
    yield case((0, 20, 7, 9), 2)
    yield case((0, 20, 7, 9), 2, net=20)
    yield case((1, 300, 16, 32), 2, ways="all")  # planes that share sets of the cache
