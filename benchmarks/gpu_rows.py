"""What benchmarks.gpu measures: each op at the sizes of the CPU's benchmark, its baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_baselines as forms
from benchmarks.gpu_device import Call, Device
from benchmarks.kernel_rows import CHANNELS, GRID, IMAGE, MEAN, SCREEN, STD
from benchmarks.neighbour_rows import STEPS
from fsseg_sdk import _kernels, ops

Tensors = dict[str, torch.Tensor]
Form = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Size:
    batch: int = 1
    channels: int = CHANNELS
    grid: tuple[int, int] = GRID
    image: tuple[int, int] = IMAGE
    screen: tuple[int, int] = SCREEN
    hidden: int = 300
    rows: int = GRID[0] * GRID[1]
    steps: int = STEPS

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    def __str__(self) -> str:
        return "x".join(map(str, (self.batch, self.channels, *self.grid)))


FULL = Size()
BEYOND = Size(batch=16)  # 118 MB in fp16, 236 in fp32
TINY = Size(2, 24, (7, 9), (33, 41), (45, 70), 12, 20, 5)


@dataclass(frozen=True)
class Row:
    """One op at one size. bind: the op on arrays of the device, ready to be called in a graph.

    torch_forms: the first one, in float64, is the reference. flops: of its matrix products, at the
    rate of ``unit``; 0 where memory is the limit. targets: microseconds by dtype of the features.
    """

    name: str
    size: Size
    make: Callable[[Device, Size, torch.dtype, int], Tensors]
    bind: Callable[[Device, dict[str, Any], Size], Call]
    torch_forms: dict[str, Form]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16)
    tolerance: float = 1e-5
    flops: float = 0.0
    unit: str = ""
    targets: dict[str, float] = field(default_factory=dict)
    share: float | None = None  # of the copy bandwidth to be reached
    compiled: bool = True  # by torch.compile, too
    unread: tuple[str, ...] = ()  # tensors that the op does not read


POOLED = {"fp16": 6.0, "fp32": 8.0}  # at 60x60x1024, as a graph's node


def _features(device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    g, shape = device.generator(seed), (size.batch, size.channels, *size.grid)
    return {"features": torch.randn(shape, generator=g, device=device.kind).to(dtype)}


def _rows(count: int, name: str, device: Device, size: Size, dtype: Any, seed: int) -> Tensors:
    """Features, and ``count`` rows of them under this name."""
    g = device.generator(seed + 1000)
    rows = torch.randn(count, size.channels, generator=g, device=device.kind)
    bias = torch.randn(count, generator=g, device=device.kind)
    return _features(device, size, dtype, seed) | {name: rows, "bias": bias}


def _maps(count: int, device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    g, shape = device.generator(seed + 1000), (size.batch, count, *size.grid)
    weights = torch.rand(shape, generator=g, device=device.kind)
    return _features(device, size, dtype, seed) | {"weights": weights}


def _mask(
    height: int, width: int, device: Device, size: Size, dtype: torch.dtype, seed: int
) -> Tensors:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = ((y / height - 0.42) / 0.19) ** 2 + ((x / width - 0.55) / 0.25) ** 2 < 1
    masks = inside.to(torch.uint8)[None].repeat(size.batch, 1, 1).to(device.kind)
    return _features(device, size, dtype, seed) | {"masks": masks}


def _object(device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    """Features that show an object on a fifth of the map, prototypes of background and object."""
    g = device.generator(seed + 1000)
    rows = torch.randn(2, size.channels, generator=g, device=device.kind)
    y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size.grid), indexing="ij")
    inside = (((y - 0.43) / 0.22) ** 2 + ((x - 0.55) / 0.27) ** 2 < 1).to(device.kind)
    shown = torch.where(inside, rows[1][:, None, None], rows[0][:, None, None])
    noise = _features(device, size, torch.float32, seed)["features"]
    return {"features": (noise + shown).to(dtype), "prototypes": rows}


def _mlp(device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    mlp = ops.online_mlp_start(size.channels, size.hidden, 2)
    named = dict(zip(("w1", "b1", "w2", "b2"), mlp, strict=True))
    weights = {name: torch.from_numpy(array).to(device.kind) for name, array in named.items()}
    return _features(device, size, dtype, seed) | weights


def _cells(device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    g = device.generator(seed)
    cells = torch.randn(size.cells, size.channels, generator=g, device=device.kind)
    targets = torch.rand(size.cells, 2, generator=g, device=device.kind) < 0.2
    return {
        "cells": 4 * torch.nn.functional.normalize(cells, dim=1),
        "targets": targets.float(),
        "weights": torch.full((size.cells, 2), 1 / size.cells, device=device.kind),
    }


def _logits(count: int, device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    g, shape = device.generator(seed), (size.batch, count, *size.grid)
    return {"logits": torch.randn(shape, generator=g, device=device.kind)}


def _picture(device: Device, size: Size, dtype: torch.dtype, seed: int) -> Tensors:
    g = device.generator(seed)
    image = torch.randint(0, 256, (*size.screen, 3), generator=g, device=device.kind)
    given = {
        name: torch.tensor(values, device=device.kind)[None, :, None, None]
        for name, values in (("mean", MEAN), ("std", STD))
    }
    return {"image": image.to(torch.uint8), **given}


# ---- the ops on arrays of the device ----
def _pooled(device: Device, a: dict[str, Any], size: Size) -> Call:
    def pool() -> Any:
        weights: Any = ops.grid_weights(a["masks"], size.grid)
        shape = (size.batch, 1, *size.grid)
        steps = (size.cells, size.cells, size.grid[1], 1)
        return ops.weighted_pool(a["features"], weights._view(shape, steps))

    return pool


def _soft_pooled(device: Device, a: dict[str, Any], size: Size) -> Call:
    """By the binding: the door copies ``ways`` to the device in each call, a graph cannot."""
    f, p, vectors = a["features"], a["prototypes"], (size.batch, 1, size.channels)
    ways = device.numbers([0] * size.batch, -1, 1)

    def pool() -> Any:
        out, mass = device.context.empty(vectors), device.context.empty(vectors[:2])
        _kernels.cuda.soft_pool(f, p, ways, 1, 20.0, None, None, out, mass, 1)
        return out

    return pool


def _fused(device: Device, a: dict[str, Any], size: Size, steps: int = 3) -> Call:
    """By the binding, likewise."""
    f, rows, empty = a["features"], a["prototypes"], device.context.empty
    ways, channels = device.numbers([0] * size.batch, -1, 1), size.channels
    background = rows._view((1, channels), (channels, 1))
    sums, counts = rows._view((1, channels), (channels, 1), channels), device.context.array(_ONE)
    shapes = ((2, channels), (1, channels), (1,), (steps, size.batch, 1), (steps, 1))

    def fuse() -> Any:
        found = tuple(empty(shape) for shape in shapes)
        numbers = (20.0, True, None, 1.0, None)
        _kernels.cuda.prototype_fusion(f, ways, background, sums, counts, *numbers, found, 1)
        return found[0]

    return fuse


_ONE = np.ones(1, np.float32)


def _scored(precision: str, device: Device, a: dict[str, Any], size: Size) -> Call:
    mlp = ops.Mlp(a["w1"], a["b1"], a["w2"], a["b2"])
    return lambda: ops.online_mlp_scores(a["features"], mlp, precision=precision)


def _nearest(precision: str, device: Device, a: dict[str, Any], size: Size) -> Call:
    rows = ops.NearestRows(
        a["rows"].to_host(), np.zeros(size.rows, np.int64), 1, precision=precision
    )
    return lambda: rows.match(a["features"])


def _regressed(device: Device, a: dict[str, Any], size: Size) -> Call:
    given = (a["cells"], a["targets"], a["weights"])
    return lambda: ops.logistic_fit(*given, steps=size.steps).weight


# ---- rows ----
def memory_rows(size: Size) -> Iterator[Row]:
    """Ops that read the features once: their bytes are the limit."""
    for count in (1, 2):
        yield Row(
            f"weighted_pool {count} map{'s' if count > 1 else ''}",
            size,
            partial(_maps, count),
            lambda d, a, s: lambda: ops.weighted_pool(a["features"], a["weights"]),
            {"multiply, sum": forms.multiply_and_sum},
            targets=POOLED,
            compiled=count == 2,
        )
    for count in (2, 6):
        yield Row(
            f"cosine_match {count} prototypes",
            size,
            partial(_rows, count, "prototypes"),
            lambda d, a, s: lambda: ops.cosine_match(a["features"], a["prototypes"]),
            {"cosine_similarity": forms.cosine_similarity},
            targets=POOLED,
            compiled=count == 2,
            unread=("bias",),
        )
        yield Row(
            f"linear_match {count} classifiers",
            size,
            partial(_rows, count, "rows"),
            lambda d, a, s: lambda: ops.linear_match(a["features"], a["rows"], a["bias"]),
            {"conv2d 1x1": forms.convolution},
            targets=POOLED,
            compiled=count == 2,
        )
    yield Row(
        "distance_stats 2 prototypes",
        size,
        partial(_rows, 2, "prototypes"),
        lambda d, a, s: lambda: ops.distance_stats(a["features"], a["prototypes"]),
        {"cosine_similarity, moments": forms.statistics},
        tolerance=1e-4,
        targets=POOLED,
        unread=("bias",),
    )
    yield Row(
        "soft_pool, an object on a fifth of the map",
        size,
        _object,
        _soft_pooled,
        {"cosine_similarity, softmax, multiply, sum": forms.soft_pooling},
        tolerance=1e-4,
        targets=POOLED,
    )


def other_rows(size: Size) -> Iterator[Row]:
    """Of a query's other parts."""
    one = (torch.float32,)
    yield Row(
        "masked pooling, with grid_weights",
        size,
        partial(_mask, *size.image),
        _pooled,
        {"upsample, multiply, sum": forms.upsample_then_pool},
        compiled=False,
    )
    yield Row(
        "grid_weights",
        size,
        partial(_mask, *size.image),
        lambda d, a, s: lambda: ops.grid_weights(a["masks"], s.grid),
        {"interpolate backward": partial(forms.upsampling_backward, grid=size.grid)},
        one,
        compiled=False,
        unread=("features",),
    )
    yield Row(
        "prototype_fusion 3 steps",
        size,
        _object,
        _fused,
        {"step by step": partial(forms.fusion_loop, steps=3)},
        tolerance=1e-3,
        compiled=False,
    )
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 5e-3)):
        yield Row(
            f"online_mlp_scores {size.hidden} units, {precision}",
            size,
            _mlp,
            partial(_scored, precision),
            {"two products": forms.two_products},
            tolerance=tolerance,
            flops=2.0 * size.batch * size.cells * size.channels * size.hidden,
            unit=precision,
            compiled=precision == "fp32",
        )
        yield Row(
            f"nearest of {size.rows} rows, {precision}",
            size,
            partial(_rows, size.rows, "rows"),
            partial(_nearest, precision),
            {"normalize, matmul, amax": forms.nearest},
            tolerance=tolerance,
            flops=2.0 * size.batch * size.cells * size.channels * size.rows,
            unit=precision,
            compiled=precision == "fp32",
            unread=("bias",),
        )
    yield Row(
        "linear_match 100 classifiers",
        size,
        partial(_rows, 100, "rows"),
        lambda d, a, s: lambda: ops.linear_match(a["features"], a["rows"], a["bias"]),
        {"conv2d 1x1": forms.convolution},
        flops=200.0 * size.batch * size.cells * size.channels,
        unit="fp32",
        compiled=False,
    )
    yield Row(
        f"logistic_fit 2 classes, {size.steps} steps",
        size,
        _cells,
        _regressed,
        {"gradients, SGD": partial(forms.regressions, steps=size.steps)},
        one,
        tolerance=1e-4,
        compiled=False,
    )
    yield from picture_rows(size)


