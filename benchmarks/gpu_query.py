"""A query on the ops alone, on the CPU or a device: what benchmarks.gpu_pipeline captures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_encoder import MEAN, STD, features_of
from fsseg_sdk import ops


class Host:
    """The ops on the CPU, in the words of `Device`."""

    def array(self, tensor: torch.Tensor) -> Any:
        return np.ascontiguousarray(tensor.detach().float().numpy())

    def tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array)


class Query:
    """panet, and srofb's way with every sure cell, on the ops alone; the support is cached."""

    def __init__(
        self, where: Any, encoder: Any, dtype: torch.dtype, side: int, hidden: int, pictures: Any
    ) -> None:
        """pictures: the support, and uint8 masks [2, H, W] of background and object, where ops
        run. side: of the encoder's input."""
        self.where, self.encoder, self.dtype, self.side = where, encoder, dtype, side
        support, masks = pictures
        self.features = self.encode([support])
        rows, columns = (int(n) for n in self.features.shape[2:])
        self.weights = where.tensor(ops.grid_weights(masks, (rows, columns)))[None].clone()
        pooled = ops.weighted_pool(self.features, where.array(self.weights))
        self.prototypes = where.array(where.tensor(pooled)[0].clone())
        start = ops.online_mlp_start(int(self.features.shape[1]), hidden, 2)
        zero = start._replace(
            output_weight=0 * start.output_weight, output_bias=0 * start.output_bias
        )
        kind = self.weights.device
        self.start = ops.Mlp(*(where.array(torch.from_numpy(a).to(kind)) for a in zero))

    def images(self, frames: Sequence[Any]) -> torch.Tensor:
        size = (self.side, self.side)
        made = [self.where.tensor(ops.preprocess(f, size, size, MEAN, STD)) for f in frames]
        return torch.cat(made)

    def encode(self, frames: Sequence[Any]) -> Any:
        return self.where.array(features_of(self.encoder, self.images(frames), self.dtype))

    def scores(self, method: str, features: Any, maps: torch.Tensor | None) -> Any:
        """maps: the features as torch sees them, for srofb, which learns picture by picture."""
        rough = ops.cosine_match(features, self.prototypes, 20.0)
        if method == "panet":
            return rough
        where, made = self.where, []
        all_rough = where.tensor(rough)
        chances = all_rough.softmax(dim=1)
        sure = torch.stack([chances[:, 0] >= 0.6, chances[:, 1] >= 0.7], dim=1).float()
        for index, own in enumerate(sure):
            part = where.array(_known(maps)[index : index + 1])
            mass = (self.weights[0] + own).sum(dim=(1, 2))[:, None, None]
            share = 0.5 / mass.clamp(min=1e-6)
            samples = [
                (self.features, where.array(self.weights * share)),
                (part, where.array((own * share)[None])),
            ]
            fit = ops.online_mlp_fit(
                samples, self.start, iterations=10, learning_rate=0.1, length=8.0, precision="bf16"
            )
            found = ops.online_mlp_scores(part, fit.mlp, length=8.0, precision="bf16")
            made.append(0.5 * all_rough[index : index + 1] + 0.5 * where.tensor(found))
        return where.array(torch.cat(made))

    def labels(self, method: str, frames: Sequence[Any], size: tuple[int, int]) -> Any:
        maps = features_of(self.encoder, self.images(frames), self.dtype)
        return ops.upsample_argmax(self.scores(method, self.where.array(maps), maps), size)


def _known(maps: torch.Tensor | None) -> torch.Tensor:
    if maps is None:
        raise ValueError("maps: expected the features for srofb, got None")
    return maps


def overlap(found: Any, expected: Any) -> float:
    """The smaller IoU of background and object; of a class that neither has, 1."""
    pairs = [((found == k), (expected == k)) for k in (0, 1)]
    return min(
        float((a & b).sum() / max((a | b).sum(), 1)) if (a | b).any() else 1.0 for a, b in pairs
    )
