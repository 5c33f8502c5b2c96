"""Every family of encoders becomes ONNX that computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.onnx_graph import to_onnx
from export.parity import check_graph
from fsseg_sdk.backends import GraphSpec, TensorInfo, open_graph
from training.encoders import build_encoder

TINY = {"width": 48, "depth": 3, "heads": 3, "grid": 2, "blocks": [0, 2], "patch": 8}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("vgg16", {"taps": ["conv2", "conv5"], "pool": 2}),
    ("resnet18", {"stem": "deep", "batch_norm": "frozen", "taps": ["layer1", "layer2"]}),
    ("mobilenet_v2", {"output_stride": 16, "taps": ["features.8"]}),
    ("dinov2_small_tokens", {**TINY, "registers": 2}),
]
SIZE = (32, 40)


class Together(nn.Module):
    """Several encoders in one graph, since each export takes seconds: ``[B, 3, H, W] ->
    [B, all features, 1, 1]``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(build_encoder(name, changes) for name, changes in FORMS)

    def forward(self, image: Tensor) -> Tensor:
        features = [encoder(image).flatten(1) for encoder in self.encoders]
        return torch.cat(features, 1)[:, :, None, None]


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_agrees() -> None:
    torch.manual_seed(0)
    encoders = Together().eval()
    for parameter in encoders.parameters():
        if parameter.dim() == 4:  # signals that do not vanish
            nn.init.kaiming_normal_(parameter)
    images = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype(np.float32)
    with torch.no_grad():
        each = [encoder(torch.from_numpy(images)) for encoder in encoders.encoders]
        assert all(features.std() > 1e-2 for features in each)
        shape = encoders(torch.from_numpy(images)).shape
    spec = GraphSpec(
        "encoder.onnx",
        (TensorInfo("image", "float32", (-1, 3, *SIZE)),),
        (TensorInfo("features", "float32", (-1, *shape[1:])),),
    )
    data = to_onnx(encoders, SIZE)
    graph = open_graph(data, spec, backend="onnxruntime", device="cpu", threads=1)
    parity = check_graph(encoders, graph, images)
    assert parity.ok, parity
