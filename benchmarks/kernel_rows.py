"""What benchmarks.kernels measures: each op at the sizes the field uses, its baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import baselines
from benchmarks.timing import aligned
from fsseg_sdk import ops
from fsseg_sdk.ops import reference

Call = Callable[[], Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS, GRID, IMAGE, SCREEN = 1024, (60, 60), (473, 473), (1080, 1920)


@dataclass(frozen=True)
class Row:
    """One op at one size."""

    name: str
    op: Call  # through fsseg_sdk.ops
    reference: Call
    published: dict[str, Call]  # name -> baseline; results must agree with the reference
    targets: dict[str, float] = field(default_factory=dict)  # baseline -> ratio to be reached
    tolerance: float = 1e-5
    streams: Callable[[Any], Any] | None = None  # the op on other features, for bandwidth
    target: float | None = None  # share of the bandwidth of reading from memory to be reached
    features: Any = None  # whose speed depends on what they show: instead of those of Inputs


class Inputs:
    """Random arrays of the sizes above, the same each time, and torch views of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.features = aligned(rng.standard_normal((1, CHANNELS, *GRID), dtype=np.float32))
        y, x = np.mgrid[: IMAGE[0], : IMAGE[1]]
        inside = ((y - 200) / 90) ** 2 + ((x - 260) / 120) ** 2 < 1
        self.mask = inside.astype(np.uint8)[None]
        self.screen_mask = rng.integers(0, 2, (1, *SCREEN)).astype(np.uint8)
        self.maps = aligned(rng.random((1, 2, *GRID), dtype=np.float32))
        self.vectors = rng.standard_normal((6, CHANNELS), dtype=np.float32)
        self.bias = rng.standard_normal(6, dtype=np.float32)
        self.logits = rng.standard_normal((1, 6, *GRID), dtype=np.float32)
        self.picture = rng.integers(0, 256, (*SCREEN, 3)).astype(np.uint8)
        self.t = torch.from_numpy(self.features)


def masked_pooling(given: Inputs) -> Row:
    def pool() -> Any:
        weights = ops.grid_weights(given.mask, GRID, threads=1)
        return ops.weighted_pool(given.features, weights[:, None], threads=1)[:, 0]

    def expected() -> Any:
        weights: Any = reference.grid_weights(given.mask, GRID)
        return reference.weighted_pool(given.features, weights[:, None], 1e-5)[:, 0]

    mask, name = torch.from_numpy(given.mask.astype(np.float32)), "torch upsample, multiply, sum"
    published: dict[str, Call] = {name: partial(baselines.upsample_then_pool, given.t, mask)}
    return Row("masked pooling 473x473, with grid_weights", pool, expected, published, {name: 1500})


def weights_of(mask: Any, grid: tuple[int, int], name: str) -> Row:
    backward = partial(baselines.upsampling_backward, torch.from_numpy(mask.astype(np.float32)))
    return Row(
        f"grid_weights {name}",
        partial(ops.grid_weights, mask, grid, threads=1),
        partial(reference.grid_weights, mask, grid),
        {"torch interpolate backward": partial(backward, grid)},
    )


def pooling(given: Inputs, count: int) -> Row:
    maps = given.maps[:, :count]
    return Row(
        f"weighted_pool {count} map{'s' if count > 1 else ''}",
        partial(ops.weighted_pool, given.features, maps, threads=1),
        partial(reference.weighted_pool, given.features, maps, 1e-5),
        {
            "torch multiply, sum": partial(
                baselines.multiply_and_sum, given.t, torch.from_numpy(maps)
            )
        },
        streams=lambda f: ops.weighted_pool(f, maps, threads=1),
    )


def cosine(given: Inputs, count: int) -> Row:
    p = given.vectors[:count]
    published = partial(baselines.cosine_similarity, given.t, torch.from_numpy(p))
    return Row(
        f"cosine_match {count} prototypes",
        partial(ops.cosine_match, given.features, p, threads=1),
        partial(reference.cosine_match, given.features, p),
        {"torch cosine_similarity": published},
        streams=lambda f: ops.cosine_match(f, p, threads=1),
    )


def linear(given: Inputs, count: int) -> Row:
    w, b = given.vectors[:count], given.bias[:count]
    published = partial(baselines.convolution, given.t, torch.from_numpy(w), torch.from_numpy(b))
    return Row(
        f"linear_match {count} classifiers",
        partial(ops.linear_match, given.features, w, b, threads=1),
        partial(reference.linear_match, given.features, w, b),
        {"torch conv2d 1x1": published},
        streams=lambda f: ops.linear_match(f, w, b, threads=1),
    )


def distances(given: Inputs) -> Row:
    p = given.vectors[:2]
    published = partial(baselines.statistics, given.t, torch.from_numpy(p))
    return Row(
        "distance_stats 2 prototypes",
        lambda: ops.distance_stats(given.features, p, threads=1)[:, :5],
        lambda: reference.distance_stats(given.features, p)[:, :5],
        {"torch cosine_similarity, moments": published},
        tolerance=1e-4,
        streams=lambda f: ops.distance_stats(f, p, threads=1),
    )


