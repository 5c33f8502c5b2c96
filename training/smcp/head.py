"""SMCP's segmentation head: a prototype beside every cell, a pyramid of scales, a classifier.

SMCP (Chen et al.), sections III-B and III-D, figure 3. The first convolution is linear in its
input, so the query's share and the prototype's can be computed apart and added: a picture's share
serves every prototype, a prototype's every picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DILATIONS = (6, 12, 18, 24)
NARROWING = 8  # 512 channels to the 64 inside of a residual block


@dataclass(frozen=True)
class HeadSettings:
    """Form of the head.

    form: "paper", or "official" with two more 3x3 convolutions after the pyramid's sum, as in the
        published code.
    pyramid: the pyramid feature fusion; False is the paper's base network, in which one 3x3
        convolution stands in its place.
    width: channels between the convolutions, a multiple of 8; 512 is the paper's.
    """

    form: Literal["paper", "official"] = "paper"
    pyramid: bool = True
    width: int = 512

    def __post_init__(self) -> None:
        if self.width < NARROWING or self.width % NARROWING:
            raise ValueError(f"width: expected a multiple of {NARROWING}, got {self.width}")


def border_masks(height: int, width: int) -> Tensor:
    """``[9, h * w]``: 1 where that tap of a 3x3 convolution lies inside the map, 0 where it meets
    the zeros around it. Taps row by row."""
    return F.unfold(torch.ones(1, 1, height, width), 3, padding=1)[0]


class Classifier(nn.Module):
    """The sum of four dilated 3x3 convolutions, ``[B, C, h, w] -> [B, classes, h, w]``."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in DILATIONS
        )
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.parts
        found: Tensor = first(x)
        for part in others:
            found = found + part(x)
        return found


class Head(nn.Module):
    """Logits of background and class, from features and the class's prototype.

    Args:
        channels: C, of the features and of prototypes.
        settings: see :class:`HeadSettings`.
    """

    def __init__(self, channels: int, settings: HeadSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or HeadSettings()
        self.channels, width, narrow = channels, s.width, s.width // NARROWING
        self.fuse = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.levels, self.deepen, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        if s.pyramid:
            self.levels.extend(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
            more = 2 if s.form == "official" else 0
            self.deepen.extend(nn.Conv2d(width, width, 3, padding=1) for _ in range(more))
            for _ in range(2):
                self.blocks.append(
                    nn.Sequential(
                        nn.Conv2d(width, narrow, 1),
                        nn.ReLU(),
                        nn.Conv2d(narrow, narrow, 3, padding=1),
                        nn.ReLU(),
                        nn.Conv2d(narrow, width, 1),
                    )
                )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torch's own start would shrink the signal at each of these layers without norms
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.classifier = Classifier(width, 2)

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """The definition: ``[B, C, h, w], [B, C] -> [B, 2, h, w]``, every row with its own
        prototype, which is tiled over the map and concatenated."""
        tiled = prototypes[:, :, None, None].expand(-1, -1, *features.shape[-2:])
        return self._after(self.fuse(torch.cat([features, tiled], 1)))

    def query_share(self, features: Tensor) -> Tensor:
        """``[B, C, h, w] -> [B, width, h, w]``: what the features add to the first convolution,
        its bias among it."""
        own = self.fuse.weight[:, : self.channels]
        return F.conv2d(features, own, self.fuse.bias, padding=1)

    def prototype_share(self, prototypes: Tensor) -> Tensor:
        """``[N, C] -> [N, width, 9]``: what prototypes add at each of the nine taps."""
        own = self.fuse.weight[:, self.channels :].flatten(2)
        return torch.einsum("oct,nc->not", own, prototypes)

    def from_shares(self, query: Tensor, shares: Tensor) -> Tensor:
        """``[1 or N, width, h, w], [N, width, 9] -> [N, 2, h, w]``: the same logits as
        :meth:`forward`; a prototype adds the taps that lie inside the map."""
        height, width = int(query.shape[-2]), int(query.shape[-1])
        inside = border_masks(height, width).to(shares)
        return self._after(query + (shares @ inside).reshape(*shares.shape[:2], height, width))

    def _after(self, x: Tensor) -> Tensor:
        """All that follows the first convolution."""
        x = F.relu(x)
        if self.settings.pyramid:
            x = self._pyramid(x)
        for conv in self.deepen:
            x = F.relu(conv(x))
        for block in self.blocks:
            x = F.relu(x + block(x))
        found: Tensor = self.classifier(x)
        return found

    def _pyramid(self, x: Tensor) -> Tensor:
        """The sum of what is seen at 1, 1/2 and 1/4 of the size."""
        size, found = x.shape[-2:], F.relu(self.levels[0](x))
        for conv in list(self.levels)[1:]:
            x = F.avg_pool2d(x, 3, 2, 1)
            seen = F.relu(conv(x))
            found = found + F.interpolate(seen, size, mode="bilinear", align_corners=False)
        return found


def load_head(tensors: Mapping[str, Tensor]) -> Head:
    """The head whose tensors a checkpoint holds as ``head.*``; its form is read off them.

    Raises:
        ValueError: they are not those of one head; says which does not fit.
    """
    own = {k.removeprefix("head."): t for k, t in tensors.items() if k.startswith("head.")}
    if "fuse.weight" not in own:
        raise ValueError(
            f"head: expected head.fuse.weight among the tensors, got {len(own)} of a head. "
            "Take a checkpoint of `python -m training smcp`."
        )
    settings = HeadSettings(
        form="official" if "deepen.0.weight" in own else "paper",
        pyramid="levels.0.weight" in own,
        width=len(own["fuse.weight"]),
    )
    head = Head(own["fuse.weight"].shape[1] // 2, settings)
    wanted = {k: tuple(t.shape) for k, t in head.state_dict().items()}
    got = {k: tuple(t.shape) for k, t in own.items()}
    if wrong := sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k)):
        name = wrong[0]
        raise ValueError(
            f"head.{name}: expected {wanted.get(name, 'no such tensor')}, got "
            f"{got.get(name, 'no such tensor')}. The file is damaged, or of another version."
        )
    head.load_state_dict(own)
    return head
