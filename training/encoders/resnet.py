"""ResNet-50 without layer4 and the last ReLU, dilated to stride 8, with torchvision's key names.

A last ReLU would fold all features into one orthant, where cosines tell less apart (PANet and MLC
leave it out too).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; ``v1`` strides in the first 1x1, ``v1.5`` in the 3x3."""

    def __init__(
        self, channels: int, width: int, stride: int, dilation: int, variant: str, last_relu: bool
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if variant == "v1" else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.last_relu = last_relu
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + shortcut
        return self.relu(y) if self.last_relu else y


class ResNet(nn.Module):
    """Stem and layers 1 to 3: ``[B, 3, H, W] -> [B, 1024, H / 8, W / 8]`` (sizes rounded up)."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    stride, channels = 8, 1024

    def __init__(self, blocks: tuple[int, int, int], variant: Literal["v1", "v1.5"] = "v1") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for index, (count, width, stride, dilation) in enumerate(
            zip(blocks, (64, 128, 256), (1, 2, 1), (1, 1, 2), strict=True), 1
        ):
            layer = nn.Sequential()
            for number in range(count):
                last = index == 3 and number == count - 1
                # as in torchvision, a dilated layer's first block keeps the dilation before it
                own = 1 if number == 0 else dilation
                layer.append(
                    Bottleneck(
                        channels, width, stride if number == 0 else 1, own, variant, not last
                    )
                )
                channels = 4 * width
            self.add_module(f"layer{index}", layer)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for index in (1, 2, 3):
            x = self.get_submodule(f"layer{index}")(x)
        return x

    def train(self, mode: bool = True) -> ResNet:
        """Batch norm stays frozen: an episode has too few pictures to estimate statistics from."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Load torchvision-style weights; layer4 and fc are left out."""
        own = self.state_dict()
        wanted = {k for k in own if not k.endswith("num_batches_tracked")}
        missing = sorted(wanted - set(state))
        if missing:
            raise ValueError(f"the state dict lacks {missing[:3]} ({len(missing)} tensors)")
        self.load_state_dict({k: state[k].float() for k in wanted}, strict=False)


def resnet50() -> ResNet:
    return ResNet((3, 4, 6))
