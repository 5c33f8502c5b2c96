"""VGG-16 and MobileNetV2 against torchvision's names and forward passes written out here."""

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


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    state = pretrained.vgg16()
    return pretrained.filled({k: v for k, v in state.items() if k.startswith("features.")})


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    return pretrained.filled(pretrained.mobilenet_v2())


@pytest.mark.parametrize("name", ["vgg16", "vgg16_smcp", "fcn32s", "fcn_dilated"])
def test_vgg_has_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        own = build_encoder(name).state_dict()
    published = pretrained.vgg16()
    assert [k for k in own if k.startswith("features.")] == [
        k for k in published if k.startswith("features.")
    ]
    rest = {k: list(v.shape) for k, v in own.items() if not k.startswith("features.")}
    if name == "vgg16_smcp":
        assert rest == {
            "fc6.0.weight": [512, 512, 3, 3],
            "fc6.0.bias": [512],
            "fc7.0.weight": [512, 512, 3, 3],
            "fc7.0.bias": [512],
        }
    elif name.startswith("fcn"):
        assert rest == {
            "classifier.0.weight": [4096, 512, 7, 7],
            "classifier.0.bias": [4096],
            "classifier.3.weight": [4096, 4096, 1, 1],
            "classifier.3.bias": [4096],
        }


def vgg_written_out(state: dict[str, Tensor], x: Tensor, form: str) -> Tensor:
    """To conv5, by the description of PANet's ("panet") or SMCP's encoder ("smcp")."""
    number = 0
    for stage, convs in enumerate((2, 2, 3, 3, 3), 1):
        dilation = 2 if stage == 5 else 1
        for _ in range(convs):
            kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            x = F.conv2d(x, kernel, bias, padding=dilation, dilation=dilation)
            number += 2
            x = x.relu() if number < 30 else x
        number += 1
        if form == "panet" and stage < 5:
            x = F.max_pool2d(x, 3, 2 if stage < 4 else 1, 1)
        elif stage < 4:
            x = F.max_pool2d(x, 2, 2)
    return x


def test_panets_vgg_is_what_its_code_does(vgg: dict[str, Tensor]) -> None:
    image = torch.randn(1, 3, 41, 48)
    with torch.no_grad():
        got = loaded("vgg16", vgg)(image)
    assert got.shape == (1, 512, 6, 6)
    assert (got < 0).any()
    torch.testing.assert_close(got, vgg_written_out(vgg, image, "panet"), rtol=1e-4, atol=1e-4)


def test_smcps_vgg_is_what_its_code_does(vgg: dict[str, Tensor]) -> None:
    encoder = loaded("vgg16_smcp", vgg)
    own = encoder.state_dict()
    image = torch.randn(1, 3, 41, 48)
    with torch.no_grad():
        got = encoder(image)
    x = vgg_written_out(vgg, image, "smcp").relu()
    for name in ("fc6", "fc7"):
        weight, bias = own[f"{name}.0.weight"], own[f"{name}.0.bias"]
        x = F.conv2d(x, weight, bias, padding=4, dilation=4).relu()
    assert got.shape == (1, 512, 5, 6)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pool", [2, 3])
def test_a_pool_without_stride_sees_the_same(vgg: dict[str, Tensor], pool: int) -> None:
    form = {"pool": pool, "last_relu": True}
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        dense = loaded("vgg16", vgg, **form)(image)[:, :, ::2, ::2]
        strided = loaded("vgg16", vgg, output_stride=16, **form)(image)
    torch.testing.assert_close(dense, strided, rtol=1e-4, atol=1e-4)


