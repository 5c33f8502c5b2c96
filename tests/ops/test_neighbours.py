"""nearest, logistic_fit and shared labels: what is not a comparison with the reference."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from fsseg_sdk import _kernels, ops
from fsseg_sdk.errors import InputError
from fsseg_sdk.ops import reference
from tests.ops.neighbour_cases import NEAREST_BF16, logistic_arguments, nearest_arguments


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def own_unit() -> Any:
    before = _kernels._bf16()
    yield
    _kernels._set_bf16(before)


def test_every_unit_of_bfloat16_agrees(own_unit: None) -> None:
    given = nearest_arguments(rng(), (1, 70, 9, 11), 40, 3, precision="bf16")
    expected = reference.nearest(**given)
    for unit in _kernels._bf16_usable():
        assert _kernels._set_bf16(unit)
        result = ops.nearest(**given, threads=1)
        assert float(np.abs(result - expected).max()) <= NEAREST_BF16, unit
        assert ops.nearest(**given, threads=3).tobytes() == result.tobytes(), unit


def test_bfloat16_is_rounded() -> None:
    given = nearest_arguments(rng(), (1, 70, 9, 11), 40)
    exact = ops.nearest(**given)
    rounded = ops.nearest(**{**given, "precision": "bf16"})
    assert 1e-5 < float(np.abs(rounded - exact).max()) < 1e-2


def test_a_group_is_the_maximum_over_its_rows() -> None:
    """One group of all rows is the maximum over groups, in the same bits, in any order of rows."""
    given = nearest_arguments(rng(), (2, 33, 9, 11), 60, 4)
    parts = ops.nearest(**given)
    whole = ops.nearest(**{**given, "group": np.zeros(60, np.int64), "groups": 1})
    assert whole[:, 0].tobytes() == parts.max(axis=1).tobytes()
    assert (parts[:, 1] == -1.0).all()
    order = rng().permutation(60)
    turned = {"rows": given["rows"][order], "group": given["group"][order]}
    assert ops.nearest(**{**given, **turned}).tobytes() == parts.tobytes()


def test_a_zero_row_and_a_zero_cell_have_cosine_0() -> None:
    features = np.zeros((1, 5, 2, 2), np.float32)
    features[0, :, 0, 0] = -1
    rows = np.stack([np.zeros(5), np.ones(5)]).astype(np.float32)
    result = ops.nearest(features, rows, np.array([0, 1]), 2)
    assert result[0, 0].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(result[0, 1], [[-1, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_made_ready_give_the_same_bits(precision: str, own_unit: None) -> None:
    given = nearest_arguments(rng(), (2, 300, 9, 11), 60, 4, precision=precision)
    features = given.pop("features")
    ready = ops.NearestRows(**given)
    level = ops.simd_level()
    try:
        for other in (*ops.simd_levels(), level):  # packs again
            _kernels._set_simd(other)
            expected = ops.nearest(features, **given, threads=1).tobytes()
            assert ready.match(features, threads=1).tobytes() == expected
            assert ready.match(features, threads=3).tobytes() == expected
    finally:
        _kernels._set_simd(level)
    for unit in _kernels._bf16_usable():
        _kernels._set_bf16(unit)
        expected = ops.nearest(features, **given).tobytes()
        assert ready.match(features).tobytes() == expected
    again = pickle.loads(pickle.dumps(ready))  # noqa: S301 (its own)
    assert again.match(features).tobytes() == expected
    given["rows"][:] = 1  # it has its own
    assert ready.match(features).tobytes() == expected


def test_rows_made_ready_are_checked() -> None:
    given = nearest_arguments(rng(), (1, 20, 9, 11), 30)
    features = given.pop("features")
    with pytest.raises(InputError) as caught:
        ops.NearestRows(**given).match(features[:, :19])
    assert caught.value.argument == "features"
    with pytest.raises(InputError) as caught:
        ops.NearestRows(**{**given, "group": given["group"][:29]})
    assert caught.value.argument == "group"
    given["rows"][3, 4] = np.nan
    with pytest.raises(InputError, match=r"\(3, 4\)") as caught:
        ops.NearestRows(**given)
    assert caught.value.argument == "rows"


def test_packed_rows_of_another_size_are_refused() -> None:
    given = nearest_arguments(rng(), (1, 20, 9, 11), 30)
    arrays = (given["features"], given["rows"], given["group"], 2, False)
    out = np.empty((1, 2, 9, 11), np.float32)
    with pytest.raises(ValueError, match="packed"):
        _kernels.nearest(*arrays, np.zeros(100, np.uint8), out, 1)


def torch_fit(given: dict[str, Any]) -> tuple[Any, Any]:
    x, t, w = (torch.from_numpy(given[n]).double() for n in ("cells", "targets", "weights"))
    bound = 0.25 * (w * ((x * x).sum(1, keepdim=True) + 1)).sum(0) + given["l2"]
    weight = torch.zeros(t.shape[1], x.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(t.shape[1], dtype=torch.double, requires_grad=True)
    # A rate for each class: parameters in units of its square root, which scales its gradient too.
    root = (given["rate"] / bound).sqrt().detach()
    sgd = torch.optim.SGD([weight, bias], lr=1.0, momentum=given["momentum"])
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(given["steps"]):
        own = weight * root[:, None]
        z = x @ own.T + bias * root
        loss = (w * entropy(z, t, reduction="none")).sum() + given["l2"] / 2 * (own**2).sum()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return (weight * root[:, None]).detach().numpy(), (bias * root).detach().numpy()


def test_logistic_fit_is_torch_sgd() -> None:
    given = logistic_arguments(rng(), 120, 30, 4, steps=40, l2=1e-2)
    fit = ops.logistic_fit(**given)
    weight, bias = torch_fit(given)
    np.testing.assert_allclose(fit.weight, weight, atol=2e-5 * float(np.abs(weight).max()))
    np.testing.assert_allclose(fit.bias, bias, atol=2e-5 * float(np.abs(weight).max()))


@pytest.mark.parametrize(
    ("length", "momentum", "rate"),
    list(itertools.product((1e-2, 1.0, 1e3), (0.0, 0.95), (1.0, 2.0))),
)
def test_logistic_fit_never_diverges(length: float, momentum: float, rate: float) -> None:
    given = logistic_arguments(
        rng(), 200, 100, 3, length=length, momentum=momentum, rate=rate, steps=300
    )
    losses = ops.logistic_fit(**given).losses
    assert float(losses.max()) <= float(losses[0].max()) * 1.1  # momentum may overshoot at first
    assert (losses[-1] < losses[0]).all()


def test_logistic_fit_separates_wide_features() -> None:
    """1,024 channels with a large common part, as an encoder's are: no rate was chosen for them."""
    random = rng()
    common, own = random.standard_normal(1024) * 3, random.standard_normal((2, 1024)) * 0.4
    side = random.random(600) < 0.2
    x = common + own[side.astype(int)] + random.standard_normal((600, 1024))
    x *= 4 / np.linalg.norm(x, axis=1, keepdims=True)
    balanced = np.where(side, 0.5 / side.sum(), 0.5 / (~side).sum()).astype(np.float32)[:, None]
    cells, targets = x.astype(np.float32), side.astype(np.float32)[:, None]
    fit = ops.logistic_fit(cells, targets, balanced, steps=100)
    found = cells @ fit.weight[0] + fit.bias[0] > 0
    assert float((found == side).mean()) > 0.99


