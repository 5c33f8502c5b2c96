"""Checkpoints and plain ImageNet weights as predictors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsseg_sdk.backends import Graph
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.settings import settings_from_json
from training.evaluation.predictor import (
    How,
    Predictor,
    SdkPredictor,
    digest_of,
    method_of,
    segmenter_on,
    settings_in_full,
)
from training.evaluation.protocols import Protocol
from training.evaluation.provenance import trained
from training.evaluation.torch_predictor import TorchPredictor
from training.finetune.method import Finetune
from training.finetune.predictor import finetune_predictor
from training.heads import head_graphs
from training.remembering import RememberingGraph
from training.torch_graph import TorchGraph, raw_encoder, trained_encoder


def of_checkpoint(path: Path | str, protocol: Protocol, how: How | None = None) -> Predictor:
    """A checkpoint of this project."""
    encoder, header = trained_encoder(path)
    facts = {
        "kind": "torch",
        "name": Path(path).parent.name or Path(path).stem,
        "digest": digest_of(Path(path)),
        "encoder": header["encoder"]["name"],
        "trained": trained(header),
    }
    return _of_encoder(encoder, header["method"], protocol, facts, how or How(), path)


def of_weights(
    name: str, weights: Path | str, protocol: Protocol, how: How | None = None
) -> Predictor:
    """An encoder as ImageNet training left it: what episodic training has to beat."""
    facts = {
        "kind": "raw",
        "name": f"raw {name}",
        "digest": digest_of(Path(weights)),
        "encoder": name,
        "trained": {},
    }
    plain = {"name": "panet", "settings": {"scale": 20.0, "background_parts": 1}}
    return _of_encoder(raw_encoder(name, weights), plain, protocol, facts, how or How())


def _of_encoder(
    encoder: Any,
    stored: Mapping[str, Any],
    protocol: Protocol,
    facts: Mapping[str, Any],
    how: How,
    checkpoint: Path | str | None = None,
) -> Predictor:
    """PANet in torch, but for its background of pixels; every other method is the runtime's own, on
    the features of torch. checkpoint: where the method's other graphs are, if it has some.

    Raises:
        ValueError: the runtime's methods want one size of the input, the protocol has many.
    """
    if how.method == Finetune.name:  # none of the runtime's
        return finetune_predictor(encoder, stored, protocol, facts, how)
    method = method_of(stored, how.method, how.changes)
    if method["name"] == "panet":
        own = settings_from_json(PanetSettings, method["settings"], "settings")
        if own.background == "mean-of-shots":
            return TorchPredictor(
                encoder, own, protocol, facts, bfloat16=how.bfloat16, most_bytes=how.most_bytes
            )
    if protocol.side is None:
        raise ValueError(
            f"method {method['name']}: expected a protocol with inputs of one size, got "
            f"{protocol.name}. Take panet-417, or another with a side."
        )
    size = protocol.input_size((protocol.side, protocol.side), int(getattr(encoder, "multiple", 1)))
    torch_graph = TorchGraph(encoder, size, bfloat16=how.bfloat16)
    graph = RememberingGraph(torch_graph, how.most_bytes, half=how.most_bytes > 0)
    entry = {
        "size": list(size),
        "geometry": protocol.geometry,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
    }
    graphs: dict[str, Graph] = {"encoder": graph}
    if checkpoint is not None:
        grid = (torch_graph.outputs[0].shape[2], torch_graph.outputs[0].shape[3])
        graphs |= head_graphs(checkpoint, stored["name"], grid, how.bfloat16)
    segmenter = segmenter_on(graphs, str(facts["name"]), method, entry, how.threads)
    own_facts = {
        **facts,
        "settings": settings_in_full(segmenter),
        "input": f"{size[0]} x {size[1]}, {protocol.geometry}",
    }
    return SdkPredictor(segmenter, graph, own_facts)
