"""PANet in torch, from picture to labels, without the runtime's kernels for matching.

A second way to the same figures: if a bundle and its checkpoint differ by more than rounding, one
of the two is wrong. It also evaluates at the size that a protocol names, where a bundle has one
size of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fsseg_sdk import Box, Scribble, ops
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.settings import settings_to_json
from fsseg_sdk.preprocess import Geometry, plan
from training.datasets import IGNORE
from training.evaluation.protocols import Protocol
from training.prototypes import background_parts, match, pool
from training.remembering import RememberingGraph
from training.torch_graph import TorchGraph


@dataclass(frozen=True)
class Row:
    """One shot. foreground: ``[C]``; background: ``[parts, C]``; mass: ``[parts]``, the pixels of
    each, 0 for a part that stands for nothing."""

    foreground: Tensor
    background: Tensor
    mass: Tensor


class TorchPredictor:
    """An encoder with PANet's prototypes.

    Args:
        settings: as the runtime's method has them; background must be "mean-of-shots".
        protocol: says the size and geometry of the input.
        most_bytes: of features that are kept, in float16; 0 keeps none.
    """

    def __init__(
        self,
        encoder: Any,
        settings: PanetSettings,
        protocol: Protocol,
        facts: Mapping[str, Any],
        *,
        bfloat16: bool = False,
        most_bytes: int = 0,
    ) -> None:
        if settings.background != "mean-of-shots":
            raise ValueError(
                f"background: expected mean-of-shots, got {settings.background}. Take the "
                "runtime's panet."
            )
        self.scale, self.parts = settings.scale, settings.background_parts
        self.refine = settings.refine_weak
        self.encoder, self.protocol = encoder, protocol
        self.multiple = int(getattr(encoder, "multiple", 1))  # a ViT's patch
        size = protocol.input_size((448, 448), self.multiple)
        graph = TorchGraph(encoder, size, bfloat16=bfloat16)
        self.graph = RememberingGraph(graph, most_bytes, half=most_bytes > 0)
        self._last: tuple[object, Tensor, Geometry] | None = None
        if protocol.side is None:
            what = "the picture's own size"
        else:
            what = f"{size[0]} x {size[1]}, {protocol.geometry}"
        if self.multiple > 1:
            what += f" (sides are multiples of the patch, {self.multiple})"
        self.facts: dict[str, Any] = {
            **facts,
            "method": "panet",
            "settings": {
                name: value
                for name, value in sorted(settings_to_json(settings).items())
                if name != "presence"
            },
            "precision": graph.precision,
            "input": what,
        }

    @property
    def times(self) -> Sequence[float]:
        return self.graph.times

    def _encode(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, Geometry]:
        """``[1, C, h, w]`` and how the picture lies in the input."""
        height, width = pixels.shape[:2]
        size = self.protocol.input_size((height, width), self.multiple)
        geometry = plan(self.protocol.geometry, (height, width), size)
        image = ops.preprocess(
            np.ascontiguousarray(pixels),
            size,
            geometry.content,
            self.encoder.mean,
            self.encoder.std,
            threads=1,
        )
        return torch.from_numpy(self.graph.run({"image": image})["features"]), geometry

    def _query(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, Geometry]:
        """Unit features; kept while the same picture is asked again."""
        if self._last is None or self._last[0] is not pixels:
            features, geometry = self._encode(pixels)
            self._last = pixels, F.normalize(features, dim=1, eps=1e-8), geometry
        return self._last[1], self._last[2]

    @torch.inference_mode()
    def summarise(self, pixels: NDArray[np.uint8], marks: Sequence[object]) -> list[Any]:
        features, geometry = self._encode(pixels)
        grid = (features.shape[-2], features.shape[-1])
        rows, columns = _matrices(geometry.image_size, geometry, grid)
        found = []
        for mark in marks:
            planes = _planes(mark, pixels.shape[:2])
            weights = (rows.T @ planes @ columns)[None]
            if self.refine and not isinstance(mark, np.ndarray):
                weights[:, :1] = self._refined(features, weights)
            shown, scene = pool(features, weights[:, :2])[0].unbind()
            mass = weights[0, 1].sum()[None]
            parts = scene[None]
            if self.parts > 1:
                parts = background_parts(features, weights[:, 1], self.parts)[0]
                nearest = match(features, parts[None], 1.0)[0].argmax(0)
                mass = torch.stack([weights[0, 1][nearest == n].sum() for n in range(self.parts)])
            found.append(Row(shown, parts, mass))
        return found

    def _refined(self, features: Tensor, weights: Tensor) -> Tensor:
        """What the shot's own prototypes find where the class may be; the box or strokes where
        they find nothing of it."""
        found = match(features, pool(features, weights[:, :2]), 1.0)
        refined = weights[:, 2:] * (found[:, :1] > found[:, 1:])
        return refined if (refined * (weights[:, :1] > 0)).sum() > 0 else weights[:, :1]

    takes_auxiliary = False

    def summarise_auxiliary(self, pixels: NDArray[np.uint8]) -> Any:
        raise ValueError("method panet: learns from labelled pictures only. Take another method.")

    @torch.inference_mode()
    def segment(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        sizes: Sequence[tuple[int, int]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> list[NDArray[np.uint8]]:
        return self._match(pixels, *self._prototypes(ways), sizes)

    @torch.inference_mode()
    def timed(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> float:
        prototypes, scenes = self._prototypes(ways)
        self._last, before = None, self.graph.seconds
        begin = perf_counter()
        self._match(pixels, prototypes, scenes, [(pixels.shape[0], pixels.shape[1])])
        return perf_counter() - begin - (self.graph.seconds - before)

    def _prototypes(self, ways: Sequence[Sequence[Row]]) -> tuple[Tensor, int]:
        """``[P + N, C]`` of unit length, and P: those of the background come first."""
        classes = torch.stack([torch.stack([r.foreground for r in rows]).mean(0) for rows in ways])
        scene = self._scene(ways)
        return F.normalize(torch.cat([scene, classes]), dim=1, eps=1e-8), len(scene)

    def _match(
        self,
        pixels: NDArray[np.uint8],
        prototypes: Tensor,
        scenes: int,
        sizes: Sequence[tuple[int, int]],
    ) -> list[NDArray[np.uint8]]:
        unit, geometry = self._query(pixels)
        cosines = torch.einsum("bchw,pc->bphw", unit, prototypes)
        background = cosines[:, :scenes].amax(1, keepdim=True)
        logits = self.scale * torch.cat([background, cosines[:, scenes:]], 1)
        return [_labels(logits[0], geometry, size) for size in sizes]

    def _scene(self, ways: Sequence[Sequence[Row]]) -> Tensor:
        """``[P, C]``: the background of shots, averaged by way and over ways (PANet); with several
        parts, those of all shots in as many groups."""
        with_some = [[r for r in rows if r.mass.sum() > 0] for rows in ways]
        with_some = [rows for rows in with_some if rows]
        vectors, weights = [], []
        for rows in with_some:
            for row in rows:
                share = row.mass / row.mass.sum() / (len(rows) * len(with_some))
                vectors.append(row.background)
                weights.append(share)
        if not vectors:
            return ways[0][0].background[:1] * 0
        every, mass = torch.cat(vectors), torch.cat(weights)
        if self.parts == 1:
            return (every * mass[:, None]).sum(0, keepdim=True)
        every, mass = every[mass > 0], mass[mass > 0]
        if len(vectors) == 1:
            return every
        return _gathered(every.double(), mass.double(), self.parts).float()


def _gathered(vectors: Tensor, weights: Tensor, parts: int, steps: int = 10) -> Tensor:
    """``[n, C], [n] -> [P, C]``, P <= parts: k-means by cosine, every vector in one group. It
    starts from the mean and then from the vector least like those before it."""
    unit = F.normalize(vectors, dim=1)
    centres = (vectors * weights[:, None]).sum(0, keepdim=True) / weights.sum()
    while len(centres) < parts:
        unlike = 1 - (unit @ F.normalize(centres, dim=1).T).amax(1)
        centres = torch.cat([centres, vectors[unlike.argmax()][None]])
    for _ in range(steps + 1):
        nearest = (F.normalize(centres, dim=1) @ unit.T).argmax(0)
        own = F.one_hot(nearest, parts).T * weights
        mass = own.sum(1, keepdim=True)
        centres = torch.where(mass > 0, own @ vectors / mass.clamp_min(1e-12), centres)
    return centres[mass[:, 0] > 0]


def _planes(mark: object, size: tuple[int, int]) -> Tensor:
    """``[3, H, W]``: foreground, background, and where the class may be."""
    if isinstance(mark, (Box, Scribble)):
        marked = mark.mark(size, "support")
        planes = np.stack([marked.foreground, marked.background, marked.possible])
    else:
        mask = np.asarray(mark)
        shown = mask == 1
        planes = np.stack([shown, ~shown & (mask != IGNORE), shown])
    return torch.from_numpy(planes.astype(np.float32))


def _matrices(
    size: tuple[int, int], geometry: Geometry, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """``[H, h], [W, w]``: a picture of ``size`` out of the cells that it lies on."""
    extent = geometry.extent(grid)
    return _axis(size[0], extent[0], grid[0]), _axis(size[1], extent[1], grid[1])


@lru_cache(maxsize=256)
def _axis(pixels: int, extent: float, cells: int) -> Tensor:
    """``[pixels, cells]``: bilinear interpolation (align_corners=False) of the first ``extent``
    cells of one axis; beyond the outermost centres, the outermost cell."""
    last = math.ceil(extent) - 1
    place = ((torch.arange(pixels) + 0.5) * (extent / pixels) - 0.5).clamp(0, last)
    low = place.floor().long()
    matrix = torch.zeros(pixels, cells)
    rows, share = torch.arange(pixels), place - low
    matrix[rows, low] += 1 - share
    matrix[rows, (low + 1).clamp_max(last)] += share
    return matrix


def _labels(logits: Tensor, geometry: Geometry, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The largest of ``[1 + N, h, w]`` after bilinear upsampling to the picture at ``size``."""
    rows, columns = _matrices(size, geometry, (logits.shape[-2], logits.shape[-1]))
    upsampled = rows @ logits @ columns.T
    if len(upsampled) == 2:  # several times faster than argmax
        return (upsampled[1] > upsampled[0]).numpy().view(np.uint8)
    return upsampled.argmax(0).to(torch.uint8).numpy()
