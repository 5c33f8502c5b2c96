"""What a method has beside the encoder, out of its checkpoint: one module, and the graphs that it
becomes, by the names that a bundle gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from fsseg_sdk import methods
from fsseg_sdk.backends import GraphSpec, TensorInfo
from training.oslsm.conditioner import load_conditioner
from training.siamese import load_embedding
from training.smcp.head import Head
from training.smcp.split import TorchHeadGraph, head_specs, split_head, trained_head

CONDITIONER, EMBEDDING = "oslsm_conditioner", "siamese_embedding"


@dataclass(frozen=True)
class Part:
    """A module that is a graph of its own, and what goes into it and comes out of it."""

    module: nn.Module
    spec: GraphSpec


_LOAD: Mapping[str, Callable[[Path | str], nn.Module]] = MappingProxyType(
    {"smcp": trained_head, "oslsm": load_conditioner, "siamese": load_embedding}
)


def trained_module(checkpoint: Path | str, method: str) -> nn.Module | None:
    """The module of a checkpoint, if its method needs graphs beside the encoder.

    Raises:
        ValueError: the file is not a checkpoint of this method.
    """
    return _LOAD[method](checkpoint).eval() if methods.get(method).graphs else None


def parts_of(
    module: nn.Module,
    method: str,
    grid: tuple[int, int],
    channels: int = -1,
    size: tuple[int, int] = (-1, -1),
    storage: str = "float32",
) -> dict[str, Part]:
    """The graphs; they hold the module's weights of now.

    Args:
        grid, channels: of the encoder's features. size: (H, W) of its input. -1: any length will
            do, for graphs that are not written to a file.
    """
    if isinstance(module, Head):
        specs = head_specs(module.channels, module.fuse.out_channels, grid, storage)
        return {n: Part(part, specs[n]) for n, part in split_head(module, grid).items()}
    features = TensorInfo("features", "float32", (-1, channels, *grid))
    if method == "oslsm":
        name, given = CONDITIONER, TensorInfo("image", "float32", (-1, 3, *size))
        parameters = channels + 1 if channels > 0 else -1
        found = TensorInfo("parameters", "float32", (-1, parameters))
    else:
        name, given = EMBEDDING, features
        found = TensorInfo("embedding", "float32", (-1, _width(module, channels, grid), *grid))
    return {name: Part(module, GraphSpec(f"{name}.onnx", (given,), (found,), storage))}


def head_graphs(
    checkpoint: Path | str, method: str, grid: tuple[int, int], bfloat16: bool = False
) -> dict[str, TorchHeadGraph]:
    """The graphs of a checkpoint in torch; none for a method that needs the encoder alone.

    Args:
        method: the checkpoint's own. grid: of the encoder's features.

    Raises:
        ValueError: the file is not a checkpoint of this method.
    """
    module = trained_module(checkpoint, method)
    parts = {} if module is None else parts_of(module, method, grid)
    return {
        name: TorchHeadGraph(part.module, part.spec, bfloat16=bfloat16)
        for name, part in parts.items()
    }


@torch.no_grad()
def _width(module: nn.Module, channels: int, grid: tuple[int, int]) -> int:
    """Channels of an embedding."""
    return -1 if channels < 0 else int(module(torch.zeros(1, channels, *grid)).shape[1])
