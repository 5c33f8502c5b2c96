"""Joint training of SPFL: pairs are segmented, extra pictures are told apart by pseudo labels.

Mei et al., "Activating the Discriminability of Novel Classes for Few-shot Segmentation",
section III-B.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from training.panet import Panet, PanetSettings
from training.spfl.decoders import Decoder, pseudo_loss
from training.spfl.stream import ViewSettings


@dataclass(frozen=True)
class SpflSettings:
    """Settings of the joint training.

    latents: folder of pseudo labels below the latents folder; ``{fold}`` in it stands for
        ``data.fold``. None only where every gamma is 0.
    gamma: weight of each level's loss, fine to coarse (eq. 5); a level of weight 0 has no decoder.
    extra: pictures with pseudo labels a step, over all processes.
    width: channels between a decoder's convolutions. The paper leaves it open.
    pixel_step: pseudo labels are learnt at every so many rows and columns of pixels; 1 is the
        paper's.
    views: how extra pictures are changed.
    panet: of the pairs' loss.
    """

    latents: str | None = None
    gamma: tuple[float, ...] = (0.5, 1.0, 1.0)
    extra: int = 16
    width: int = 256
    pixel_step: int = 1
    views: ViewSettings = field(default_factory=ViewSettings)
    panet: PanetSettings = field(default_factory=lambda: PanetSettings(scale=10.0, dice_weight=0.0))

    def __post_init__(self) -> None:
        if not self.gamma or min(self.gamma) < 0:
            raise ValueError(
                f"gamma: expected a weight of 0 or more for each level, got {list(self.gamma)}"
            )
        for name in ("extra", "width", "pixel_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.latents is None and self.levels:
            raise ValueError(
                "latents: expected a folder that `python -m training latents` wrote, got none. "
                "Name it, or set every gamma to 0."
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Numbers of the levels that are learnt."""
        return tuple(level for level, weight in enumerate(self.gamma) if weight > 0)


class Spfl(Panet):
    """The encoder, PANet's loss of pairs, and a decoder for each level of pseudo labels.

    Args:
        classes: labels of each level, fine to coarse.
    """

    helpers = ("decoders",)

    def __init__(self, encoder: Any, settings: SpflSettings, classes: Sequence[int] = ()) -> None:
        super().__init__(encoder, settings.panet)
        self.own = settings
        self.decoders = nn.ModuleDict(
            {
                str(level): Decoder(encoder.channels, settings.width, classes[level])
                for level in settings.levels
            }
        )

    def forward(
        self,
        pixels: Tensor,
        masks: Tensor,
        extra: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Loss of the pairs (see :meth:`Panet.forward`), plus that of the pictures
        ``extra [E, 1, S, S, 3] uint8`` by ``labels [E, 1, L, S, S] uint8``, 255 for unknown."""
        loss = super().forward(pixels, masks)
        self.figures = {"pairs": loss.detach()}
        if extra is None or labels is None:
            return loss
        features = self.features(extra.flatten(0, 1))
        for level in self.own.levels:
            logits = self.decoders[str(level)](features)
            own = pseudo_loss(logits, labels.flatten(0, 1)[:, level], self.own.pixel_step)
            self.figures[f"level{level + 1}"] = own.detach()
            loss = loss + self.own.gamma[level] * own
        return loss

    def runtime(self) -> dict[str, Any]:
        """SROFB as the paper has it: the network alone, at MLC's temperature."""
        own = {"panet": super().runtime()["settings"], "temperature": 10.0, "match_share": 0.0}
        return {"name": "srofb", "settings": own}
