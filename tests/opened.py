"""Opened segmenters for tests: the tiny bundle on ONNX Runtime, or numpy instead of its graph."""

from __future__ import annotations

import functools
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Result, Segmenter
from fsseg_sdk.backends import TensorInfo
from tests import tiny
from tests.pictures import Scene, scene


@functools.cache
def tiny_segmenter(geometry: str = "squash", threads: int | None = 1) -> Segmenter:
    """The tiny bundle, from a file that is gone by the time it is used."""
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.tiny_bundle(Path(folder) / "tiny.fsseg", geometry=geometry)
        return Segmenter.load(path, threads=threads)


class NumpyGraph:
    """The tiny encoder in numpy. Counts the pictures of each call; can be slow on purpose."""

    backend, device = "numpy", "cpu"

    def __init__(
        self, batch: int = -1, delay: float = 0.0, precision: str = "fp32", device: str = "cpu"
    ) -> None:
        self.inputs = (TensorInfo("image", "float32", (batch, 3, *tiny.SIZE)),)
        self.outputs = (TensorInfo("features", "float32", (batch, tiny.CHANNELS, *tiny.GRID)),)
        self.precision = precision
        self.device = device
        self.delay = delay
        self.calls: list[int] = []
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            self.calls.append(len(feeds["image"]))
        time.sleep(self.delay)
        return {"features": tiny.tiny_features(feeds["image"]).astype(np.float32)}


def settings(method: Mapping[str, Any] | None = None, geometry: str = "squash") -> dict[str, Any]:
    """What the constructor needs to know of `NumpyGraph`."""
    return {
        "name": "by hand",
        "method": {"name": "panet", "settings": dict(method or {})},
        "input": {"size": tiny.SIZE, "geometry": geometry, "mean": tiny.MEAN, "std": tiny.STD},
        "features": {"channels": tiny.CHANNELS, "grid": tiny.GRID},
    }


def numpy_segmenter(
    graph: NumpyGraph | None = None,
    method: Mapping[str, Any] | None = None,
    geometry: str = "squash",
) -> Segmenter:
    """A segmenter on that graph, with these settings of panet."""
    return Segmenter({"encoder": graph or NumpyGraph()}, settings(method, geometry), threads=1)


def support(count: int = 2, size: tuple[int, int] = (96, 128)) -> dict[str, Any]:
    """Three classes, `count` shots each, every shot in a picture of its own class's seeds."""
    scenes = [scene(*size, seed=seed) for seed in range(count)]
    names = list(scenes[0].masks)
    return {name: [(each.pixels, each.masks[name]) for each in scenes] for name in names}


def query(seed: int = 50, size: tuple[int, int] = (96, 128)) -> Scene:
    return scene(*size, seed=seed)


def iou(found: NDArray[Any], truth: NDArray[Any]) -> float:
    union = np.logical_or(found, truth).sum()
    return float(np.logical_and(found, truth).sum() / union) if union else 1.0


def same(first: Result, second: Result) -> bool:
    """Whether two results are equal to the last bit."""
    return (
        np.array_equal(first.logits, second.logits)
        and np.array_equal(first.labels, second.labels)
        and first.present == second.present
        and first.classes == second.classes
    )
