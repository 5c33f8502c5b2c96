"""One vector for each object and each region of the background of every training picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from fsseg_sdk import ops
from training.datasets import Sample
from training.files import write_whole
from training.prototypes import grid_weights, pool

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PictureEncoder:
    """An encoder that sees whole pictures squashed to ``side x side``, as training shows them."""

    encoder: Any
    side: int
    precision: str
    device: torch.device

    def features(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """``[H, W, 3] uint8`` of any sizes ``-> [B, C, h, w]`` float32."""
        square, own = (self.side, self.side), self.encoder
        inputs = np.concatenate(
            [
                ops.preprocess(np.ascontiguousarray(p), square, square, own.mean, own.std)
                for p in pictures
            ]
        )
        half = PRECISIONS[self.precision]
        kind = self.device.type
        with torch.inference_mode(), torch.autocast(kind, half, enabled=half is not None):
            features: Tensor = own(torch.from_numpy(inputs).to(self.device))
        return features.float()


@dataclass(frozen=True)
class Part:
    """An object, or a region of the background. identity: its class; 0 for the background."""

    mask: NDArray[np.bool_]
    identity: int


def parts_of(
    sample: Sample, labels: NDArray[Any], regions: NDArray[np.uint16], least: float
) -> list[Part]:
    """Objects first, by class; then what each region has of the background.

    Args:
        labels: ``[H, W]`` class ids as training sees them: 0 is background, 255 neither.
        regions: ``[H, W]`` region numbers.
        least: smaller parts of the picture are left out.
    """
    parts = []
    for identity in sorted(sample.classes):
        shown = labels == identity
        objects = sample.instances(identity)
        if objects is None:
            count, numbers = cv2.connectedComponents(shown.astype(np.uint8))
            objects = [numbers == n for n in range(1, count)]
        parts += [Part(shown & one, identity) for one in objects]
    background = labels == 0
    parts += [Part(background & (regions == n), 0) for n in np.unique(regions[background])]
    fewest = max(1, least * labels.size)
    return [part for part in parts if np.count_nonzero(part.mask) >= fewest]


def pooled(features: Tensor, masks: Sequence[NDArray[np.bool_]]) -> Tensor:
    """Eq. 1: ``[C, h, w]`` and masks ``[H, W]`` of the picture's own size ``-> [P, C]``."""
    stacked = torch.from_numpy(np.stack(masks).astype(np.float32)).to(features.device)
    weights = grid_weights(stacked, (features.shape[1], features.shape[2]))
    return pool(features[None], weights[None])[0]


@dataclass(frozen=True)
class Corpus:
    """All vectors ``[n, C] float32``, and of each the picture's number, which of its parts it is,
    and the class (0: background)."""

    vectors: NDArray[np.float32]
    picture: NDArray[np.int32]
    part: NDArray[np.int32]
    identity: NDArray[np.int32]

    def of(self, foreground: bool) -> Corpus:
        """Objects alone, or regions of the background alone."""
        kept = (self.identity > 0) == foreground
        return Corpus(self.vectors[kept], self.picture[kept], self.part[kept], self.identity[kept])


def write_vectors(
    file: Path, found: Sequence[tuple[int, list[Part], Tensor]], channels: int
) -> None:
    """Keep the vectors of some pictures: ``(the picture's number, its parts, [P, C])`` each."""
    none = torch.zeros(0, channels)
    content = {
        "vectors": torch.cat([none, *(vectors.cpu() for _, _, vectors in found)]).numpy(),
        "picture": np.array([n for n, parts, _ in found for _ in parts], np.int32),
        "part": np.array([n for _, parts, _ in found for n in range(len(parts))], np.int32),
        "identity": np.array([part.identity for _, p, _ in found for part in p], np.int32),
    }
    write_whole(file, save(content))


def read_vectors(files: Sequence[Path]) -> Corpus:
    """
    Raises:
        ValueError: a file is missing or broken.
    """
    try:
        kept = [load_file(file) for file in files]
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{files[0].parent}: expected files of vectors, got one that does not parse or is "
            f"missing ({error}). Delete that folder and run again."
        ) from error
    names = ("vectors", "picture", "part", "identity")
    return Corpus(*(np.concatenate([content[name] for content in kept]) for name in names))


def in_lots(samples: Sequence[Sample], size: int) -> list[list[tuple[int, Sample]]]:
    """Numbered pictures in lots that never change, so that a lot is encoded alike each time."""
    numbered = enumerate(samples)
    return [list(lot) for _, lot in groupby(numbered, key=lambda pair: pair[0] // size)]