def picture_rows(size: Size) -> Iterator[Row]:
    """Whose features are no feature maps: labels and pictures. Their dtype is fixed."""
    one = (torch.float32,)
    for count in (2, 6):
        yield Row(
            f"upsample_argmax {count} classes to {size.screen[1]}x{size.screen[0]}",
            size,
            partial(_logits, count),
            lambda d, a, s: lambda: ops.upsample_argmax(a["logits"], s.screen),
            {"interpolate, argmax(1)": partial(forms.interpolate_argmax, size=size.screen)},
            one,
            tolerance=1e-4,
            compiled=count == 2,
        )
    yield Row(
        f"preprocess {size.screen[1]}x{size.screen[0]} to {size.image[1]}x{size.image[0]}",
        replace(size, batch=1),
        _picture,
        lambda d, a, s: lambda: ops.preprocess(a["image"], s.image, s.image, MEAN, STD),
        {"interpolate, antialias": partial(forms.resize, size=size.image)},
        one,
        unread=("mean", "std"),
    )


def all_rows(tiny: bool) -> Iterator[Row]:
    """First all at one size, then what reads memory alone at one beyond the caches."""
    size = TINY if tiny else FULL
    yield from memory_rows(size)
    yield from other_rows(size)
    beyond = replace(TINY, batch=3) if tiny else BEYOND
    for row in memory_rows(beyond):
        yield replace(row, targets={}, share=0.8, compiled=False)
