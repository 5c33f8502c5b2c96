"""ResNets dilated to a chosen stride, cut off after the last tap, with torchvision's key names.

He et al., CVPR 2016. The last ReLU is left out by default: it would fold all features into one
orthant, where cosines tell less apart (PANet and MLC leave it out, too).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.encoders.base import BatchNorm, Encoder, check_output_stride, check_taps, join

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
# the deep stem's names where it is one nn.Sequential (MLC, SSP), and where it is flat (PSPNet)
NESTED_STEM = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3"}


@dataclass(frozen=True)
class ResNetSettings:
    """Form of a ResNet.

    taps: layers whose outputs are the features; nothing after the last is built.
    output_stride: strides beyond it become dilation.
    stem: one 7x7 convolution, or three 3x3 of 64, 64 and 128 channels.
    variant: bottlenecks stride in their first 1x1 (v1: Keras, MSRA) or in their 3x3 (v1.5:
        torchvision, PSPNet). Both have the same tensors, so no file shows which it is.
    dilate_first: is the first block of a dilated layer dilated, too? False is torchvision's and
        MLC's way, and with v1.5 computes what the strided net does, in between as well. True is
        PSPNet's way, and does that with v1.
    last_relu: of the last tap.
    """

    depth: int = 50
    taps: tuple[str, ...] = ("layer3",)
    output_stride: int = 8
    stem: Literal["7x7", "deep"] = "7x7"
    variant: Literal["v1", "v1.5"] = "v1"
    dilate_first: bool = False
    last_relu: bool = False
    batch_norm: BatchNorm = "statistics-frozen"

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ValueError(f"depth: expected one of {sorted(BLOCKS)}, got {self.depth}.")
        check_taps(self.taps, LAYERS)
        check_output_stride(self.output_stride)


class BasicBlock(nn.Module):
    """3x3, 3x3 with a shortcut; strides in the first."""

    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        dilations: tuple[int, int],
        variant: str,
        last_relu: bool,
    ) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(channels, width, 3, stride, first, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, second, second, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.last_relu = last_relu
        self.downsample = downsample(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + shortcut
        return self.relu(y) if self.last_relu else y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        dilations: tuple[int, int],
        variant: str,
        last_relu: bool,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if variant == "v1" else (1, stride)
        dilation = dilations[0]
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.last_relu = last_relu
        self.downsample = downsample(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + shortcut
        return self.relu(y) if self.last_relu else y


def downsample(channels: int, out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(Encoder):
    """Stem and layers; ``h`` and ``w`` are rounded up. ``channels`` is 1,024 for layer3 of 50."""

    def __init__(self, settings: ResNetSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or ResNetSettings()
        self.depth_of_stem = 1 if s.stem == "7x7" else 3
        if s.stem == "7x7":
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        else:
            for number, (inner, outer) in enumerate(((3, 64), (64, 64), (64, 128)), 1):
                stride = 2 if number == 1 else 1
                conv = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
                self.add_module(f"conv{number}", conv)
                self.add_module(f"bn{number}", nn.BatchNorm2d(outer))
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers = LAYERS[: LAYERS.index(s.taps[-1]) + 1]
        block = BasicBlock if s.depth == 18 else Bottleneck
        channels, reached, dilation = 64 if s.stem == "7x7" else 128, 4, 1
        facts: list[tuple[int, int]] = []
        for index, name in enumerate(self.layers):
            stride, before = 1 if index == 0 else 2, dilation
            if stride * reached > s.output_stride:  # the stride becomes dilation
                stride, dilation = 1, dilation * 2
            reached *= stride
            layer = nn.Sequential()
            for number in range(BLOCKS[s.depth][index]):
                first = before if number == 0 and not s.dilate_first else dilation
                step, width = stride if number == 0 else 1, 64 << index
                last = name == self.layers[-1] and number == BLOCKS[s.depth][index] - 1
                relu = s.last_relu or not last
                layer.append(block(channels, width, step, (first, dilation), s.variant, relu))
                channels = block.expansion * width
            self.add_module(name, layer)
            if name in s.taps:
                facts.append((channels, reached))
        self.channels, self.stride = sum(c for c, _ in facts), min(r for _, r in facts)
        self.freeze_norms(s.batch_norm)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for number in range(1, self.depth_of_stem + 1):
            conv, norm = self.get_submodule(f"conv{number}"), self.get_submodule(f"bn{number}")
            x = self.relu(norm(conv(x)))
        x = self.maxpool(x)
        taps = []
        for name in self.layers:
            x = self.get_submodule(name)(x)
            if name in self.settings.taps:
                taps.append(x)
        return join(taps)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both namings of the deep stem."""
        if "conv1.0.weight" not in state:
            return state

        def flat(key: str) -> str:
            found = re.fullmatch(r"conv1\.(\d+)\.(\w+)", key)
            if found and found[1] in NESTED_STEM:
                return f"{NESTED_STEM[found[1]]}.{found[2]}"
            return re.sub(r"^bn1\.", "bn3.", key)

        return {flat(key): value for key, value in state.items()}

    def foreign(self, key: str) -> bool:
        part = key.split(".")[0]
        return part in self.layers or re.fullmatch(r"(conv|bn)\d", part) is not None
