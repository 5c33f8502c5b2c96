"""ResNets against torchvision's names, published sizes, and a forward pass written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import pretrained
from training.encoders import build_encoder, load_backbone


def loaded(name: str, state: dict[str, Tensor], **settings: Any) -> Any:
    encoder = build_encoder(name, settings)
    load_backbone(encoder, state)
    return encoder.eval()


@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        ("resnet50", 8_543_296, 8.543),
        ("resnet50_v1.5", 8_543_296, 8.543),
        ("resnet50_deep", 8_667_072, 8.667),
        ("resnet101", 27_535_424, 27.535),
        ("resnet101_deep", 27_659_200, 27.659),
        ("resnet18", 2_782_784, 2.783),
    ],
)
def test_sizes_are_the_published_ones(name: str, parameters: int, published: float) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert round(parameters / 1e6, 3) == published


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "resnet50_deep"])
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    depth = int(name[6:].split("_")[0])
    published = pretrained.resnet(depth, "deep" if "deep" in name else "7x7")
    with torch.device("meta"):
        whole = build_encoder(name, {"taps": ["layer4"]}).state_dict()
        cut = build_encoder(name).state_dict()
    assert {k: v.shape for k, v in whole.items()} == {
        k: v.shape for k, v in published.items() if not k.startswith("fc.")
    }
    assert set(cut) == {k for k in whole if not k.startswith("layer4.")}


def normed(state: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    weight, bias, mean, variance = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def written_out(
    state: dict[str, Tensor], x: Tensor, depth: int, deep: bool, variant: str, dilate_first: bool
) -> Tensor:
    """Layers 1 to 3 at stride 8, without the last ReLU."""
    for number in range(1, 4 if deep else 2):
        kernel = state[f"conv{number}.weight"]
        stride = 2 if number == 1 else 1
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        x = normed(state, x, f"bn{number}").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, count in ((1, 2 if depth == 18 else 3), (2, 2 if depth == 18 else 4), (3, None)):
        blocks = count or {18: 2, 50: 6, 101: 23}[depth]
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            stride = 2 if layer == 2 and block == 0 else 1
            later = 2 if layer == 3 else 1  # dilation of all 3x3 but the first block's first
            first = 1 if block == 0 and not dilate_first else later
            if depth == 18:
                plan = [(stride, first), (1, later)]
            elif variant == "v1":
                plan = [(stride, 1), (1, first), (1, 1)]
            else:
                plan = [(1, 1), (stride, first), (1, 1)]
            y = x
            for number, (step, dilation) in enumerate(plan, 1):
                kernel = state[f"{name}.conv{number}.weight"]
                border = dilation * (kernel.shape[-1] // 2)
                y = F.conv2d(y, kernel, None, step, border, dilation)
                y = normed(state, y, f"{name}.bn{number}")
                y = y.relu() if number < len(plan) else y
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = normed(state, x, f"{name}.downsample.1")
            x = x + y
            x = x if (layer, block) == (3, blocks - 1) else x.relu()
    return x


@pytest.mark.parametrize(
    ("name", "variant", "dilate_first"),
    [
        ("resnet18", "v1", False),
        ("resnet18", "v1", True),
        ("resnet50", "v1", False),
        ("resnet50", "v1", True),
        ("resnet50_v1.5", "v1.5", False),
        ("resnet50_deep", "v1.5", True),
    ],
)
def test_forward_is_what_the_paper_says(name: str, variant: str, dilate_first: bool) -> None:
    depth, deep = int(name[6:8]), name.endswith("deep")
    state = pretrained.filled(pretrained.resnet(depth, "deep" if deep else "7x7"))
    encoder = loaded(name, state, variant=variant, dilate_first=dilate_first)
    image = torch.randn(1, 3, 49, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = encoder(image)
    expected = written_out(state, image, depth, deep, variant, dilate_first)
    assert got.shape == (1, encoder.channels, 7, 8)
    assert (got < 0).any()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dilate_first", "equal"),
    [
        ("resnet18", False, True),
        ("resnet50", True, True),
        ("resnet50", False, False),
        ("resnet50_v1.5", False, True),
        ("resnet50_v1.5", True, False),
    ],
)
def test_dilation_computes_what_stride_does(name: str, dilate_first: bool, equal: bool) -> None:
    """At every other position; the rest is new. Which way does, depends on where v1 and v1.5
    stride."""
    state = pretrained.filled(pretrained.resnet(int(name[6:8])))
    form = {"dilate_first": dilate_first}
    dense = loaded(name, state, output_stride=8, **form)
    strided = loaded(name, state, output_stride=16, **form)
    assert (dense.stride, strided.stride) == (8, 16)
    image = torch.randn(1, 3, 72, 64)
    with torch.no_grad():
        every_other, expected = dense(image)[:, :, ::2, ::2], strided(image)
    assert torch.allclose(every_other, expected, rtol=1e-3, atol=1e-4) is equal


def test_layer4_is_dilated_twice() -> None:
    state = pretrained.filled(pretrained.resnet(18))
    dense = loaded("resnet18", state, taps=["layer4"])
    strided = loaded("resnet18", state, taps=["layer4"], output_stride=32)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            dense(image)[:, :, ::4, ::4], strided(image), rtol=1e-3, atol=1e-4
        )


def test_taps_are_joined_on_the_finest_grid() -> None:
    state = pretrained.filled(pretrained.resnet(18))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        two = loaded("resnet18", state, taps=["layer2", "layer3"], output_stride=16)(image)
        layer2 = loaded("resnet18", state, taps=["layer2"], last_relu=True)(image)
        layer3 = loaded("resnet18", state, taps=["layer3"], output_stride=16)(image)
    assert two.shape == (1, 384, 8, 8)
    torch.testing.assert_close(two[:, :128], layer2)
    larger = F.interpolate(layer3, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(two[:, 128:], larger)


def test_the_last_relu_is_a_setting() -> None:
    state = pretrained.filled(pretrained.resnet(18))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        signed = loaded("resnet18", state)(image)
        clipped = loaded("resnet18", state, last_relu=True)(image)
    assert (signed < 0).any()
    assert torch.equal(signed.relu(), clipped)


def test_both_namings_of_the_deep_stem_load() -> None:
    flat = pretrained.filled(pretrained.resnet(18, "deep"))
    stem = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4"}
    stem |= {"conv3": "conv1.6", "bn3": "bn1"}
    nested = {}
    for key, value in flat.items():
        part, _, rest = key.partition(".")
        nested[f"{stem.get(part, part)}.{rest}"] = value
    assert set(nested) == set(pretrained.resnet(18, "nested"))
    one, other = (loaded("resnet18", state, stem="deep").state_dict() for state in (flat, nested))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(one["bn3.weight"], flat["bn3.weight"])


@pytest.mark.parametrize("policy", ["statistics-frozen", "frozen", "trained"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_batch_norm_is_a_setting(name: str, policy: str) -> None:
    form = {"taps": ["layer1"]} if name == "resnet18" else {"taps": ["features.2"]}
    encoder = build_encoder(name, {**form, "batch_norm": policy}).train()
    norms = encoder.norms()
    before = [norm.running_mean.clone() for norm in norms]
    encoder(torch.randn(2, 3, 32, 32) + 3).sum().backward()
    kept = [torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True)]
    assert len(norms) > 3
    assert kept == [policy != "trained"] * len(norms)
    learn = [norm.weight.grad is not None for norm in norms]
    assert learn == [policy != "frozen"] * len(norms)
    assert all(p.grad is not None for n, p in encoder.named_parameters() if p.dim() == 4)
    assert not encoder.eval().training