def test_fcn_is_the_classifier_as_convolutions() -> None:
    """Under the middle of a 7x7 map, and dilated at every fourth position."""
    settings = {"taps": ["fc6"]}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in pretrained.vgg16().items():
        if key.startswith(("features", "classifier.0")):
            some = torch.randn(min(64, len(value)), *value.shape[1:], generator=generator)
            some *= (2 / value[0].numel()) ** 0.5 if value.dim() > 1 else 0.1
            state[key] = some.repeat(len(value) // len(some), *[1] * (value.dim() - 1))
    with torch.device("meta"):
        strided, dense = (
            build_encoder(name, settings).eval() for name in ("fcn32s", "fcn_dilated")
        )
    converted = strided.convert(state)
    strided.load_state_dict(converted, assign=True)
    dense.load_state_dict(converted, assign=True)
    with torch.no_grad():
        grid = torch.randn(1, 512, 7, 7, generator=generator)
        middle = strided.classifier[0](grid)[0, :, 3, 3]
        matrix = state["classifier.0.weight"] @ grid.flatten() + state["classifier.0.bias"]
        torch.testing.assert_close(middle, matrix, rtol=1e-3, atol=1e-3)
        image = torch.randn(1, 3, 64, 32, generator=generator)
        every_fourth, expected = dense(image)[:, :, ::4, ::4], strided(image)
    assert expected.shape == (1, 4096, 2, 1)
    assert (strided.stride, dense.stride) == (32, 8)
    torch.testing.assert_close(every_fourth, expected, rtol=1e-3, atol=1e-3)


def test_mobilenet_has_torchvisions_names(mobilenet: dict[str, Tensor]) -> None:
    form = {"taps": ["features.17"], "batch_norm": "trained"}
    with torch.device("meta"):
        own = build_encoder("mobilenet_v2", form).state_dict()
    published = {k: v for k, v in mobilenet.items() if not k.startswith(("features.18", "class"))}
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in published.items()}


def test_folding_changes_nothing(mobilenet: dict[str, Tensor]) -> None:
    image = torch.randn(1, 3, 48, 49)
    with torch.no_grad():
        folded = loaded("mobilenet_v2", mobilenet)
        whole = loaded("mobilenet_v2", mobilenet, batch_norm="frozen")
        got, expected = folded(image), whole(image)
    assert got.shape == (1, 96, 6, 7)
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert folded.norms() == []
    # folded weights load as they are
    again = loaded("mobilenet_v2", folded.state_dict())
    with torch.no_grad():
        assert torch.equal(again(image), got)


def test_mobilenet_forward_is_what_the_paper_says(mobilenet: dict[str, Tensor]) -> None:
    """Table 2 of Sandler et al. with the stride of features.7 as dilation."""

    def unit(x: Tensor, conv: str, norm: str, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = mobilenet[f"{conv}.weight"]
        border, groups = dilation * (kernel.shape[-1] // 2), x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, None, stride, border, dilation, groups)
        parts = (
            mobilenet[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, *parts)

    image = torch.randn(1, 3, 48, 48)
    x = F.relu6(unit(image, "features.0.0", "features.0.1", 2))
    for number in range(1, 14):
        name, y, inner = f"features.{number}.conv", x, 0
        if number > 1:
            y, inner = F.relu6(unit(y, f"{name}.0.0", f"{name}.0.1")), 1
        stride = 2 if number in (2, 4) else 1
        dilation = 2 if number > 7 else 1
        y = F.relu6(unit(y, f"{name}.{inner}.0", f"{name}.{inner}.1", stride, dilation))
        y = unit(y, f"{name}.{inner + 1}", f"{name}.{inner + 2}")
        x = x + y if stride == 1 and x.shape == y.shape else y
    with torch.no_grad():
        got = loaded("mobilenet_v2", mobilenet)(image)
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("tap", "coarse"), [("features.13", 16), ("features.17", 32)])
def test_mobilenet_dilated_computes_what_strides_do(
    mobilenet: dict[str, Tensor], tap: str, coarse: int
) -> None:
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        dense = loaded("mobilenet_v2", mobilenet, taps=[tap])(image)
        strided = loaded("mobilenet_v2", mobilenet, taps=[tap], output_stride=coarse)(image)
    step = coarse // 8
    assert strided.shape[-2:] == (64 // coarse, 96 // coarse)
    torch.testing.assert_close(dense[:, :, ::step, ::step], strided, rtol=1e-3, atol=1e-4)
