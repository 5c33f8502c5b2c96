"""Rows of benchmarks.kernels: what the simple baselines of few-shot segmentation need."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as tf

from benchmarks import baselines
from benchmarks.kernel_rows import CHANNELS, GRID, SCREEN, Call, Inputs, Row
from fsseg_sdk import ops
from fsseg_sdk.ops import reference

CELLS = GRID[0] * GRID[1]
STEPS = 50


def nearest(given: Inputs, precision: str) -> Row:
    """3600 cells by 3600 rows. Torch's factors: unit and of the right type already, or not yet."""
    rows = np.random.default_rng(2).standard_normal((CELLS, CHANNELS), dtype=np.float32)
    group = np.zeros(CELLS, np.int64)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    cells = given.t.flatten(2)[0]
    unit_rows = tf.normalize(torch.from_numpy(rows), dim=1).to(dtype)
    unit_cells = tf.normalize(cells, dim=0).to(dtype)

    def best(left: torch.Tensor, right: torch.Tensor) -> Any:
        return (left @ right).amax(0).float().reshape(1, 1, *GRID).numpy()

    def whole() -> Any:
        return best(
            tf.normalize(torch.from_numpy(rows), dim=1).to(dtype),
            tf.normalize(cells, dim=0).to(dtype),
        )

    ready = "torch matmul, amax of ready factors"
    published: dict[str, Call] = {ready: partial(best, unit_rows, unit_cells)}
    published["torch normalize, matmul, amax"] = whole
    arguments: Any = (given.features, rows, group, 1)
    return Row(
        f"nearest {CELLS} cells x {CELLS} rows, {precision}",
        partial(ops.nearest, *arguments, precision=precision, threads=1),
        partial(reference.nearest, *arguments, precision=precision),
        published,
        {ready: 1.2 if precision == "fp32" else 1.3},
        tolerance=1e-5 if precision == "fp32" else 5e-3,
    )


def many_classifiers(given: Inputs, count: int) -> Row:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((count, CHANNELS), dtype=np.float32)
    b = rng.standard_normal(count, dtype=np.float32)
    published = partial(baselines.convolution, given.t, torch.from_numpy(w), torch.from_numpy(b))
    return Row(
        f"linear_match {count} classifiers",
        partial(ops.linear_match, given.features, w, b, threads=1),
        partial(reference.linear_match, given.features, w, b),
        {"torch conv2d 1x1": published},
    )


def regressions(given: Inputs) -> Row:
    """Two classes on the cells of one map."""
    x = given.t.flatten(2)[0].T
    x = (4 * tf.normalize(x, dim=1)).contiguous()
    rng = np.random.default_rng(4)
    t = torch.from_numpy((rng.random((CELLS, 2)) < 0.2).astype(np.float32))
    w = torch.full((CELLS, 2), 1 / CELLS)
    arguments: Any = (x.numpy(), t.numpy(), w.numpy())
    return Row(
        f"logistic_fit 2 classes, {STEPS} steps",
        lambda: ops.logistic_fit(*arguments, steps=STEPS, threads=1).weight,
        lambda: reference.logistic_fit(*arguments, steps=STEPS)[0],
        {"torch SGD": partial(_torch_regressions, x, t, w)},
        tolerance=1e-4,
    )


def _torch_regressions(x: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> Any:
    weight = torch.zeros(t.shape[1], x.shape[1], requires_grad=True)
    bias = torch.zeros(t.shape[1], requires_grad=True)
    rate = 4 / float((w[:, 0] * ((x * x).sum(1) + 1)).sum())
    sgd = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
    for _ in range(STEPS):
        z = tf.linear(x, weight, bias)
        loss = (w * tf.binary_cross_entropy_with_logits(z, t, reduction="none")).sum()
        weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
        sgd.step()
    return weight.detach().numpy()


def joined_labels(given: Inputs, shots: int) -> Row:
    """Each shot upsampled and cut at probability 0.5, then joined by OR."""
    logits = np.zeros((1, shots + 1, *GRID), np.float32)
    logits[:, 1:] = given.logits[:, :shots] - 1
    labels = np.ones(shots + 1, np.uint8)
    labels[0] = 0
    t = torch.from_numpy(logits[:, 1:])

    def published() -> Any:
        large = tf.interpolate(t, size=SCREEN, mode="bilinear", align_corners=False)
        return (large.sigmoid() > 0.5).any(dim=1).to(torch.uint8).numpy()

    return Row(
        f"upsample_argmax {shots} shots of a class to 1920x1080",
        partial(ops.upsample_argmax, logits, SCREEN, labels=labels, threads=1),
        partial(reference.upsample_argmax, logits, SCREEN, labels=labels),
        {"torch interpolate, sigmoid > 0.5, any": published},
    )


def neighbour_rows(given: Inputs) -> Iterator[Row]:
    for precision in ("fp32", "bf16"):
        yield nearest(given, precision)
    for count in (100, 1000):
        yield many_classifiers(given, count)
    yield regressions(given)
    yield joined_labels(given, 5)
