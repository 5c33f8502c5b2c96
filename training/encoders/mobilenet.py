"""MobileNetV2 at stride 8 by dilation, batch norm folded.

Block order and names are torchvision's, without the norms.
"""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, repeats, stride of each stage (Sandler et al., CVPR 2018, table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(channels, width, 1), nn.ReLU6()]
        layers += [
            nn.Conv2d(width, width, 3, stride, dilation, dilation, groups=width),
            nn.ReLU6(),
            nn.Conv2d(width, out, 1),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """``[B, 3, H, W] -> [B, 96, H / 8, W / 8]``: features.0 to features.13."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    stride, channels = 8, 96

    def __init__(self, last: int = 13) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6())]
        channels, reached, dilation = 32, 2, 1
        for expansion, out, repeats, stride in STAGES:
            for number in range(repeats):
                step = stride if number == 0 else 1
                own = dilation
                if step == 2 and reached == self.stride:  # stride becomes dilation
                    step, dilation = 1, dilation * 2
                reached *= step
                layers.append(InvertedResidual(channels, out, step, own, expansion))
                channels = out
        self.features = nn.Sequential(*layers[: last + 1])

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Load weights whose batch norm has been folded; blocks after the last one are left out."""
        own = self.state_dict()
        missing = sorted(k for k in own if k not in state)
        if missing:
            raise ValueError(f"the state dict lacks {missing[:3]} ({len(missing)} tensors)")
        self.load_state_dict({k: state[k].float() for k in own})