def test_a_class_without_weight_stays_at_0() -> None:
    given = logistic_arguments(rng(), 50, 20, 6, l2=0.1)
    fit = ops.logistic_fit(**given)
    assert not fit.weight[4].any() and fit.bias[4] == 0.0 and not fit.losses[:, 4].any()
    assert fit.weight[3].any()
    alone = {name: given[name][:, 3:4].copy() for name in ("targets", "weights")}
    np.testing.assert_allclose(
        ops.logistic_fit(**{**given, **alone}).weight[0], fit.weight[3], 1e-4
    )


def test_labels_that_are_numbers_change_no_bit() -> None:
    logits = rng().standard_normal((2, 6, 9, 11)).astype(np.float32)
    plain = ops.upsample_argmax(logits, (97, 130))
    numbered = ops.upsample_argmax(logits, (97, 130), labels=np.arange(6, dtype=np.uint8))
    assert numbered.tobytes() == plain.tobytes()
    names = np.array([0, 7, 7, 255, 0, 7], np.uint8)
    assert ops.upsample_argmax(logits, (97, 130), labels=names).tobytes() == names[plain].tobytes()


def test_a_plane_of_zeros_is_a_threshold_and_shots_are_joined_by_or() -> None:
    shots = rng().standard_normal((1, 300, 7, 9)).astype(np.float32) - np.float32(2.5)
    logits = np.concatenate([np.zeros((1, 1, 7, 9), np.float32), shots], axis=1)
    labels = np.ones(301, np.uint8)
    labels[0] = 0
    found = ops.upsample_argmax(logits, (70, 90), labels=labels)
    each = reference.upsample(shots, (70, 90))
    clear = np.abs(each).min(axis=1) > 1e-5
    assert found[clear].tolist() == (each > 0.0).any(axis=1)[clear].astype(np.uint8).tolist()
    assert 0.05 < float(found.mean()) < 0.95
