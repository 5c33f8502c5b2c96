"""The differentiable fusion of prototypes: equal to the kernel's, with gradients that hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fsseg_sdk import ops
from training.fusion import Fused, ThresholdNet, fuse, statistics

CHANNELS, GRID = 12, (7, 9)


def scene(seed: int, pictures: int, ways: int, parts: int) -> dict[str, Tensor]:
    """Pictures that show blobs of their class on a background."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    classes, background = normal(ways, CHANNELS), normal(parts, CHANNELS)
    own = torch.arange(pictures) % ways
    features = 0.7 * normal(pictures, CHANNELS, *GRID) + background[0, :, None, None]
    for picture in range(pictures):
        blob = classes[own[picture], :, None, None]
        features[picture, :, 2:6, 1:7] = 0.7 * normal(CHANNELS, 4, 6) + blob
    shots = 3 * classes + normal(ways, CHANNELS)
    return {
        "features": features,
        "ways": own,
        "background": background,
        "sums": shots,
        "counts": torch.full((ways,), 3.0),
        "weights": torch.rand(pictures, *GRID, generator=generator).round(decimals=1),
    }


def kernel(given: dict[str, Tensor], net: ThresholdNet | None, **options: Any) -> ops.Fusion:
    """The runtime's, on the same arrays and by the network's shipped numbers."""
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    threshold = None
    if net is not None:
        numbers = net.numbers()
        named = [np.array(numbers[n], np.float32) for n in ("hidden_weight", "hidden_bias")]
        output = np.array(numbers["output_weight"], np.float32)
        threshold = ops.ThresholdMlp(named[0], named[1], output, float(str(numbers["output_bias"])))
    return ops.prototype_fusion(**arrays, threshold=threshold, threads=1, **options)


