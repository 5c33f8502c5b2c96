"""The binding itself, writing into the test's buffer: sentinels show stray writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsseg_sdk import _kernels, ops
from fsseg_sdk.ops import checks, reference
from tests.ops.device import DeviceBuffer, brought, there
from tests.ops.fusion_cases import SEVERAL, in_one, sizes, split
from tests.ops.mlp_cases import fit_reference, flat

PAD = 131  # elements on each side; odd, so that the result is not aligned to vectors


def call(op: str, arguments: dict[str, Any], **more: Any) -> Any:
    """The op's result as one array."""
    result = brought(getattr(ops, op)(**arguments, **more))
    if op == "online_mlp_fit":
        return flat(result.mlp, result.losses)
    if op == "logistic_fit":
        return np.concatenate([part.reshape(-1) for part in result])
    return in_one(result) if op in SEVERAL else result


def expected_of(op: str, arguments: dict[str, Any]) -> Any:
    """The reference's result, likewise."""
    if op == "online_mlp_fit":
        return fit_reference(arguments)
    expected = getattr(reference, op)(**arguments)
    if op == "logistic_fit":
        return np.concatenate([part.reshape(-1) for part in expected])
    return in_one(expected) if op in SEVERAL else expected


def mapped(value: Any, change: Any) -> Any:
    """``value`` with all arrays in it, however deep, changed."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    if isinstance(value, (ops.Mlp, ops.ThresholdMlp)):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change) for item in value)
    return value


def binding_arguments(op: str, a: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments before ``out`` and ``threads``, as fsseg_sdk.ops passes them."""
    if op == "grid_weights":
        masks = checks.mask_stack(a["masks"], "masks")
        return (masks, *checks.extent_pair(a["extent"], a["grid"]))
    if op == "weighted_pool":
        features, weights = (checks.planes(a[name], name) for name in ("features", "weights"))
        return features, weights, a["eps"]
    if op == "cosine_match":
        features = checks.planes(a["features"], "features")
        return features, a["prototypes"], a["scale"], a["softmax"]
    if op == "linear_match":
        return checks.planes(a["features"], "features"), a["weights"], a["bias"]
    if op == "distance_stats":
        features = checks.planes(a["features"], "features")
        return features, a["prototypes"], contiguous(a["weights"])
    if op == "soft_pool":
        features = checks.planes(a["features"], "features")
        numbers = (a["parts"], a["scale"], a["radius"], contiguous(a["weights"]))
        return features, a["prototypes"], a["ways"], *numbers
    if op == "prototype_fusion":
        features = checks.planes(a["features"], "features", empty=True)
        arrays = (a["ways"], a["background"], a["sums"], a["counts"])
        threshold = None if a["threshold"] is None else tuple(a["threshold"])
        numbers = (a["scale"], a["distilled"], threshold, a["radius"], contiguous(a["weights"]))
        return features, *arrays, *numbers
    if op == "nearest":
        features = checks.planes(a["features"], "features")
        return features, a["rows"], a["group"], a["groups"], a["precision"] == "bf16", None
    if op == "logistic_fit":
        numbers = [a[name] for name in ("rate", "momentum", "l2")]
        return (checks.rows(a["cells"], "", (2,), ""), a["targets"], a["weights"], *numbers)
    if op == "upsample_argmax":
        logits = checks.planes(a["logits"], "logits")
        return (logits, *checks.extent_pair(a["extent"], logits.shape[2:]), a.get("labels"))
    if op == "online_mlp_scores":
        bf16 = a["precision"] == "bf16"
        features = checks.planes(a["features"], "features")
        return features, tuple(a["mlp"]), a["length"] or 0.0, bf16
    if op == "online_mlp_fit":
        samples = [tuple(checks.planes(array, "") for array in pair) for pair in a["samples"]]
        numbers = [a[name] for name in ("learning_rate", "momentum", "dropout")]
        bf16 = a.get("precision") == "bf16"
        return samples, tuple(a["mlp"]), *numbers, a.get("length") or 0.0, a["seed"], bf16
    return checks.rgb(a["image"], "image"), *a["content"], a["mean"], a["std"]


def contiguous(weights: Any) -> Any:
    """Of cells, or None."""
    return None if weights is None else np.ascontiguousarray(weights)


def binding_arguments_there(op: str, arguments: dict[str, Any], context: Any) -> tuple[Any, ...]:
    """The same on a device, where the binding takes whole numbers only if their range is known."""

    def change(array: Any) -> Any:
        if array.dtype != np.int64:
            return there(array, context)
        least, end = (int(array.min()), int(array.max()) + 1) if array.size else (0, 1)
        return context._numbers(np.ascontiguousarray(array), least, end)

    return tuple(mapped(part, change) for part in binding_arguments(op, arguments))


def run_padded(
    op: str, arguments: dict[str, Any], shape: tuple[int, ...], fill: int, context: Any = None
) -> Any:
    """The op's result, computed inside a buffer filled with the byte ``fill``; of a device, too.

    Raises AssertionError if the kernel wrote outside of its result.
    """
    dtype = np.dtype(np.uint8 if op == "upsample_argmax" else np.float32)
    size = int(np.prod(shape))
    buffer = np.full((size + 2 * PAD) * dtype.itemsize, fill, np.uint8).view(dtype)
    out = buffer[PAD : PAD + size].reshape(shape)
    results: tuple[Any, ...] = (out,)
    if op == "online_mlp_fit":
        results = parts_of(out, arguments)
    elif op == "logistic_fit":
        results = tuple(logistic_parts(out, arguments))
    elif op == "soft_pool":
        results = tuple(split(out, sizes(op, arguments)))
    elif op == "prototype_fusion":
        results = (tuple(split(out, sizes(op, arguments))),)
    if context is None:
        done = getattr(_kernels, op)(*binding_arguments(op, arguments), *results, 3)
    else:
        copy = DeviceBuffer(buffer, context)
        given = binding_arguments_there(op, arguments, context)
        done = getattr(_kernels.cuda, op)(*given, *mapped(results, copy.view), 3)
        copy.fetch()
    assert done == ((True, False) if op == "online_mlp_fit" else True)
    around = np.concatenate([buffer[:PAD], buffer[PAD + size :]]).view(np.uint8)
    assert (around == fill).all(), f"{op} wrote outside of its result"
    return out.copy()


def logistic_parts(out: Any, arguments: dict[str, Any]) -> list[Any]:
    """``[weight, bias, losses]``, views of what call() would make of them."""
    classes, channels = arguments["targets"].shape[1], arguments["cells"].shape[1]
    weight, bias, losses = np.split(out, [classes * channels, classes * (channels + 1)])
    return [weight.reshape(classes, channels), bias, losses.reshape(-1, classes)]


def parts_of(out: Any, arguments: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """``(arrays of the Mlp, losses)``, views of what flat() would make of them."""
    start, views = 0, []
    for array in arguments["mlp"]:
        views.append(out[start : start + array.size].reshape(array.shape))
        start += array.size
    return tuple(views), out[start:]
