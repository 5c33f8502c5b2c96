"""The encoder of benchmarks.gpu_pipeline: ResNet-50, layers 1 to 3, in torch, on any device.

Its weights are random, its norms are calibrated on two pictures: speed does not depend on them, and
features of different places then differ, as those of a trained encoder do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_device import SHORT, Device
from fsseg_sdk.backends import TensorInfo
from fsseg_sdk.ops import preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tiny(torch.nn.Module):
    """For the emulated device: 24 channels at stride 5."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 12, 5, 5)
        self.second = torch.nn.Conv2d(12, 24, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.tanh(self.first(image)))
        return found


def calibrated(tiny: bool, side: int, pictures: list[Any]) -> Any:
    """The encoder on the CPU in float32, with its norms as published code has them."""
    torch.manual_seed(0)
    if tiny:
        return Tiny().eval()
    from training.encoders import build_encoder

    encoder: Any = build_encoder("resnet50").eval()
    images = [preprocess(p, (side, side), (side, side), MEAN, STD) for p in pictures]
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        encoder(torch.from_numpy(np.concatenate(images)))
    return encoder.eval()


def folded(encoder: Any, dtype: torch.dtype, device: Device, side: int) -> Any:
    """A copy on the device whose norms are folded into its convolutions."""
    made = copy.deepcopy(encoder)
    if not isinstance(made, Tiny):
        from export.onnx_graph import fold_norms

        fold_norms(made, torch.zeros(1, 3, side, side))
    made = made.requires_grad_(False).to(device.kind, dtype)
    if dtype != torch.float32 and not device.emulated:
        made = made.to(memory_format=torch.channels_last)
    return made


def features_of(encoder: Any, image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, C, h, w], each channel's cells side by side, as the ops read them."""
    image = image.to(dtype)
    if dtype != torch.float32 and image.is_cuda:
        image = image.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found: torch.Tensor = encoder(image)
    return found.contiguous()


class DeviceEncoder:
    """The encoder behind the SDK's protocol of graphs that run on arrays of a device.

    A batch length is captured as one CUDA graph when it comes first. Where the SDK records a query
    itself, the encoder is called in that recording, its memory from a pool of torch's that serves
    nothing else: between replays nobody else gets it. For one thread. Features are handed out in
    float32, as the protocol describes them, whatever the encoder computes in.
    """

    backend, device = "torch", "cuda"

    def __init__(self, encoder: Any, dtype: torch.dtype, where: Device, side: int) -> None:
        self.encoder, self.dtype, self.where, self.context = encoder, dtype, where, where.context
        self.precision = SHORT[dtype]
        self.capturable = not where.emulated and hasattr(torch.cuda, "use_mem_pool")
        self._pool: Any = torch.cuda.MemPool() if self.capturable else None
        self._captured: dict[int, tuple[Any, torch.Tensor, torch.Tensor]] = {}
        shape = self._features(torch.zeros(1, 3, side, side, device=where.kind)).shape
        self.inputs = (TensorInfo("image", "float32", (-1, 3, side, side)),)
        self.outputs = (TensorInfo("features", "float32", (-1, *map(int, shape[1:]))),)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = torch.from_numpy(np.ascontiguousarray(feeds["image"])).to(self.where.kind)
        return {"features": self._features(image).float().cpu().numpy()}

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = self.where.tensor(feeds["image"])
        if self.where.emulated:
            return {"features": self.where.array(self._features(image).float())}
        if self.capturable and torch.cuda.is_current_stream_capturing():
            with torch.cuda.use_mem_pool(self._pool):
                made = self._features(image).float()
            return {"features": self.where.array(made)}
        found = self._captured.get(len(image))
        if found is None:
            given = image.clone()
            graph, features = self.where.captured(lambda: self._features(given))
            found = self._captured[len(image)] = (graph, given, features)
        graph, given, features = found
        given.copy_(image)
        graph.replay()
        return {"features": self.where.array(features.to(torch.float32, copy=True))}

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        return features_of(self.encoder, image, self.dtype)


class HostEncoder:
    """The same on the CPU in float32: what labels are compared with."""

    backend, device, precision = "torch", "cpu", "fp32"

    def __init__(self, encoder: Any, side: int) -> None:
        self.encoder = encoder
        shape = self.run({"image": np.zeros((1, 3, side, side), np.float32)})["features"].shape
        self.inputs = (TensorInfo("image", "float32", (-1, 3, side, side)),)
        self.outputs = (TensorInfo("features", "float32", (-1, *map(int, shape[1:]))),)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = torch.from_numpy(np.ascontiguousarray(feeds["image"]))
        return {"features": features_of(self.encoder, image, torch.float32).numpy()}
