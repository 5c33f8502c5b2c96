"""A torch encoder behind the runtime's Graph protocol: evaluation and debugging without export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from fsseg_sdk.backends import TensorInfo
from training.checkpoint import load_checkpoint
from training.encoders import build_encoder, load_backbone


class TorchGraph:
    """``image [B, 3, H, W] -> features [B, C, h, w]`` on the CPU in float32."""

    backend, device, precision = "torch", "cpu", "fp32"

    def __init__(self, encoder: Any, size: tuple[int, int]) -> None:
        self.encoder: nn.Module = encoder.eval()
        with torch.no_grad():
            shape = self.encoder(torch.zeros(1, 3, *size)).shape
        self.inputs = (TensorInfo("image", "float32", (-1, 3, *size)),)
        self.outputs = (TensorInfo("features", "float32", (-1, *(int(n) for n in shape[1:]))),)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            features = self.encoder(torch.from_numpy(np.ascontiguousarray(feeds["image"])))
        return {"features": features.float().numpy()}


def trained_encoder(checkpoint: Path | str) -> tuple[Any, dict[str, Any]]:
    """The encoder of a checkpoint, and the checkpoint's header.

    Raises:
        ValueError: the file is not a checkpoint, or its tensors are not those of its encoder.
    """
    tensors, header = load_checkpoint(checkpoint)
    name = header["settings"]["encoder"]
    encoder = build_encoder(name)
    expected = {key: tensor.shape for key, tensor in encoder.state_dict().items()}
    got = {key: tensor.shape for key, tensor in tensors.items()}
    if other := sorted(expected.items() ^ got.items()):
        raise ValueError(
            f"{checkpoint}: expected the tensors of {name}, got others, among them "
            f"{other[0][0]!r}. A run's averaged weights are in checkpoint.safetensors."
        )
    encoder.load_state_dict(tensors)
    return encoder.eval(), header


def raw_encoder(name: str, weights: Path | str) -> Any:
    """An encoder as ImageNet training left it."""
    encoder = build_encoder(name)
    load_backbone(encoder, load_file(str(weights)))
    return encoder.eval()
