"""MobileNetV2 at a chosen stride by dilation, with torchvision's key names.

Sandler et al., CVPR 2018. By default batch norm is folded into the convolutions, and the names are
torchvision's with the norms left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.encoders.base import Encoder, check_output_stride, check_taps, join

# expansion, channels, repeats, stride of each stage (table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAPS = tuple(f"features.{number}" for number in range(18))
EPSILON = 1e-5


@dataclass(frozen=True)
class MobileNetSettings:
    """Form of a MobileNetV2.

    taps: blocks whose outputs are the features; nothing after the last is built.
    output_stride: strides beyond it become dilation.
    batch_norm: "folded" has none; the others are those of training/encoders/base.py. State dicts
        with norms load into both; folded ones only into "folded".
    """

    taps: tuple[str, ...] = ("features.13",)
    output_stride: int = 8
    batch_norm: Literal["folded", "statistics-frozen", "frozen", "trained"] = "folded"

    def __post_init__(self) -> None:
        check_taps(self.taps, TAPS)
        check_output_stride(self.output_stride)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection without ReLU; a shortcut where shapes allow."""

    def __init__(
        self, channels: int, out: int, stride: int, dilation: int, expansion: int, folded: bool
    ) -> None:
        super().__init__()
        width = channels * expansion
        expand = nn.Conv2d(channels, width, 1, bias=folded) if expansion != 1 else None
        depthwise = nn.Conv2d(
            width, width, 3, stride, dilation, dilation, groups=width, bias=folded
        )
        project = nn.Conv2d(width, out, 1, bias=folded)
        layers: list[nn.Module] = []
        for conv in (expand, depthwise):
            if conv is not None:
                unit = activated(conv, folded)
                layers += [*unit] if folded else [unit]
        layers.append(project)
        if not folded:
            layers.append(nn.BatchNorm2d(out, eps=EPSILON))
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def activated(conv: nn.Conv2d, folded: bool) -> nn.Sequential:
    norm = [] if folded else [nn.BatchNorm2d(conv.out_channels, eps=EPSILON)]
    return nn.Sequential(conv, *norm, nn.ReLU6())


class MobileNetV2(Encoder):
    """``features.0`` to the last tap; 96 channels for features.13; ``h`` and ``w`` rounded up."""

    def __init__(self, settings: MobileNetSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or MobileNetSettings()
        folded = s.batch_norm == "folded"
        last = TAPS.index(s.taps[-1])
        stem = nn.Conv2d(3, 32, 3, 2, 1, bias=folded)
        layers: list[nn.Module] = [activated(stem, folded)]
        channels, reached, dilation = 32, 2, 1
        facts = [(channels, reached)]
        for expansion, out, repeats, stride in STAGES:
            for number in range(repeats):
                step = stride if number == 0 else 1
                own = dilation  # the strided block itself saw the grid before it
                if step == 2 and reached >= s.output_stride:  # the stride becomes dilation
                    step, dilation = 1, dilation * 2
                reached *= step
                layers.append(InvertedResidual(channels, out, step, own, expansion, folded))
                channels = out
                facts.append((channels, reached))
        self.features = nn.Sequential(*layers[: last + 1])
        self.tapped = tuple(TAPS.index(tap) for tap in s.taps)
        self.channels = sum(facts[number][0] for number in self.tapped)
        self.stride = min(facts[number][1] for number in self.tapped)
        self.freeze_norms("trained" if folded else s.batch_norm)

    def forward(self, image: Tensor) -> Tensor:
        x, taps = image, []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in self.tapped:
                taps.append(x)
        return join(taps)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fold the norms of a state dict that has them, where this encoder has none."""
        return fold(state) if self.settings.batch_norm == "folded" else state

    def foreign(self, key: str) -> bool:
        found = re.match(r"features\.(\d+)\.", key)
        return found is not None and int(found[1]) < len(self.features)


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply each batch norm into the convolution before it, and close the gap in the names.

    Without norms, ``conv.0.0`` and ``conv.0.1`` (convolution, norm) of a block are ``conv.0``,
    ``conv.1.0`` and ``conv.1.1`` are ``conv.2``, and so on: a ReLU6 stands in between.
    """
    if not any(key.endswith("running_var") for key in state):
        return state
    result = {}
    for key, weight in state.items():
        found = re.fullmatch(r"(features\.\d+)((?:\.conv)?)((?:\.\d+)+)\.weight", key)
        if not found or weight.dim() != 4:
            continue
        numbers = [int(number) for number in found[3].split(".")[1:]]
        before = key[: -len("weight")]
        norm = f"{key[: -len(f'{numbers[-1]}.weight')]}{numbers[-1] + 1}."
        names = [norm + part for part in ("weight", "bias", "running_mean", "running_var")]
        if any(name not in state for name in names):
            continue  # then it is missing, and said to be
        scale, shift, mean, variance = (state[name].double() for name in names)
        factor = scale / torch.sqrt(variance + EPSILON)
        bias = state[before + "bias"].double() if before + "bias" in state else 0.0
        place = f"{found[1]}.conv.{2 * numbers[0]}" if found[2] else f"{found[1]}.0"
        result[f"{place}.weight"] = (weight.double() * factor[:, None, None, None]).float()
        result[f"{place}.bias"] = ((bias - mean) * factor + shift).float()
    return result
