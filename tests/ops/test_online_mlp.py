"""online_mlp: its gradients, a twin in torch, and what the case tables cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fsseg_sdk import _kernels, ops
from fsseg_sdk.errors import InputError
from fsseg_sdk.ops import learning_reference, reference
from fsseg_sdk.ops.counter import dropout_mask
from tests.ops.compare import close_to
from tests.ops.mlp_cases import fit_arguments, fit_limits, fit_reference, flat, online_mlp_fit

PRECISIONS = ("fp32", "bf16")


def fitted(arguments: dict[str, Any], threads: int = 1) -> Any:
    result = ops.online_mlp_fit(**arguments, threads=threads)
    assert not result.diverged
    return flat(result.mlp, result.losses)


def arguments(**options: Any) -> dict[str, Any]:
    return fit_arguments(np.random.default_rng(0), (2, 35, 9, 11), 37, 3, **options)


@pytest.fixture(params=_kernels._bf16_usable())
def unit(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _kernels._bf16()
    assert _kernels._set_bf16(request.param) and _kernels._bf16() == request.param
    yield request.param
    _kernels._set_bf16(before)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_of_the_reference_are_those_of_its_loss(precision: str) -> None:
    """Central differences; with "bf16" on numbers that rounding leaves as they are."""
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((7, 5)), rng.random((7, 3))
    mlp = [rng.standard_normal(shape) for shape in ((4, 5), (4,), (3, 4), (3,))]
    if precision == "bf16":
        x, mlp[0] = learning_reference.bf16(x), learning_reference.bf16(mlp[0])
    keep = (rng.random((7, 4)) < 0.7) / 0.7
    gradients = learning_reference.loss_and_gradients(x, targets, mlp, keep)[1]
    step = 1e-6
    for array, gradient in zip(mlp, gradients, strict=True):
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                array[index] += sign * step
                ends.append(learning_reference.loss_and_gradients(x, targets, mlp, keep)[0])
                array[index] -= sign * step
            assert abs((ends[0] - ends[1]) / (2 * step) - gradient[index]) <= 1e-7
    rounded = learning_reference.loss_and_gradients(x, targets, mlp, keep, precision)
    assert np.abs(rounded[1][0] - gradients[0]).max() <= 2**-8 * np.abs(gradients[0]).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_step_is_the_gradient(precision: str) -> None:
    given = arguments(iterations=1, learning_rate=1.0, dropout=0.5, precision=precision)
    moved = ops.online_mlp_fit(**given, threads=1).mlp
    features, targets = given["samples"][0]
    x = features.transpose(0, 2, 3, 1).reshape(-1, features.shape[1]).astype(np.float64)
    t = targets.transpose(0, 2, 3, 1).reshape(-1, targets.shape[1]).astype(np.float64)
    keep = dropout_mask(given["seed"], 0, np.arange(len(x)), 37, 0.5) / 0.5
    mlp = [array.astype(np.float64) for array in given["mlp"]]
    x = learning_reference.bf16(x) if precision == "bf16" else x
    gradients = learning_reference.loss_and_gradients(x, t, mlp, keep, precision)[1]
    limit = 1e-5 if precision == "fp32" else 5e-3
    for before, after, gradient in zip(mlp, moved, gradients, strict=True):
        error = np.abs((before - after) - gradient).max()
        assert error <= limit * np.abs(gradient).max() + 2e-7


def twin(given: dict[str, Any], iterations: int) -> tuple[Any, Any]:
    """(losses, scores of the first map) of a loop as one writes it in torch, same dropout masks."""
    (features, targets), mlp = given["samples"][0], given["mlp"]
    x, t = (
        torch.from_numpy(np.ascontiguousarray(a.transpose(0, 2, 3, 1)).reshape(-1, a.shape[1]))
        for a in (features, targets)
    )
    first = torch.nn.Linear(x.shape[1], len(mlp.hidden_bias))
    last = torch.nn.Linear(len(mlp.hidden_bias), t.shape[1])
    with torch.no_grad():
        for parameter, array in zip([*first.parameters(), *last.parameters()], mlp, strict=True):
            parameter.copy_(torch.from_numpy(array))
    optimizer = torch.optim.SGD(
        [*first.parameters(), *last.parameters()], lr=given["learning_rate"], momentum=0.9
    )
    losses = []
    for iteration in range(iterations):
        mask = dropout_mask(given["seed"], iteration, np.arange(len(x)), first.out_features, 0.5)
        hidden = torch.relu(first(x)) * torch.from_numpy(mask.astype(np.float32) / 0.5)
        loss = -(t * torch.log_softmax(last(hidden), dim=1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        scores = last(torch.relu(first(x)))[: features[0, 0].size]
    return np.array(losses), scores.T.reshape(1, -1, *features.shape[2:]).numpy()


@pytest.mark.parametrize("iterations", [10, 100])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_torch_twin(iterations: int, precision: str) -> None:
    """Classes that overlap, so that labels near the border would show a difference."""
    rng = np.random.default_rng(1)
    given = fit_arguments(rng, (1, 64, 28, 28), 50, 3, targets="hard", iterations=iterations)
    features, targets = given["samples"][0]
    centres = 0.15 * rng.standard_normal((3, 64)).astype(np.float32)
    features += np.einsum("bkhw,kc->bchw", (targets > 0).astype(np.float32), centres)
    given |= {"learning_rate": 0.1, "momentum": 0.9, "dropout": 0.5, "precision": precision}
    losses, scores = twin(given, iterations)
    assert 0.2 * losses[0] < losses[-1] < 0.9 * losses[0]
    result = ops.online_mlp_fit(**given)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-2)
    found = ops.online_mlp_scores(features, result.mlp, precision=precision)
    mine, theirs = found.argmax(axis=1), scores.argmax(axis=1)
    for label in range(3):
        both, either = (mine == label) & (theirs == label), (mine == label) | (theirs == label)
        assert either.any() and both.sum() / either.sum() >= 0.99


def test_every_unit_of_bf16(unit: str) -> None:
    """The tables run with the best unit; this is every one that works here."""
    for case in online_mlp_fit():
        if "precision-bf16" in case.name:
            given = case.arguments()
            expected = fit_reference(given)
            one = fitted(given)
            assert close_to(one, expected, fit_limits(given, expected)) is None, (unit, case)
            assert fitted(given, 3).tobytes() == one.tobytes()
    for shape, hidden in (((1, 21, 9, 11), 17), ((2, 65, 7, 29), 70)):
        features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        mlp = ops.online_mlp_start(shape[1], hidden, 3)
        scores = ops.online_mlp_scores(features, mlp, precision="bf16")
        expected = reference.online_mlp_scores(features, mlp, precision="bf16")
        np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())


def test_units_follow_the_level(unit: str) -> None:
    before = ops.simd_level()
    _kernels._set_simd("generic")
    try:
        assert ops.build_info()["bf16"] == "rounding" and _kernels._bf16_usable() == ["rounding"]
        assert not _kernels._set_bf16("amx") and not _kernels._set_bf16("fp8")
    finally:
        _kernels._set_simd(before)
    assert ops.build_info()["bf16"] == unit


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_change_a_bit(precision: str) -> None:
    given = fit_arguments(
        np.random.default_rng(0), (2, 150, 30, 31), 100, 4, precision=precision, iterations=3
    )
    one = fitted(given, 1).tobytes()
    assert all(fitted(given, threads).tobytes() == one for threads in (2, 3, 4, 16))


def test_bf16_is_rounded() -> None:
    assert fitted(arguments()).tobytes() != fitted(arguments(precision="bf16")).tobytes()


def test_cells_without_a_target_are_not_read_but_counted() -> None:
    given = arguments(targets="few")
    expected = fitted(given)
    features, targets = given["samples"][0]
    assert 0 < (targets.max(axis=1) > 0).sum() < targets[:, 0].size // 2
    features[np.broadcast_to(targets.max(axis=1, keepdims=True) == 0, features.shape)] = np.nan
    assert fitted(given).tobytes() == expected.tobytes()
    # The same cells at other places have other masks ...
    moved = [(features[:, :, ::-1].copy(), targets[:, :, ::-1].copy())]
    assert not np.allclose(fitted({**given, "samples": moved}), expected, atol=1e-5)
    # ... which two samples of one map each do not change.
    apart = [(features[i : i + 1], targets[i : i + 1]) for i in range(2)]
    assert fitted({**given, "samples": apart}).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("name", "value"), [("seed", 6), ("dropout", 0.4), ("momentum", 0.8)])
def test_settings_matter(name: str, value: float) -> None:
    assert fitted({**arguments(), name: value}).tobytes() != fitted(arguments()).tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rate", [1e6, 1e20, 1e38])
def test_divergence_gives_back_what_came(rate: float, precision: str) -> None:
    given = arguments(learning_rate=rate, iterations=60, precision=precision)
    before = [array.tobytes() for array in given["mlp"]]
    result = ops.online_mlp_fit(**given)
    assert result.diverged and not np.isnan(result.losses).any()
    assert np.isfinite(result.losses[0])
    if rate >= 1e20:
        assert np.isinf(result.losses[-1])
    assert [array.tobytes() for array in result.mlp] == before


def test_nothing_to_learn_from() -> None:
    given = arguments()
    given["samples"][0][1][:] = 0.0
    with pytest.raises(InputError, match="a cell with a target above 0"):
        ops.online_mlp_fit(**given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_non_finite_is_refused_by_name(value: float, place: float) -> None:
    def spoil(array: Any, name: str, run: Any) -> None:
        index = int(place * (array.size - 1))
        kept = array.reshape(-1)[index]
        array.reshape(-1)[index] = value
        with pytest.raises(InputError) as caught:
            run()
        array.reshape(-1)[index] = kept
        assert caught.value.argument == name
        run()

    given = arguments()
    features, targets = given["samples"][0]
    mlp = ops.Mlp(*(array.copy() for array in given["mlp"]))
    given["mlp"] = mlp
    spoil(features, "samples[0] features", lambda: ops.online_mlp_fit(**given))
    spoil(targets, "samples[0] targets", lambda: ops.online_mlp_fit(**given))
    for name, array in mlp._asdict().items():
        spoil(array, f"mlp.{name}", lambda: ops.online_mlp_fit(**given))
        spoil(array, f"mlp.{name}", lambda: ops.online_mlp_scores(features, mlp))


def test_negative_targets_are_refused() -> None:
    given = arguments()
    given["samples"][0][1][1, 2, 3, 4] = -1e-9
    with pytest.raises(InputError, match=r"samples\[0\] targets.*\(1, 2, 3, 4\)"):
        ops.online_mlp_fit(**given)


def test_samples_must_fit_together() -> None:
    given = arguments()
    features, targets = given["samples"][0]
    for pair, argument in (
        ((features, targets[:, :, :8]), "samples[1] targets"),
        ((features[:, :34], targets), "samples[1] features"),
        ((features, targets[:, :2]), "samples[1] targets"),
    ):
        with pytest.raises(InputError) as caught:
            ops.online_mlp_fit(**{**given, "samples": [(features, targets), pair]})
        assert caught.value.argument == argument
