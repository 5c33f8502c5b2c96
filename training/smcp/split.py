"""The head in three parts, as the runtime's method smcp runs them: modules to export, and torch
graphs for evaluation without export."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fsseg_sdk.backends import GraphSpec, TensorInfo
from training.checkpoint import load_checkpoint
from training.smcp.head import (
    DILATIONS,
    Classifier,
    Head,
    border_masks,
    load_head,
)

TAPS = 9
QUERY, PROTOTYPE, HEAD = "smcp_query", "smcp_prototype", "smcp_head"


class QueryShare(nn.Module):
    """``features [B, C, h, w] -> query [B, width, h, w]``."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        width = head.fuse.out_channels
        self.fuse = nn.Conv2d(head.channels, width, 3, padding=1)
        with torch.no_grad():
            self.fuse.weight.copy_(head.fuse.weight[:, : head.channels])
            self.fuse.bias.copy_(head.fuse.bias)  # type: ignore[union-attr, arg-type]

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.fuse(features)
        return found


class PrototypeShare(nn.Module):
    """``prototypes [N, C] -> shares [N, width, 9]``."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.width = head.fuse.out_channels
        self.taps = nn.Linear(head.channels, self.width * TAPS, bias=False)
        with torch.no_grad():
            own = head.fuse.weight[:, head.channels :].flatten(2)  # [width, C, 9]
            self.taps.weight.copy_(own.transpose(1, 2).flatten(0, 1))

    def forward(self, prototypes: Tensor) -> Tensor:
        found: Tensor = self.taps(prototypes)
        return found.view(-1, self.width, TAPS)


class TapClassifier(nn.Module):
    """The same as a :class:`Classifier`, with the channels summed before the taps.

    A convolution to two channels costs a runtime as much as one to sixteen. So one 1x1 convolution
    makes what each tap of each dilation adds, and dilated convolutions of ones and zeros, a few
    channels wide, bring that to its place.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        parts: list[Any] = list(classifier.parts)
        weight = torch.stack([part.weight for part in parts])  # [4, classes, C, 3, 3]
        classes, channels = weight.shape[1:3]
        self.each = classes * TAPS
        self.sums = nn.Conv2d(channels, len(parts) * self.each, 1, bias=False)
        self.shifts = nn.ModuleList(
            nn.Conv2d(self.each, classes, 3, padding=d, dilation=d) for d in DILATIONS
        )
        place = torch.eye(TAPS).view(1, TAPS, 3, 3)
        own = torch.eye(classes).view(classes, classes, 1, 1, 1)
        with torch.no_grad():
            self.sums.weight.copy_(weight.permute(0, 1, 3, 4, 2).reshape(-1, channels, 1, 1))
            for shift, part in zip(list(self.shifts), parts, strict=True):
                shift.weight.copy_((own * place).flatten(1, 2))  # type: ignore[operator, union-attr]
                shift.bias.copy_(part.bias)  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        first, *others = zip(self.shifts, self.sums(x).split(self.each, 1), strict=True)
        found: Tensor = first[0](first[1])
        for shift, taps in others:
            found = found + shift(taps)
        return found


class FromShares(nn.Module):
    """``query [1, width, h, w], shares [N, width, 9] -> logits [N, 2, h, w]`` on one grid, whose
    border is a constant."""

    inside: Tensor

    def __init__(self, head: Head, grid: tuple[int, int]) -> None:
        super().__init__()
        self.head, self.grid = deepcopy(head), grid
        self.head.classifier = TapClassifier(head.classifier)  # type: ignore[assignment]
        self.register_buffer("inside", border_masks(*grid), persistent=False)

    def forward(self, query: Tensor, shares: Tensor) -> Tensor:
        spread = shares @ self.inside
        return self.head._after(query + spread.view(-1, query.shape[1], *self.grid))


def split_head(head: Head, grid: tuple[int, int]) -> dict[str, nn.Module]:
    """The head's graphs by the names that a bundle gives them; they hold the head's weights of
    now."""
    parts = {QUERY: QueryShare(head), PROTOTYPE: PrototypeShare(head)}
    return {**parts, HEAD: FromShares(head, grid)}


def head_specs(
    channels: int, width: int, grid: tuple[int, int], storage: str = "float32"
) -> dict[str, GraphSpec]:
    """What goes into these graphs and comes out of them."""

    def info(name: str, *shape: int) -> tuple[TensorInfo]:
        return (TensorInfo(name, "float32", shape),)

    features, shares = info("features", -1, channels, *grid), info("shares", -1, width, TAPS)
    tensors = {
        QUERY: (features, info("query", -1, width, *grid)),
        PROTOTYPE: (info("prototypes", -1, channels), shares),
        HEAD: (info("query", 1, width, *grid) + shares, info("logits", -1, 2, *grid)),
    }
    return {
        name: GraphSpec(f"{name}.onnx", inputs, outputs, storage)
        for name, (inputs, outputs) in tensors.items()
    }


class TorchHeadGraph:
    """One of the three behind the runtime's Graph protocol, on the CPU, handed out in float32."""

    backend, device = "torch", "cpu"

    def __init__(self, module: nn.Module, spec: GraphSpec, *, bfloat16: bool = False) -> None:
        self.module = module.eval()
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.precision = "bf16" if bfloat16 else "fp32"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = [torch.from_numpy(np.ascontiguousarray(feeds[i.name])) for i in self.inputs]
        half = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            found = self.module(*given)
        return {self.outputs[0].name: found.float().numpy()}


def torch_graphs(
    head: Head, grid: tuple[int, int], *, bfloat16: bool = False
) -> dict[str, TorchHeadGraph]:
    """The head's graphs in torch; the names are those of a bundle."""
    specs = head_specs(head.channels, head.fuse.out_channels, grid)
    return {
        name: TorchHeadGraph(module, specs[name], bfloat16=bfloat16)
        for name, module in split_head(head, grid).items()
    }


def trained_head(checkpoint: Path | str) -> Head:
    """The head of a checkpoint.

    Raises:
        ValueError: the file is not a checkpoint of this project, or has no such head.
    """
    return load_head(load_checkpoint(checkpoint)[0]).eval()
