"""VGG-16 in the forms that few-shot papers use, with torchvision's key names.

Simonyan and Zisserman, ICLR 2015; as a fully convolutional net Long et al., CVPR 2015.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from training.encoders.base import Encoder, check_output_stride, check_taps, join

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
TAPS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


@dataclass(frozen=True)
class VGGSettings:
    """Form of a VGG-16.

    taps: stages whose outputs are the features, after their last ReLU and before their pool;
        nothing after the last is built.
    output_stride: pools beyond it do not stride, and what follows is dilated instead.
    pool: kernel of the pools; 3 (with a border of 1) as in PANet, 2 as in torchvision.
    dense_pool: a pool that does not stride is kept with stride 1, or removed (SMCP).
    fc: layers after conv5. "3x3": two new dilated 3x3 convolutions of 512 channels, without
        pool5 (SMCP). "7x7": the classifier's fc6 and fc7 as convolutions, 4,096 channels, behind
        pool5 (FCN-32s; with a border, where Long et al. pad the picture by 100).
    last_relu: of the last tap.
    dropout: after fc6 and fc7 of "7x7", while training.
    """

    taps: tuple[str, ...] = ("conv5",)
    output_stride: int = 8
    pool: int = 3
    dense_pool: Literal["stride 1", "removed"] = "stride 1"
    fc: Literal["3x3", "7x7"] = "3x3"
    last_relu: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_taps(self.taps, TAPS)
        check_output_stride(self.output_stride)
        if self.pool not in (2, 3):
            raise ValueError(f"pool: expected 2 or 3, got {self.pool}. Choose one of them.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share in [0, 1), got {self.dropout}.")


class DensePool(nn.Module):
    """A pool with stride 1 that sees what the strided pool sees, at every position.

    ``[B, C, h, w]`` after a ReLU: the border's zeros are never above what is there.
    """

    def __init__(self, kernel: int, dilation: int) -> None:
        super().__init__()
        # 3x3 looks one step to all sides; 2x2 one step to the right and down
        self.border = (dilation if kernel == 3 else 0, dilation) * 2
        self.pool = nn.MaxPool2d(kernel, 1, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.pad(x, self.border))


class VGG16(Encoder):
    """Convolutions and pools in ``features``, FCN's layers in ``classifier``, SMCP's in ``fc6``
    and ``fc7``.

    ``h`` and ``w`` are rounded up with 3x3 pools, down with 2x2.
    """

    def __init__(self, settings: VGGSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or VGGSettings()
        built = TAPS[: TAPS.index(s.taps[-1]) + 1]
        self.reached, self.dilation = 1, 1
        self.features = nn.Sequential()
        self.ends: dict[str, str] = {}  # path of a stage's last layer -> the stage
        facts: dict[str, tuple[int, int]] = {}
        channels = 3
        for name, widths in zip(built, WIDTHS, strict=False):
            if name != "conv1":
                self.features.append(self._pool())
            for width in widths:
                d = self.dilation
                self.features.extend((nn.Conv2d(channels, width, 3, 1, d, d), nn.ReLU()))
                channels = width
            self.features[len(self.features) - 1] = self._relu(name)
            self.ends[f"features.{len(self.features) - 1}"] = name
            facts[name] = (channels, self.reached)
        self.path = [f"features.{number}" for number in range(len(self.features))]
        if "fc6" in built:
            add = self._add_3x3 if s.fc == "3x3" else self._add_7x7
            width = add(built[len(WIDTHS) :])
            facts.update(dict.fromkeys(built[len(WIDTHS) :], (width, self.reached)))
        self.channels = sum(facts[tap][0] for tap in s.taps)
        self.stride = min(facts[tap][1] for tap in s.taps)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torch's own start would shrink the signal at each of these layers without norms
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _pool(self) -> nn.Module:
        s = self.settings
        if self.reached < s.output_stride:
            self.reached *= 2
            return nn.MaxPool2d(s.pool, 2, 1 if s.pool == 3 else 0)
        before, self.dilation = self.dilation, self.dilation * 2
        return DensePool(s.pool, before) if s.dense_pool == "stride 1" else nn.Identity()

    def _relu(self, name: str) -> nn.Module:
        last = name == self.settings.taps[-1] and not self.settings.last_relu
        return nn.Identity() if last else nn.ReLU()

    def _add_3x3(self, names: tuple[str, ...]) -> int:
        # SMCP dilates them by 4 at stride 8: twice conv5, though no pool5 is between
        d = self.dilation * 2
        for name in names:
            conv = nn.Conv2d(512, 512, 3, 1, d, d)
            self.add_module(name, nn.Sequential(conv, self._relu(name)))
            self.path.append(name)
            self.ends[name] = name
        return 512

    def _add_7x7(self, names: tuple[str, ...]) -> int:
        self.features.append(self._pool())
        self.classifier = nn.Sequential()
        d = self.dilation
        convs = (nn.Conv2d(512, 4096, 7, 1, 3 * d, d), nn.Conv2d(4096, 4096, 1))
        for name, conv in zip(names, convs, strict=False):
            self.classifier.extend((conv, self._relu(name), nn.Dropout(self.settings.dropout)))
            self.ends[f"classifier.{len(self.classifier) - 1}"] = name
        self.path.append(f"features.{len(self.features) - 1}")
        self.path += [f"classifier.{number}" for number in range(len(self.classifier))]
        return 4096

    def forward(self, image: Tensor) -> Tensor:
        x, taps = image, []
        for path in self.path:
            x = self.get_submodule(path)(x)
            if self.ends.get(path) in self.settings.taps:
                taps.append(x)
        return join(taps)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's matrices of the classifier as convolutions."""
        sides = {"classifier.0.weight": 7, "classifier.3.weight": 1}
        result = dict(state)
        for key, side in sides.items():
            matrix = state.get(key)
            if matrix is not None and matrix.dim() == 2 and matrix.shape[1] % side**2 == 0:
                result[key] = matrix.reshape(matrix.shape[0], -1, side, side)
        return result

    def foreign(self, key: str) -> bool:
        found = re.match(r"features\.(\d+)\.", key)
        return found is not None and int(found[1]) < len(self.features)

    def fresh(self, key: str) -> bool:
        return key.startswith(("fc6.", "fc7."))
