"""How a kernel's result is compared with the reference: NaN never passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsseg_sdk.ops import reference
from tests.ops.fusion_cases import fusion_limits, pool_limits
from tests.ops.mlp_cases import SCORES, fit_limits
from tests.ops.neighbour_cases import NEAREST_BF16, logistic_limits

# One float32 rounding is 6e-8; blocked sums of a few thousand terms stay within a few of them.
MAX_ERROR = 1e-5  # largest error, relative to the largest reference value
NMSE = 1e-10
SMALLEST = 1.5e-45  # float32 has nothing between 0 and this: a result that small is rounded to it
COSINE_ROUNDING = 2e-7  # of a float32 cosine


def close(result: Any, expected: Any, scale: float | None = None) -> str | None:
    """None if equal within the tolerances, else what differs where."""
    if result.shape != expected.shape:
        return f"shape {result.shape}, expected {expected.shape}"
    if not np.isfinite(expected).all():
        return "the reference is not finite: a case must not do that"
    wide = np.asarray(result, np.float64)
    error = np.maximum(np.abs(wide - expected) - SMALLEST, 0.0)  # NaN stays NaN
    top = float(np.abs(expected).max()) if scale is None else scale
    # Not (error > limit): a NaN must fail.
    if not (error.max() <= MAX_ERROR * top):
        worst = np.unravel_index(
            int(np.nanargmax(np.where(np.isnan(error), np.inf, error))), error.shape
        )
        where = tuple(map(int, worst))
        return f"at {where}: {wide[worst]!r}, expected {expected[worst]!r}, scale {top}"
    # Divided by the scale first: squares of 1e38 and 1e-41 are then harmless.
    unit = top if top > 0.0 else 1.0
    energy = float(((expected / unit) ** 2).sum())
    if not (float(((error / unit) ** 2).sum()) <= NMSE * energy):
        return f"NMSE {float(((error / unit) ** 2).sum()) / energy if energy else np.inf}"
    return None


def stats_limits(expected: Any) -> Any:
    """The error allowed to each value of distance_stats: each column has its own scale.

    Ends are float32 cosines. Moments of distances with deviation s carry their rounding divided by
    s, so a few pixels at nearly the same distance have loose moments, in any arithmetic.
    """
    deviation = np.sqrt(expected[:, 2])
    rounding = 20 * COSINE_ROUNDING / np.where(deviation > 0, deviation, 1.0)
    limits = np.empty_like(expected)
    limits[:, :2] = limits[:, 5] = 5 * COSINE_ROUNDING
    limits[:, 2] = (MAX_ERROR + rounding) * expected[:, 2]
    for column in (3, 4):
        limits[:, column] = (MAX_ERROR + rounding) * np.maximum(np.abs(expected[:, column]), 1.0)
    return limits


def close_stats(result: Any, expected: Any) -> str | None:
    """distance_stats."""
    if result.shape != expected.shape or not np.isfinite(result).all():
        return f"{result!r}"
    limits = stats_limits(expected)
    error = np.abs(result.astype(np.float64) - expected)
    if not (error <= limits).all():
        return f"{result!r}\nexpected {expected!r}\nerror / limit {error / limits!r}"
    return None


def close_to(result: Any, expected: Any, limits: Any) -> str | None:
    """None if each value is within its limit."""
    if result.shape != expected.shape:
        return f"shape {result.shape}, expected {expected.shape}"
    if np.isnan(expected).any():
        return "the reference is not a number: a case must not do that"
    same = result == expected  # infinities, too
    error = np.abs(np.where(same, 0.0, result) - np.where(same, 0.0, expected))
    if not (error <= limits).all():
        share = np.nan_to_num(error / np.maximum(limits, 1e-300), nan=np.inf)
        worst = np.unravel_index(int(share.argmax()), error.shape)
        where = tuple(map(int, worst))
        values = f"{result[worst]!r}, expected {expected[worst]!r}"
        return f"at {where}: {values}, {share[worst]:.3g} limits"
    return None


def label_limit(arguments: dict[str, Any]) -> float:
    """The largest margin between two classes that counts as a tie of upsample_argmax."""
    return 1e-6 * float(np.abs(arguments["logits"].astype(np.float64)).max())


def label_values(arguments: dict[str, Any]) -> Any:
    """``[B, classes, H, W]``: how high each label of upsample_argmax is at each pixel."""
    labels = arguments.get("labels")
    values = reference.upsample(**{n: a for n, a in arguments.items() if n != "labels"})
    if labels is None:
        return values
    classes = np.arange(int(labels.max()) + 1)
    own = [np.where((labels == k)[:, None, None], values, -np.inf).max(axis=1) for k in classes]
    return np.stack(own, axis=1)


def close_labels(result: Any, arguments: dict[str, Any]) -> str | None:
    """upsample_argmax: a label may differ only where two classes are equal but for rounding."""
    values = label_values(arguments)
    if result.dtype != np.uint8 or result.shape != (values.shape[0], *values.shape[2:]):
        return f"{result.dtype} {result.shape}"
    if int(result.max()) >= values.shape[1]:
        return f"label {int(result.max())} of {values.shape[1]} classes"
    chosen = np.take_along_axis(values, result[:, None].astype(np.int64), axis=1)[:, 0]
    margin = values.max(axis=1) - chosen
    limit = label_limit(arguments)
    if not (margin <= limit).all():
        bad = np.argwhere(~(margin <= limit))
        return f"{len(bad)} labels, the first at {bad[0].tolist()}, margin {margin.max()}"
    return None


def difference(op: str, result: Any, arguments: dict[str, Any], expected: Any) -> str | None:
    """None if ``result`` is what the op must give for ``arguments``."""
    if op == "upsample_argmax":
        return close_labels(result, arguments)
    if op == "distance_stats":
        return close_stats(result, expected)
    if op == "soft_pool":
        return close_to(result, expected, pool_limits(arguments))
    if op == "prototype_fusion":
        return close_to(result, expected, fusion_limits(arguments, expected))
    if op == "online_mlp_fit":
        return close_to(result, expected, fit_limits(arguments, expected))
    if op == "logistic_fit":
        return close_to(result, expected, logistic_limits(arguments, expected))
    if op == "nearest" and arguments["precision"] == "bf16":
        return close_to(result, expected, np.full(expected.shape, NEAREST_BF16))
    if op == "online_mlp_scores" and arguments["precision"] == "bf16":
        limit = SCORES["bf16"] * float(np.abs(expected).max())
        return close_to(result, expected, np.full(expected.shape, limit))
    return close(result, expected, scale_of(op, arguments))


def scale_of(op: str, arguments: dict[str, Any]) -> float | None:
    """What errors are relative to; None: the largest value of the reference."""
    if op == "nearest":
        return 1.0
    if op != "cosine_match":
        return None
    scale = abs(float(arguments["scale"]))
    # Rounding of a cosine is relative to 1, not to the largest cosine of the case; an error e of a
    # score is a relative error e of its exponential.
    return max(1.0, scale / 20) if arguments["softmax"] else scale