def untrained() -> ThresholdNet:
    torch.manual_seed(3)
    net = ThresholdNet(6)
    torch.nn.init.normal_(net.output.weight, std=0.3)
    return net


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize(("pictures", "ways", "parts"), [(1, 1, 1), (4, 2, 1), (5, 3, 3)], ids=str)
def test_the_twin_is_the_kernel(pictures: int, ways: int, parts: int, network: bool) -> None:
    """Step by step: what pictures gave, thresholds, and the prototypes."""
    given = scene(pictures, pictures, ways, parts)
    net = untrained() if network else None
    with torch.no_grad():
        twin = fuse(**given, steps=3, scale=10.0, threshold=net, radius=0.9)
    own = kernel(given, net, steps=3, scale=10.0, radius=0.9)
    assert float(twin.mass.max()) > 1
    np.testing.assert_allclose(own.mass, twin.mass, rtol=1e-4, atol=1e-4)
    gammas = torch.stack([step.gamma for step in twin.steps])
    np.testing.assert_allclose(own.thresholds, gammas, rtol=1e-4, atol=1e-5)
    for name in ("prototypes", "sums", "counts"):
        np.testing.assert_allclose(
            getattr(own, name), getattr(twin, name), rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_any_way_and_soft_pooling_are_the_kernels_too() -> None:
    given = scene(7, 1, 2, 2) | {"ways": torch.tensor([-1])}
    for options in ({"distilled": False}, {"radius": 0.8}):
        with torch.no_grad():
            twin = fuse(**given, steps=2, **options)
        own = kernel(given, None, steps=2, **options)
        np.testing.assert_allclose(own.prototypes, twin.prototypes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own.mass, twin.mass, rtol=1e-4, atol=1e-4)


def test_nothing_given_changes_nothing() -> None:
    """No pictures, no steps, no covered cell, no cell near enough."""
    given = scene(1, 2, 2, 1)
    none = {name: given[name][:0] for name in ("features", "ways", "weights")}
    blank = {"weights": torch.zeros(2, *GRID)}
    for other, options in ((none, {}), ({}, {"steps": 0}), (blank, {}), ({}, {"radius": 0.0})):
        fused = fuse(**{**given, **other, "steps": 2, **options})
        assert torch.equal(fused.sums, given["sums"])
        assert torch.equal(fused.counts, given["counts"])
        assert not fused.mass.any()


def test_equal_cells_are_constant() -> None:
    """Of the prototype's own direction, and of another: no NaN, in gradients either."""
    for feature, mean in (([1.0, 0.0], 0.0), ([1.0, 1.0], 1 - 0.5**0.5)):
        features = torch.tensor(feature)[None, :, None, None].repeat(1, 1, 3, 3).requires_grad_()
        start = torch.tensor([[1.0, 0.0]], requires_grad=True)
        options: dict[str, Any] = {"steps": 2, "threshold": untrained()}
        scenery = torch.tensor([[-1.0, 0.0]])
        fused = fuse(features, torch.tensor([0]), scenery, start, torch.ones(1), **options)
        assert fused.steps[0].mean.item() == pytest.approx(mean, abs=1e-6)
        for gradient in torch.autograd.grad(fused.prototypes.sum(), (features, start)):
            assert torch.isfinite(gradient).all()


def test_statistics_are_those_of_weighted_cells() -> None:
    """Against the moments of cells repeated as often as they weigh."""
    values = torch.rand(2, 30, dtype=torch.float64)
    times = torch.randint(0, 4, (30,))
    mean, five = statistics(values, times.double())
    repeated = values.repeat_interleave(times, 1) / mean[:, None]
    centred = repeated - 1
    moments = [(centred**power).mean(1) for power in (2, 3, 4)]
    expected = [
        repeated.amin(1),
        repeated.amax(1),
        moments[0],
        moments[1] / moments[0] ** 1.5,
        moments[2] / moments[0] ** 2,
    ]
    torch.testing.assert_close(five, torch.stack(expected, 1))


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_the_statistics_of_constant_distances_have_a_gradient(value: float) -> None:
    distances = torch.full((1, 6), value, requires_grad=True)
    mean, five = statistics(distances, torch.ones(6))
    assert mean.item() == pytest.approx(value)
    assert five.tolist() == [[pytest.approx(1.0 if value else 0.0)] * 2 + [0.0] * 3]
    (gradient,) = torch.autograd.grad(five.sum() + mean.sum(), distances)
    assert torch.isfinite(gradient).all()


class Fixed(torch.nn.Module):
    """A threshold that heeds no statistics."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, five: Tensor) -> Tensor:
        return self.value.expand(len(five))


def test_the_gradient_is_that_of_the_soft_mean() -> None:
    """One step, one class, written out: the value is the hard mean's, the slope the sigmoid's."""
    given, threshold = scene(6, 1, 1, 1), Fixed(0.45)
    features = given["features"].requires_grad_()
    fused = fuse(**given, steps=1, threshold=threshold, softness=0.2)
    inputs = (features, threshold.value)
    gradients = torch.autograd.grad(fused.sums.sum(), inputs)
    flat, weights = features.flatten(2)[0], given["weights"].flatten()
    start = given["sums"] / given["counts"]
    every = torch.nn.functional.normalize(torch.cat([given["background"], start]), dim=1)
    cosines = every @ torch.nn.functional.normalize(flat, dim=0)
    sure = torch.softmax(20 * cosines, 0)[1] * (cosines[1] > cosines[0]) * weights
    distances = 1 - cosines[1]
    near = distances / (distances @ weights / weights.sum())
    soft = sure * torch.sigmoid((threshold.value - near) / 0.2)
    hard = sure * (near < 0.45)
    assert 0 < int((hard > 0).sum()) < int((sure > 0).sum())
    torch.testing.assert_close(fused.sums[0], given["sums"][0] + flat @ hard / hard.sum())
    expected = torch.autograd.grad((flat @ soft / soft.sum()).sum(), inputs)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_small_differences() -> None:
    """Soft pooling is smooth where no cell is about to change hands."""
    given = {
        name: t.double() if t.is_floating_point() else t for name, t in scene(4, 2, 1, 1).items()
    }

    def prototypes(features: Tensor, sums: Tensor) -> Tensor:
        return fuse(
            features[..., :3, :4],
            given["ways"],
            given["background"],
            sums,
            given["counts"],
            steps=2,
            distilled=False,
        ).prototypes

    inputs = given["features"].requires_grad_(), given["sums"].requires_grad_()
    assert torch.autograd.gradcheck(prototypes, inputs, fast_mode=True)


def test_the_threshold_learns_from_the_prototypes_and_the_statistics_do_not() -> None:
    given, net = scene(5, 2, 1, 1), untrained()
    given["features"].requires_grad_()
    fused: Fused = fuse(**given, steps=1, threshold=net, softness=0.2)
    (gradient,) = torch.autograd.grad(
        fused.steps[0].gamma.sum(), given["features"], allow_unused=True
    )
    assert gradient is None
    fused = fuse(**given, steps=1, threshold=net, softness=0.2)
    fused.prototypes.square().sum().backward()  # type: ignore[no-untyped-call]
    assert net.hidden.weight.grad is not None
    assert net.hidden.weight.grad.abs().sum() > 0
