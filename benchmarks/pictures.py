"""A labelled picture and a query at a camera's size, from the example pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "pictures"
SCREEN = (1080, 1920)


@dataclass(frozen=True)
class Pictures:
    """support, query: uint8 [H, W, 3]; mask: uint8 [H, W] of 0 and 1."""

    support: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    query: NDArray[np.uint8]

    def jpeg(self, quality: int = 92) -> bytes:
        """The query as a file of a camera."""
        file = io.BytesIO()
        Image.fromarray(self.query).save(file, "JPEG", quality=quality)
        return file.getvalue()


def pictures_of(size: tuple[int, int] = SCREEN, grain: float = 3.0) -> Pictures:
    """The bolt and the bench of the examples, cut to the shape of ``size`` (H, W) and scaled to it.

    Grain as a sensor has it (in grey levels) is added to the query: without, an enlarged picture
    would decode faster than a photograph.
    """
    query = np.asarray(_scaled("bolt-bench.webp", size), np.float32)
    noise = np.random.default_rng(0).standard_normal((*size, 1), dtype=np.float32)
    grainy = np.clip(query + grain * noise + 0.5, 0, 255).astype(np.uint8)
    mask = np.asarray(_scaled("bolt-support.bolt.png", size)) > 0
    return Pictures(np.asarray(_scaled("bolt-support.webp", size)), mask.astype(np.uint8), grainy)


def _scaled(name: str, size: tuple[int, int]) -> Image.Image:
    height, width = size
    with Image.open(EXAMPLES / name) as file:
        label = file.mode == "P"
        image = file.copy() if label else file.convert("RGB")
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    method = Image.Resampling.NEAREST if label else Image.Resampling.BICUBIC
    return image.resize((width, height), method, box=box)
