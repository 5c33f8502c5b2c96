"""What accuracy is measured of: a bundle, and plain ImageNet features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fsseg_sdk import Segmenter, methods
from fsseg_sdk.backends import Graph
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.segmenter import find_bundle
from training.evaluation import predictor
from training.remembering import RememberingGraph

_VIT = ("vit_tiny_keys", "vit_tiny_patch16_224.safetensors", 448)
RAW = {  # name -> encoder, file of its weights, side of its input, prototypes of the background
    "raw ViT-Ti keys": (*_VIT, 1),
    "the same, 3 parts": (*_VIT, 3),
    "raw ResNet-50": ("resnet50", "resnet50_v1_layers1to3.safetensors", 473, 1),
}


def open_bundle(
    name: str,
    threads: int,
    memory: int | None = None,
    method: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Segmenter:
    """A bundle whose encoder remembers ``memory`` bytes of features (None: nothing is kept).

    method, changes: other than the bundle's, see `predictor.method_of`.
    """
    wrap = None if memory is None else partial(RememberingGraph, most_bytes=memory)
    return predictor.open_bundle(name, threads, wrap, method, changes)


def open_methods(name: str, threads: int, memory: int) -> tuple[dict[str, Segmenter], Any]:
    """A bundle with each method that its graphs can serve, its own first; and the encoder that
    they share, which remembers ``memory`` bytes of features."""
    manifest = Bundle.open(find_bundle(name)).manifest
    own = manifest.method.name
    others = [n for n in methods.names() if n != own]
    able = [own, *(n for n in others if set(methods.get(n).graphs) <= set(manifest.graphs))]
    return open_shared(name, threads, memory, able)


def open_shared(
    name: str, threads: int, memory: int, wanted: Sequence[str]
) -> tuple[dict[str, Segmenter], Any]:
    """A bundle with each of these methods, and their encoder; see `open_methods`."""
    kept: list[RememberingGraph] = []

    def shared(graph: Graph) -> Graph:
        if not kept:
            kept.append(RememberingGraph(graph, memory))
        return kept[0]

    return {n: predictor.open_bundle(name, threads, shared, n) for n in wanted}, kept[0]


def trained_on(name: str) -> tuple[str, ...]:
    """The data sets that a bundle's provenance names."""
    pictures = Bundle.open(find_bundle(name)).manifest.provenance.get("pictures")
    return tuple(pictures) if isinstance(pictures, Mapping) else ()


def open_raw(name: str, weights: Path, threads: int, memory: int) -> Segmenter:
    """Prototype matching, scale 20, on an ImageNet encoder of `RAW` in torch; squashed input."""
    import torch

    from training.torch_graph import TorchGraph, raw_encoder

    torch.set_num_threads(threads)
    encoder_name, file, side, parts = RAW[name]
    encoder = raw_encoder(encoder_name, weights / file)
    return predictor.segmenter_on(
        {"encoder": RememberingGraph(TorchGraph(encoder, (side, side)), memory)},
        name,
        {"name": "panet", "settings": {"scale": 20.0, "background_parts": parts}},
        {
            "size": [side, side],
            "geometry": "squash",
            "mean": list(encoder.mean),
            "std": list(encoder.std),
        },
        threads,
    )
