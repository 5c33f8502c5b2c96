"""A torch encoder behind the runtime's Graph protocol: evaluation and debugging without export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fsseg_sdk.backends import TensorInfo
from training.checkpoint import load_checkpoint
from training.encoders import build_encoder, load_backbone, read_weights
from training.encoders.weights import Differences


class TorchGraph:
    """``image [B, 3, H, W] -> features [B, C, h, w]`` on the CPU, handed out in float32.

    Args:
        size: (H, W) that the encoder is described for; `run` takes any that the encoder takes.
        bfloat16: compute under autocast.
    """

    backend, device = "torch", "cpu"

    def __init__(self, encoder: Any, size: tuple[int, int], *, bfloat16: bool = False) -> None:
        self.encoder: nn.Module = encoder.eval()
        self.precision = "bf16" if bfloat16 else "fp32"
        shape = self.run({"image": np.zeros((1, 3, *size), np.float32)})["features"].shape
        self.inputs = (TensorInfo("image", "float32", (-1, 3, *size)),)
        self.outputs = (TensorInfo("features", "float32", (-1, *(int(n) for n in shape[1:]))),)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        image = torch.from_numpy(np.ascontiguousarray(feeds["image"]))
        half = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            features = self.encoder(image)
        return {"features": features.float().numpy()}


def trained_encoder(checkpoint: Path | str) -> tuple[Any, dict[str, Any]]:
    """The encoder of a checkpoint, and the checkpoint's header.

    Raises:
        ValueError: the file is not a checkpoint, or its tensors are not those of its encoder.
    """
    tensors, header = load_checkpoint(checkpoint)
    name = header["encoder"]["name"]
    encoder = build_encoder(name, header["encoder"]["settings"])
    own = "encoder."
    tensors = {k.removeprefix(own): t for k, t in tensors.items() if k.startswith(own)}
    expected = encoder.state_dict()
    differences = Differences(
        missing=tuple(key for key in expected if key not in tensors),
        shapes=tuple(
            (key, list(expected[key].shape), list(tensor.shape))
            for key, tensor in tensors.items()
            if key in expected and expected[key].shape != tensor.shape
        ),
        foreign=tuple(key for key in tensors if key not in expected),
    )
    if differences:
        raise ValueError(
            f"{checkpoint}: expected the tensors of {name}, got others. {differences}. "
            "The weights of a run are in its checkpoint.safetensors."
        )
    encoder.load_state_dict(tensors)
    return encoder.eval(), header


def raw_encoder(name: str, weights: Path | str) -> Any:
    """An encoder as ImageNet training left it."""
    encoder = build_encoder(name)
    load_backbone(encoder, read_weights(Path(weights)))
    return encoder.eval()
