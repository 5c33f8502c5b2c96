"""What the ops on a device are measured against: baselines.py's forms, on tensors of any device.

In float64 the same forms are the references. ``t``: the tensors by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as tf

Tensor = torch.Tensor
Tensors = Mapping[str, Tensor]


def upsample_then_pool(t: Tensors) -> Tensor:
    """PANet, PAIA and others: features to the mask's size, times the mask, over its area."""
    f, masks = t["features"], t["masks"].to(t["features"].dtype)
    large = tf.interpolate(f, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    area = masks.flatten(1).sum(dim=1, dtype=_wide(f))[:, None] + 1e-5
    return (large * masks[:, None]).flatten(2).sum(dim=2, dtype=_wide(f)) / area


def upsampling_backward(t: Tensors, grid: tuple[int, int]) -> Tensor:
    """The transpose of interpolate, as torch has it: its gradient."""
    masks = t["masks"]
    masks = masks if masks.is_floating_point() else masks.float()
    zero = masks.new_zeros(len(masks), 1, *grid).requires_grad_()
    large = tf.interpolate(zero, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return torch.autograd.grad(large, zero, masks[:, None])[0][:, 0]


def multiply_and_sum(t: Tensors) -> Tensor:
    """Masked pooling at the features' size: one product and one sum for each map."""
    f = t["features"]
    maps = [
        (f * w.to(f.dtype)).sum(dim=(2, 3)) / (w.sum(dim=(2, 3)) + 1e-5)
        for w in torch.split(t["weights"], 1, dim=1)
    ]
    return torch.stack(maps, dim=1)


def cosine_similarity(t: Tensors) -> Tensor:
    """PANet's calDist: cosine_similarity with one prototype after another."""
    f = t["features"]
    rows = t["prototypes"].to(f.dtype)
    maps = [tf.cosine_similarity(f, p[None, :, None, None], dim=1) for p in rows]
    return torch.stack(maps, dim=1) * 20.0


def convolution(t: Tensors) -> Tensor:
    """A 1x1 convolution."""
    f = t["features"]
    return tf.conv2d(f, t["rows"][:, :, None, None].to(f.dtype), t["bias"].to(f.dtype))


def statistics(t: Tensors) -> Tensor:
    """Distances, then one reduction for each figure."""
    rows = []
    for d in (1 - cosine_similarity(t) / 20.0).to(_wide(t["features"])).transpose(0, 1):
        centred = d - d.mean()
        variance = (centred**2).mean()
        skewness = (centred**3).mean() / variance**1.5
        kurtosis = (centred**4).mean() / variance**2
        rows.append(torch.stack([d.min(), d.max(), variance, skewness, kurtosis]))
    return torch.stack(rows)


def soft_pooling(t: Tensors) -> Tensor:
    """PAIA eq. 2: probabilities and pseudo mask of the map, then a weighted mean."""
    return _weighted_mean(t["features"], t["prototypes"], None)[:, None]


def fusion_loop(t: Tensors, steps: int) -> Tensor:
    """PAIA eq. 5, one support picture, radius: the mean distance."""
    f, rows = t["features"], t["prototypes"].to(_wide(t["features"]))
    prototypes = rows
    for _ in range(steps):
        row = prototypes[1].to(f.dtype)[None, :, None, None]
        distances = 1 - tf.cosine_similarity(f, row, dim=1)
        mean = _weighted_mean(f, prototypes, distances < distances.mean()).sum(0, keepdim=True)
        prototypes = torch.cat([rows[:1], (rows[1:] + mean) / (1 + len(f))])
    return prototypes


def _weighted_mean(f: Tensor, rows: Tensor, near: Tensor | None) -> Tensor:
    scores = cosine_similarity({"features": f, "prototypes": rows})
    weights = scores.softmax(dim=1)[:, 1] * (scores.argmax(dim=1) == 1)
    if near is not None:
        weights = weights * near
    total = (f * weights[:, None]).flatten(2).sum(dim=2, dtype=_wide(f))
    return total / weights.flatten(1).sum(dim=1, dtype=_wide(f))[:, None]


def two_products(t: Tensors) -> Tensor:
    """Both layers of a small classifier, the hidden one in memory as a whole."""
    f = t["features"]
    w1, b1, w2, b2 = (t[name].to(f.dtype) for name in ("w1", "b1", "w2", "b2"))
    hidden = torch.relu(w1 @ f.flatten(2) + b1[:, None])
    return (w2 @ hidden + b2[:, None]).reshape(len(f), -1, *f.shape[2:])


def nearest(t: Tensors) -> Tensor:
    """normalize, matmul, amax: all cosines in memory."""
    f = t["features"]
    rows = tf.normalize(t["rows"], dim=1).to(f.dtype)
    cosines = rows @ tf.normalize(f.flatten(2), dim=1)
    return cosines.amax(1).reshape(len(f), 1, *f.shape[2:])


def regressions(t: Tensors, steps: int) -> Tensor:
    """Weighted logistic regressions by SGD with momentum, gradients written out."""
    x, targets, w = (t[name] for name in ("cells", "targets", "weights"))
    weight, bias = x.new_zeros(targets.shape[1], x.shape[1]), x.new_zeros(targets.shape[1])
    step, step_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    rate = 4 / (w * ((x * x).sum(1, keepdim=True) + 1)).sum(0)
    for _ in range(steps):
        delta = w * (torch.sigmoid(tf.linear(x, weight, bias)) - targets)
        step, step_bias = 0.9 * step + delta.T @ x, 0.9 * step_bias + delta.sum(0)
        weight, bias = weight - rate[:, None] * step, bias - rate * step_bias
    return weight


def interpolate_argmax(t: Tensors, size: tuple[int, int]) -> Tensor:
    """Logits to the picture's size, then argmax over the classes."""
    large = tf.interpolate(t["logits"], size=size, mode="bilinear", align_corners=False)
    return large.argmax(1).to(torch.uint8)


def resize(t: Tensors, size: tuple[int, int]) -> Tensor:
    """torch's antialiased bilinear interpolation of the picture in floats, then normalised."""
    image = t["image"].to(t["mean"].dtype).permute(2, 0, 1)[None] / 255
    form = partial(tf.interpolate, mode="bilinear", align_corners=False, antialias=True)
    return (form(image, size=size) - t["mean"]) / t["std"]


def _wide(f: Tensor) -> torch.dtype:
    return f.dtype if f.dtype == torch.float64 else torch.float32
