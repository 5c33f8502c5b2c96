"""Pictures to features: the encoder's graph with what its bundle says about input and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .backends import DeviceGraph, Graph, TensorInfo
from .errors import BackendError
from .image import Picture
from .preprocess import Geometry, Kind, plan, preprocess

if TYPE_CHECKING:
    from .ops import DeviceContext

__all__ = ["Encoded", "Encoder"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """features: [B, C, h, w] float32; where each picture lies in them; seconds that each part
    took for the whole batch (on a device: to enqueue it). Features that stayed on a device are an
    `ops.DeviceArray`."""

    features: Any
    geometries: tuple[Geometry, ...]
    preprocess_seconds: float
    encoder_seconds: float


@dataclass(frozen=True, eq=False)
class Encoder:
    """A graph from pictures [B, 3, S_h, S_w] to features [B, C, h, w], both float32.

    geometry: how a picture of another shape is laid into the input ("squash" or "fit").
    mean, std: per channel, for pixels in 0..1.
    """

    graph: Graph
    input_size: tuple[int, int]
    geometry: Kind
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: int
    grid: tuple[int, int]
    threads: int | None = None

    def __post_init__(self) -> None:
        _require(self.graph.inputs, "input", (3, *self.input_size))
        _require(self.graph.outputs, "output", (self.channels, *self.grid))

    def choose_batch(self, wanted: int | None = None) -> int:
        """Pictures per call. By default one on a CPU, where more gain nothing, cost memory and may
        change the last bits of a picture's features; eight elsewhere."""
        fixed = self.graph.inputs[0].shape[0]
        most = wanted or (1 if self.graph.device == "cpu" else 8)
        return most if fixed == -1 else min(most, fixed)

    @property
    def context(self) -> DeviceContext | None:
        """Where pictures are preprocessed and features come out; None: in the host's memory."""
        return getattr(self.graph, "context", None)

    @property
    def capturable(self) -> bool:
        """Whether what `on_device` enqueues may be recorded as a CUDA graph."""
        return self.context is not None and getattr(self.graph, "capturable", False)

    def plans(self, pictures: Sequence[Picture], kind: Kind | None = None) -> tuple[Geometry, ...]:
        """How each picture lies in the input. kind: another geometry than usual."""
        return tuple(plan(kind or self.geometry, p.size, self.input_size) for p in pictures)

    def encode(self, pictures: Sequence[Picture], kind: Kind | None = None) -> Encoded:
        """Features of these pictures in one call, in numpy. kind: another geometry than usual."""
        begin = perf_counter()
        geometries = self.plans(pictures, kind)
        if self.context is not None:
            made = self.on_device([p.pixels for p in pictures], geometries)
            middle = begin + made.preprocess_seconds
            # Halves are for the device's kernels alone.
            features = np.asarray(made.features.to_host(), np.float32)
            return Encoded(features, geometries, middle - begin, perf_counter() - middle)
        inputs = [
            preprocess(picture, geometry, self.mean, self.std, threads=self.threads)
            for picture, geometry in zip(pictures, geometries, strict=True)
        ]
        tensor = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        middle = perf_counter()
        features = self._run(tensor)
        return Encoded(features, geometries, middle - begin, perf_counter() - middle)

    def on_device(self, frames: Sequence[Any], geometries: Sequence[Geometry]) -> Encoded:
        """Features of uint8 frames [H, W, 3] that stay on the device; nothing waits. A frame of the
        host is copied once, one of the device is read where it is."""
        from .ops import preprocess_all

        begin = perf_counter()
        graph = cast(DeviceGraph, self.graph)
        fixed, count = graph.inputs[0].shape[0], len(frames)
        fill = max(0, fixed - count)  # a graph with a fixed batch: the last picture again
        shown = [*frames, *[frames[-1]] * fill]
        contents = [g.content for g in (*geometries, *[geometries[-1]] * fill)]
        context = cast("DeviceContext", self.context)
        tensor = preprocess_all(shown, self.input_size, contents, self.mean, self.std, context)
        middle = perf_counter()
        features = graph.run_on_device({graph.inputs[0].name: tensor})[graph.outputs[0].name]
        self._check(features.shape, len(shown))
        seconds = middle - begin, perf_counter() - middle
        return Encoded(features[:count], tuple(geometries), *seconds)

    def _run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        fixed, count = self.graph.inputs[0].shape[0], len(tensor)
        if fixed != -1 and count < fixed:  # a graph with a fixed batch: fill up, then cut off
            filler = np.zeros((fixed - count, *tensor.shape[1:]), np.float32)
            tensor = np.concatenate([tensor, filler])
        features = self.graph.run({self.graph.inputs[0].name: tensor})[self.graph.outputs[0].name]
        self._check(features.shape, len(tensor))
        return features[:count]

    def _check(self, shape: tuple[int, ...], batch: int) -> None:
        if shape != (batch, self.channels, *self.grid):
            raise BackendError(
                "graph 'encoder', output",
                expected=f"shape {[batch, self.channels, *self.grid]}",
                got=f"{list(shape)}",
                remedy="The bundle's description does not fit its graph; export it again.",
            )


def _require(tensors: Sequence[TensorInfo], what: str, shape: tuple[int, ...]) -> None:
    if len(tensors) == 1 and tensors[0].dtype == "float32":
        batch = max(tensors[0].shape[:1], default=1)
        if tensors[0].accepts((max(batch, 1), *shape)):
            return
    raise BackendError(
        f"graph 'encoder', {what}",
        expected=f"one float32 tensor of shape [any, {', '.join(map(str, shape))}]",
        got=" and ".join(map(str, tensors)) or "none",
        remedy="Open the graph that these settings belong to, or correct the settings.",
    )
