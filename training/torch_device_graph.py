"""A torch encoder on a GPU behind the runtime's Graph protocol: features never leave the device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fsseg_sdk import ops
from fsseg_sdk.backends import TensorInfo

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchDeviceGraph:
    """``image [B, 3, H, W] -> features [B, C, h, w]`` on the current CUDA device, for debugging.

    Work is put on the stream that is torch's current one where a thread first asks for `context`;
    call it under that stream.

    Args:
        size: (H, W) that the encoder is described for.
        precision: what the encoder computes in; its features are handed out in float32.
    """

    backend, device = "torch", "cuda"
    capturable = False  # torch's memory is given to others between replays

    def __init__(self, encoder: Any, size: tuple[int, int], *, precision: str = "fp32") -> None:
        self.precision = precision
        self._dtype = PRECISIONS[precision]
        self._encoder: nn.Module = encoder.eval().to("cuda", self._dtype)
        self._contexts = threading.local()
        shape = self._features(torch.zeros((1, 3, *size), device="cuda")).shape
        self.inputs = (TensorInfo("image", "float32", (-1, 3, *size)),)
        self.outputs = (TensorInfo("features", "float32", (-1, *(int(n) for n in shape[1:]))),)

    @property
    def context(self) -> ops.DeviceContext:
        own = self._contexts
        if not hasattr(own, "context"):
            stream = int(torch.cuda.current_stream().cuda_stream)
            own.context = ops.DeviceContext(torch.cuda.current_device(), stream)
        found: ops.DeviceContext = own.context
        return found

    def run_on_device(self, feeds: Mapping[str, ops.DeviceArray]) -> dict[str, ops.DeviceArray]:
        features = self._features(torch.from_dlpack(feeds["image"]))
        return {"features": ops.places.on(self.context).see(features, "features")}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        image = torch.from_numpy(np.ascontiguousarray(feeds["image"])).to("cuda")
        return {"features": self._features(image).cpu().numpy()}

    def _features(self, image: Any) -> Any:
        with torch.inference_mode():
            return self._encoder(image.to(self._dtype)).float().contiguous()
