"""What accuracy is measured of: a bundle, and plain ImageNet features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, open_graph
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.segmenter import find_bundle
from training.remembering import RememberingGraph

_VIT = ("vit_tiny_keys", "vit_tiny_patch16_224.safetensors", 448)
RAW = {  # name -> encoder, file of its weights, side of its input, prototypes of the background
    "raw ViT-Ti keys": (*_VIT, 1),
    "the same, 3 parts": (*_VIT, 3),
    "raw ResNet-50": ("resnet50", "resnet50_v1_layers1to3.safetensors", 473, 1),
}


def open_bundle(
    name: str, threads: int, memory: int | None = None, changed: Mapping[str, Any] | None = None
) -> Segmenter:
    """A bundle whose encoder remembers ``memory`` bytes of features (None: nothing is kept).

    changed: settings of the method that differ from the bundle's.
    """
    bundle = Bundle.open(find_bundle(name))
    manifest = bundle.manifest
    spec = manifest.graphs["encoder"]
    graph = open_graph(bundle.member(spec.file), spec, threads=threads)
    method = {**manifest.method.settings, **(changed or {})}
    return _segmenter(
        graph if memory is None else RememberingGraph(graph, memory),
        manifest.name,
        {"name": manifest.method.name, "settings": method},
        {
            "size": list(manifest.input.size),
            "geometry": manifest.input.geometry,
            "mean": list(manifest.input.mean),
            "std": list(manifest.input.std),
        },
        threads,
    )


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
    graph = TorchGraph(encoder, (side, side))
    return _segmenter(
        RememberingGraph(graph, memory),
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


def _segmenter(
    graph: Graph, name: str, method: dict[str, Any], entry: dict[str, Any], threads: int
) -> Segmenter:
    channels, *grid = graph.outputs[0].shape[1:]
    settings = {
        "name": name,
        "method": method,
        "input": entry,
        "features": {"channels": channels, "grid": grid},
    }
    return Segmenter(graphs={"encoder": graph}, settings=settings, threads=threads)
