"""Writes op cases, their references and tolerances to one file for the replayer (replay.cpp).

    python -m tests.aarch64.write_cases OUTPUT [OP ...]        only the cases of these ops

A line "case OP NAME", then lines "number NAME VALUE" and "array NAME TYPE RANK SHAPE... STRIDES...
OFFSET BYTES", each array line followed by that many raw bytes (all that the view spans, gaps
included; OFFSET in elements is where its first element lies), then "end".
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tests.ops.case import Case
from tests.ops.cases import all_cases
from tests.ops.compare import (
    MAX_ERROR,
    NMSE,
    SMALLEST,
    label_limit,
    label_values,
    scale_of,
    stats_limits,
)
from tests.ops.fusion_cases import fusion_limits, pool_limits
from tests.ops.mlp_cases import SCORES, fit_limits
from tests.ops.neighbour_cases import NEAREST_BF16, logistic_limits
from tests.ops.raw import binding_arguments, expected_of, mapped

LARGEST = 2_000_000  # bytes of one array: an emulated processor is slow

NAMES: dict[str, tuple[str, ...]] = {
    "grid_weights": ("masks", "extent_h", "extent_w"),
    "weighted_pool": ("features", "weights", "eps"),
    "cosine_match": ("features", "prototypes", "scale", "softmax"),
    "linear_match": ("features", "weights", "bias"),
    "distance_stats": ("features", "prototypes", "weights"),
    "soft_pool": ("features", "prototypes", "ways", "parts", "scale", "radius", "weights"),
    "prototype_fusion": (
        *("features", "ways", "background", "sums", "counts"),
        *("scale", "distilled", "threshold", "radius", "weights"),
    ),
    "online_mlp_fit": (
        *("samples", "mlp", "learning_rate", "momentum", "dropout", "length", "seed", "bf16"),
    ),
    "online_mlp_scores": ("features", "mlp", "length", "bf16"),
    "nearest": ("features", "rows", "group", "groups", "bf16", "packed"),
    "logistic_fit": ("cells", "targets", "weights", "rate", "momentum", "l2"),
    "upsample_argmax": ("logits", "extent_h", "extent_w", "labels"),
    "preprocess": ("image", "content_h", "content_w", "mean", "std"),
}


def write_array(file: BinaryIO, name: str, array: Any) -> None:
    spans = [s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True) if n > 1]
    low = sum(min(0, span) for span in spans)
    high = sum(max(0, span) for span in spans) + array.itemsize
    memory = ctypes.string_at(array.ctypes.data + low, high - low)
    strides = [s // array.itemsize for s in array.strides]
    fields = [name, array.dtype.str[1:], array.ndim, *array.shape, *strides]
    fields += [-low // array.itemsize, len(memory)]
    file.write(("array " + " ".join(map(str, fields)) + "\n").encode())
    file.write(memory)


def tolerances(case: Case, arguments: dict[str, Any], expected: Any) -> dict[str, Any]:
    """Names as compare() of replay.cpp reads them."""
    if case.op == "upsample_argmax":
        values = np.ascontiguousarray(label_values(arguments))
        return {"values": values, "margin": label_limit(arguments)}
    if case.op == "distance_stats":
        return {"expected": expected, "limits": stats_limits(expected)}
    if case.op == "soft_pool":
        return {"expected": expected, "limits": pool_limits(arguments)}
    if case.op == "prototype_fusion":
        limits = fusion_limits(arguments, expected)
        return {"expected": expected, "limits": limits, "steps": arguments["steps"]}
    if case.op == "online_mlp_fit":
        numbers = {"sample_count": len(arguments["samples"]), "iterations": arguments["iterations"]}
        return {"expected": expected, "limits": fit_limits(arguments, expected), **numbers}
    if case.op == "logistic_fit":
        limits = logistic_limits(arguments, expected)
        return {"expected": expected, "limits": limits, "steps": arguments["steps"]}
    if case.op == "nearest" and arguments["precision"] == "bf16":
        return {"expected": expected, "limits": np.full(expected.shape, NEAREST_BF16)}
    if case.op == "online_mlp_scores" and arguments["precision"] == "bf16":
        limit = SCORES["bf16"] * float(np.abs(expected).max())
        return {"expected": expected, "limits": np.full(expected.shape, limit)}
    scale = scale_of(case.op, arguments)
    top = float(np.abs(expected).max()) if scale is None else scale
    limits = {"max_error": MAX_ERROR, "nmse": NMSE, "smallest": SMALLEST, "top": top}
    return {"expected": expected, **limits}


def single(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A field as it is, or those of a tuple or list of arrays: name.0, name.1, name.1.0 ..."""
    if isinstance(value, (list, tuple)) and not isinstance(value[0], float):
        for place, item in enumerate(value):
            yield from single(f"{name}.{place}", item)
    else:
        yield name, value


def write_case(file: BinaryIO, case: Case) -> bool:
    """False: left out, too large or empty."""
    arguments = case.arguments()
    sizes_of_arrays: list[int] = []
    mapped(arguments, lambda array: sizes_of_arrays.append(array.nbytes))
    if max(sizes_of_arrays) > LARGEST or 0 in sizes_of_arrays:
        return False
    expected = np.ascontiguousarray(expected_of(case.op, arguments))
    if case.op == "upsample_argmax" and expected.nbytes * arguments["logits"].shape[1] > LARGEST:
        return False
    values = zip(NAMES[case.op], binding_arguments(case.op, arguments), strict=True)
    fields = {**dict(values), **tolerances(case, arguments, expected)}
    sizes = np.array(expected.shape, np.float64)  # of the result
    file.write(f"case {case.op} {case.name.replace(' ', '')}\n".encode())
    named = ((name, value) for item in fields.items() for name, value in single(*item))
    for name, value in {**dict(named), "sizes": sizes}.items():
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            write_array(file, name, value)
        elif isinstance(value, tuple):
            write_array(file, name, np.array(value, np.float64))
        else:
            file.write(f"number {name} {float(value)!r}\n".encode())
    file.write(b"end\n")
    return True


def main() -> None:
    cases = [case for case in all_cases() if case.op in sys.argv[2:] or len(sys.argv) == 2]
    with Path(sys.argv[1]).open("wb") as file:
        written = sum(write_case(file, case) for case in cases)
    print(f"{written} cases of {len(cases)} written; the others are too large or empty")


if __name__ == "__main__":
    main()
