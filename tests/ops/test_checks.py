"""What ops refuse, and in which words; and what they take that is not a plain array."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import ops
from fsseg_sdk.errors import InputError
from tests.ops.cases import OPS
from tests.ops.raw import call, mapped


def good(op: str) -> dict[str, Any]:
    """Small valid arguments of an op, all arrays of it writeable and contiguous."""
    rng = np.random.default_rng(1)
    planes = rng.standard_normal((2, 20, 9, 70)).astype(np.float32)
    rows = rng.standard_normal((8, 20)).astype(np.float32)
    if op == "grid_weights":
        return {"masks": rng.random((2, 30, 40), dtype=np.float32), "grid": (5, 6)}
    if op == "weighted_pool":
        return {"features": planes, "weights": rng.random((2, 3, 9, 70), dtype=np.float32)}
    if op == "linear_match":
        return {"features": planes, "weights": rows, "bias": np.ones(8, np.float32)}
    if op == "upsample_argmax":
        return {"logits": planes[:, :4].copy(), "size": (31, 47)}
    if op == "nearest":
        return {"features": planes, "rows": rows, "group": np.arange(8) % 3, "groups": 3}
    if op == "logistic_fit":
        targets = rng.random((8, 3), dtype=np.float32)
        weights = rng.random((8, 3), dtype=np.float32)
        return {"cells": rows, "targets": targets, "weights": weights, "steps": 3}
    if op == "soft_pool":
        return {"features": planes, "prototypes": rows, "ways": np.array([-1, 3])}
    if op == "prototype_fusion":
        given = {"background": rows[:2].copy(), "sums": rows[2:].copy()}
        given |= {"ways": np.array([-1, 3]), "counts": np.ones(6, np.float32)}
        return {"features": planes, **given, "steps": 2}
    if op == "online_mlp_scores":
        return {"features": planes, "mlp": ops.online_mlp_start(20, 17, 3)}
    if op == "online_mlp_fit":
        targets = rng.random((2, 3, 9, 70), dtype=np.float32) / 1000
        samples, mlp = [(planes, targets)], ops.online_mlp_start(20, 17, 3)
        return {"samples": samples, "mlp": mlp, "iterations": 2, "learning_rate": 0.1}
    if op == "preprocess":
        image = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
        sizes = {"input_size": (16, 16), "content": (12, 16)}
        return {"image": image, **sizes, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    return {"features": planes, "prototypes": rows}


FLOAT_ARRAYS = [
    (op, name)
    for op in OPS
    for name, value in good(op).items()
    if isinstance(value, np.ndarray) and value.dtype == np.float32
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("op", "name"), FLOAT_ARRAYS)
@pytest.mark.parametrize("where", [0.0, 0.37, 1.0])
def test_non_finite_is_refused_by_name(op: str, name: str, value: float, where: float) -> None:
    arguments = good(op)
    array = arguments[name]
    index = int(where * (array.size - 1))
    array.reshape(-1)[index] = value
    with pytest.raises(InputError) as caught:
        getattr(ops, op)(**arguments)
    assert caught.value.argument == name
    assert str(tuple(map(int, np.unravel_index(index, array.shape)))) in caught.value.got
    array.reshape(-1)[index] = 0.5  # the next call is fine
    getattr(ops, op)(**arguments)


def _wrong(array: Any) -> dict[str, Any]:
    swapped = array.astype(array.dtype.newbyteorder("S"))
    wrong = {
        "list": array.tolist(),
        "none": None,
        "float64": array.astype(np.float64),
        "object": array.astype(object),
        "complex": array.astype(np.complex64),
        "rank+1": array[None, None],
        "rank-1": array.reshape(-1)[0],
        "empty": array[:0],
    }
    if array.itemsize > 1:
        wrong["byteorder"] = swapped
    return wrong


WRONG = [
    (op, name, kind)
    for op in OPS
    for name, value in good(op).items()
    if isinstance(value, np.ndarray)
    for kind in _wrong(value)
]


@pytest.mark.parametrize(("op", "name", "kind"), WRONG)
def test_wrong_arrays_are_refused_by_name(op: str, name: str, kind: str) -> None:
    arguments = good(op)
    arguments[name] = _wrong(arguments[name])[kind]
    with pytest.raises(InputError) as caught:
        getattr(ops, op)(**arguments)
    assert caught.value.argument == name
    assert caught.value.expected and caught.value.got and caught.value.remedy


def network(
    columns: int = 5, units: int = 2, value: float = 1.0, bias: float = 1.0
) -> ops.ThresholdMlp:
    """A threshold network with one thing wrong."""
    hidden_weight = np.full((2, columns), value, np.float32)
    return ops.ThresholdMlp(hidden_weight, np.ones(2, np.float32), np.ones(units, np.float32), bias)


def spoiled(value: float) -> Any:
    """Weights of the cells of good(), one of them this."""
    weights = np.ones((2, 9, 70), np.float32)
    weights[1, 8, 69] = value
    return weights


OTHER: list[tuple[str, str, Any, str]] = [
    ("grid_weights", "grid", (0, 5), "grid"),
    ("grid_weights", "grid", (5,), "grid"),
    ("grid_weights", "grid", (5.5, 6), "grid"),
    ("grid_weights", "extent", (5.1, 6.0), "extent"),
    ("grid_weights", "extent", (0.0, 6.0), "extent"),
    ("grid_weights", "extent", (float("nan"), 6.0), "extent"),
    ("weighted_pool", "weights", np.ones((2, 3, 70, 9), np.float32), "weights"),
    ("weighted_pool", "weights", np.ones((1, 3, 9, 70), np.float32), "weights"),
    ("weighted_pool", "eps", float("inf"), "eps"),
    ("weighted_pool", "eps", "small", "eps"),
    ("cosine_match", "prototypes", np.ones((3, 19), np.float32), "prototypes"),
    ("cosine_match", "prototypes", np.ones((3, 2, 20), np.float32), "prototypes"),
    ("cosine_match", "scale", float("nan"), "scale"),
    ("linear_match", "weights", np.ones((8, 21), np.float32), "weights"),
    ("linear_match", "bias", np.ones(7, np.float32), "bias"),
    ("distance_stats", "prototypes", np.ones((3, 19), np.float32), "prototypes"),
    ("distance_stats", "prototypes", np.ones((2, 3, 20), np.float32), "prototypes"),
    ("soft_pool", "prototypes", np.ones((3, 19), np.float32), "prototypes"),
    ("soft_pool", "prototypes", np.ones((1, 20), np.float32), "parts"),
    ("soft_pool", "parts", 0, "parts"),
    ("soft_pool", "parts", 8, "parts"),
    ("soft_pool", "radius", np.ones(8, np.float32), "radius"),
    ("soft_pool", "radius", np.full(7, np.nan, np.float32), "radius"),
    ("prototype_fusion", "background", np.ones((1, 19), np.float32), "background"),
    ("prototype_fusion", "sums", np.ones((6, 21), np.float32), "sums"),
    ("prototype_fusion", "counts", np.ones(5, np.float32), "counts"),
    ("prototype_fusion", "counts", np.full(6, -1, np.float32), "counts"),
    ("prototype_fusion", "steps", -1, "steps"),
    ("prototype_fusion", "steps", 1.0, "steps"),
    ("prototype_fusion", "radius", float("nan"), "radius"),
    ("prototype_fusion", "threshold", (1, 2), "threshold"),
    ("prototype_fusion", "threshold", network(columns=4), "threshold.hidden_weight"),
    ("prototype_fusion", "threshold", network(units=3), "threshold.output_weight"),
    ("prototype_fusion", "threshold", network(value=np.nan), "threshold.hidden_weight"),
    ("prototype_fusion", "threshold", network(bias=np.inf), "threshold.output_bias"),
    ("prototype_fusion", "features", np.ones((0, 20, 3, 3), np.float32), "features"),
    *(
        (op, "ways", np.array(value), "ways")
        for op in ("soft_pool", "prototype_fusion")
        for value in ([0], [0, -2], [0, 7], [0.0, 1.0], [[0], [1]])
    ),
    *(
        (op, "scale", value, "scale")
        for op in ("soft_pool", "prototype_fusion")
        for value in (-1.0, float("nan"), 1e38)
    ),
    *(
        (op, "weights", value, "weights")
        for op in ("distance_stats", "soft_pool", "prototype_fusion")
        for value in (
            np.ones((2, 9, 70)),
            np.ones((2, 70, 9), np.float32),
            np.ones((2, 1, 9, 70), np.float32),
            spoiled(np.nan),
            spoiled(np.inf),
            spoiled(-1e-30),
        )
    ),
    *(
        (f"online_mlp_{op}", name, value, blamed)
        for op in ("fit", "scores")
        for name, value, blamed in (
            ("mlp", None, "mlp"),
            ("mlp", ops.online_mlp_start(19, 17, 3), "mlp.hidden_weight"),
            ("mlp", ops.online_mlp_start(20, 17, 3)[:3], "mlp"),
            ("length", 0.0, "length"),
            ("length", float("nan"), "length"),
            ("precision", "fp16", "precision"),
        )
    ),
    ("online_mlp_fit", "mlp", ops.online_mlp_start(20, 17, 4), "samples[0] targets"),
    ("online_mlp_fit", "samples", [], "samples"),
    ("online_mlp_fit", "samples", [np.ones((1, 20, 3, 3), np.float32)], "samples[0]"),
    ("online_mlp_fit", "iterations", 0, "iterations"),
    ("online_mlp_fit", "iterations", True, "iterations"),
    ("online_mlp_fit", "iterations", 1.5, "iterations"),
    ("online_mlp_fit", "learning_rate", -0.1, "learning_rate"),
    ("online_mlp_fit", "momentum", 1.1, "momentum"),
    ("online_mlp_fit", "dropout", 1.0, "dropout"),
    ("online_mlp_fit", "dropout", -0.1, "dropout"),
    ("online_mlp_fit", "seed", -1, "seed"),
    ("online_mlp_fit", "seed", 2**63, "seed"),
    ("nearest", "rows", np.ones((8, 19), np.float32), "rows"),
    ("nearest", "group", np.zeros(7, np.int64), "group"),
    ("nearest", "group", np.full(8, 3), "group"),
    ("nearest", "group", np.full(8, -1), "group"),
    ("nearest", "group", np.zeros(8, np.int32), "group"),
    ("nearest", "groups", 0, "groups"),
    ("nearest", "groups", 2, "group"),
    ("nearest", "precision", "fp16", "precision"),
    ("logistic_fit", "targets", np.ones((7, 3), np.float32), "targets"),
    ("logistic_fit", "targets", np.full((8, 3), 1.01, np.float32), "targets"),
    ("logistic_fit", "targets", np.full((8, 3), -0.01, np.float32), "targets"),
    ("logistic_fit", "weights", np.ones((8, 2), np.float32), "weights"),
    ("logistic_fit", "weights", np.full((8, 3), -1.0, np.float32), "weights"),
    ("logistic_fit", "cells", np.full((8, 20), 1e30, np.float32), "cells"),
    ("logistic_fit", "steps", 0, "steps"),
    ("logistic_fit", "rate", 0.0, "rate"),
    ("logistic_fit", "rate", 2.1, "rate"),
    ("logistic_fit", "momentum", 1.0, "momentum"),
    ("logistic_fit", "l2", -1.0, "l2"),
    ("upsample_argmax", "labels", np.zeros(5, np.uint8), "labels"),
    ("upsample_argmax", "labels", np.zeros(4, np.int64), "labels"),
    ("upsample_argmax", "labels", [0, 1, 2, 3], "labels"),
    ("upsample_argmax", "logits", np.ones((1, 256, 2, 2), np.float32), "logits"),
    ("upsample_argmax", "size", (-1, 4), "size"),
    ("upsample_argmax", "extent", (9.0, 71.0), "extent"),
    ("preprocess", "image", np.zeros((4, 4, 4), np.uint8), "image"),
    ("preprocess", "content", (17, 16), "content"),
    ("preprocess", "input_size", "16", "input_size"),
    ("preprocess", "mean", (0.5, 0.5), "mean"),
    ("preprocess", "std", (0.2, 0.0, 0.2), "std"),
    ("preprocess", "std", (0.2, float("nan"), 0.2), "std"),
]


@pytest.mark.parametrize(("op", "name", "value", "blamed"), OTHER)
def test_other_arguments(op: str, name: str, value: Any, blamed: str) -> None:
    with pytest.raises(InputError) as caught:
        getattr(ops, op)(**{**good(op), name: value})
    assert caught.value.argument == blamed


@pytest.mark.parametrize(("op", "threads"), list(itertools.product(OPS, [0, -1, 1.5, "2", True])))
def test_threads(op: str, threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        getattr(ops, op)(**good(op), threads=threads)


def test_sum_of_weights_that_cancels_eps() -> None:
    arguments = good("weighted_pool")
    arguments["weights"][:] = 0
    with pytest.raises(InputError, match="eps"):
        ops.weighted_pool(**arguments, eps=0.0)


class Exchanged:
    """A CPU array that speaks nothing but DLPack, in one of its two versions."""

    def __init__(self, array: Any, versioned: bool, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.versioned, self.device = array, versioned, device
        self.capsules: list[str] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **request: Any) -> Any:
        capsule = self.array.__dlpack__(max_version=(1, 0) if self.versioned else None)
        self.capsules.append(repr(capsule))
        return capsule


@pytest.mark.parametrize(("op", "versioned"), list(itertools.product(OPS, [False, True])))
def test_dlpack_in(op: str, versioned: bool) -> None:
    arguments = good(op)
    expected = call(op, arguments)
    exchanged: list[Exchanged] = []

    def wrap(array: Any) -> Exchanged:
        exchanged.append(Exchanged(array, versioned))
        return exchanged[-1]

    assert call(op, mapped(arguments, wrap)).tobytes() == expected.tobytes()
    wanted = "dltensor_versioned" if versioned else 'dltensor"'
    for value in exchanged:
        assert any(wanted in capsule for capsule in value.capsules)


def test_dlpack_is_not_copied() -> None:
    features = good("weighted_pool")["features"]
    view = ops.checks.planes(Exchanged(features, True), "features")  # type: ignore[attr-defined]
    assert np.shares_memory(view, features)
    result = ops.weighted_pool(features, features[:, :2])
    assert np.shares_memory(np.from_dlpack(result), result)  # and out


def test_dlpack_of_another_device_is_refused() -> None:
    arguments = good("weighted_pool")
    arguments["features"] = Exchanged(arguments["features"], True, device=(10, 0))
    with pytest.raises(InputError, match="memory of the CPU"):
        ops.weighted_pool(**arguments)


def test_dlpack_that_fails_is_refused() -> None:
    class Broken(Exchanged):
        def __dlpack__(self, **request: Any) -> Any:
            raise BufferError("requires a gradient")

    arguments = good("weighted_pool")
    arguments["features"] = Broken(arguments["features"], True)
    with pytest.raises(InputError, match="requires a gradient"):
        ops.weighted_pool(**arguments)


def _misaligned(array: Any) -> Any:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "fortran": np.asfortranarray,
    "misaligned": _misaligned,
    "wide": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


@pytest.mark.parametrize(("op", "view"), list(itertools.product(OPS, sorted(VIEWS))))
def test_any_strides_give_the_same_bits(op: str, view: str) -> None:
    arguments = good(op)
    expected = call(op, arguments)
    assert call(op, mapped(arguments, VIEWS[view])).tobytes() == expected.tobytes()