def fusion_inputs() -> tuple[Any, Any, Any]:
    """Features that show an object on a fifth of the map, prototypes of background and object.

    What does not count is not read again: speed depends on how much of a map is of the class.
    """
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    inside = ((y - 26) / 13) ** 2 + ((x - 33) / 16) ** 2 < 1
    rows = rng.standard_normal((2, CHANNELS), dtype=np.float32)
    noise = rng.standard_normal((1, CHANNELS, *GRID), dtype=np.float32)
    shown = np.where(inside, rows[1][:, None, None], rows[0][:, None, None])
    return aligned(noise + shown), rows, np.zeros(1, np.int64)


def soft_pooling(given: Inputs, everywhere: bool) -> Row:
    """everywhere: on noise, where nearly every line of memory holds a cell that counts."""
    features, p, ways = fusion_inputs()
    features = given.features if everywhere else features
    published = partial(baselines.soft_pooling, torch.from_numpy(features), torch.from_numpy(p))
    return Row(
        f"soft_pool of {'noise' if everywhere else 'an object'}",
        lambda: ops.soft_pool(features, p, ways, threads=1).vectors,
        lambda: reference.soft_pool(features, p, ways)[0],
        {"torch cosine_similarity, softmax, multiply, sum": published},
        tolerance=1e-4,
        streams=lambda f: ops.soft_pool(f, p, ways, threads=1),
        target=0.7,
        features=features,
    )


def fusing(steps: int) -> Row:
    features, p, ways = fusion_inputs()
    counts = np.ones(1, np.float32)
    arguments = (features, ways, p[:1], p[1:], counts)
    published = partial(
        baselines.fusion_loop, torch.from_numpy(features), torch.from_numpy(p), steps
    )
    return Row(
        f"prototype_fusion {steps} steps",
        lambda: ops.prototype_fusion(*arguments, steps=steps, threads=1).prototypes,
        lambda: reference.prototype_fusion(*arguments, steps=steps)[0],
        {"torch, step by step": published},
        tolerance=1e-3,
        features=features,
    )


def scores(given: Inputs, precision: str) -> Row:
    mlp = ops.online_mlp_start(CHANNELS, 300, 2)
    published = partial(baselines.two_products, given.t, *(torch.from_numpy(a) for a in mlp))
    arguments: dict[str, Any] = {"precision": precision}
    return Row(
        f"online_mlp_scores 300 hidden units, {precision}",
        partial(ops.online_mlp_scores, given.features, mlp, **arguments, threads=1),
        partial(reference.online_mlp_scores, given.features, mlp, **arguments),
        {"torch two products": published},
        tolerance=1e-5 if precision == "fp32" else 2e-3,
    )


def labels(given: Inputs, count: int) -> Row:
    logits = given.logits[:, :count].copy()
    t, plain, sign = (
        torch.from_numpy(logits),
        "torch interpolate, argmax(1)",
        "torch interpolate, sign",
    )
    published: dict[str, Call] = {plain: partial(baselines.interpolate_argmax, t, SCREEN)}
    targets = {plain: 500.0 if count == 2 else 100.0}
    if count == 2:
        published[sign] = partial(baselines.interpolate_sign, t, SCREEN)
        targets[sign] = 20.0
    return Row(
        f"upsample_argmax {count} classes to 1920x1080",
        partial(ops.upsample_argmax, logits, SCREEN, threads=1),
        partial(reference.upsample_argmax, logits, SCREEN),
        published,
        targets,
    )


def resizing(given: Inputs) -> Row:
    arguments = (given.picture, IMAGE, IMAGE, MEAN, STD)
    name = "Pillow BILINEAR, numpy"
    return Row(
        "preprocess 1920x1080 to 473x473",
        partial(ops.preprocess, *arguments, threads=1),
        partial(reference.preprocess, *arguments),
        {name: partial(baselines.pillow_numpy, given.picture, IMAGE, MEAN, STD)},
        {name: 8.0},
    )


def all_rows(given: Inputs) -> Iterator[Row]:
    """In the order of a query."""
    yield masked_pooling(given)
    yield weights_of(given.mask, GRID, "473x473 to 60x60")
    yield weights_of(given.screen_mask, (28, 28), "1920x1080 to 28x28")
    for count in (1, 2):
        yield pooling(given, count)
    for count in (2, 6):
        yield cosine(given, count)
        yield linear(given, count)
    yield distances(given)
    for everywhere in (False, True):
        yield soft_pooling(given, everywhere)
    yield fusing(3)
    for precision in ("fp32", "bf16"):
        yield scores(given, precision)
    for count in (2, 6):
        yield labels(given, count)
    yield resizing(given)
