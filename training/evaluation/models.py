"""Checkpoints and plain ImageNet weights as predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.predictor import (
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
from training.remembering import RememberingGraph
from training.torch_graph import TorchGraph, raw_encoder, trained_encoder


def of_checkpoint(
    path: Path | str,
    protocol: Protocol,
    *,
    bfloat16: bool = False,
    most_bytes: int = 0,
    method: str | None = None,
    changes: Sequence[str] = (),
    threads: int | None = None,
) -> Predictor:
    """A checkpoint of this project; method, changes: see `predictor.method_of`."""
    encoder, header = trained_encoder(path)
    facts = {
        "kind": "torch",
        "name": Path(path).parent.name or Path(path).stem,
        "digest": digest_of(Path(path)),
        "encoder": header["encoder"]["name"],
        "trained": trained(header),
    }
    chosen = method_of(header["method"], method, changes)
    return _of_encoder(encoder, chosen, protocol, facts, bfloat16, most_bytes, threads)


def of_weights(
    name: str,
    weights: Path | str,
    protocol: Protocol,
    *,
    bfloat16: bool = False,
    most_bytes: int = 0,
    method: str | None = None,
    changes: Sequence[str] = (),
    threads: int | None = None,
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
    chosen = method_of(plain, method, changes)
    encoder = raw_encoder(name, weights)
    return _of_encoder(encoder, chosen, protocol, facts, bfloat16, most_bytes, threads)


def _of_encoder(
    encoder: Any,
    method: Mapping[str, Any],
    protocol: Protocol,
    facts: Mapping[str, Any],
    bfloat16: bool,
    most_bytes: int,
    threads: int | None,
) -> Predictor:
    """PANet in torch; every other method is the runtime's own, on the features of torch.

    Raises:
        ValueError: the runtime's methods want one size of the input, the protocol has many.
    """
    if method["name"] == "panet":
        own = method["settings"]
        return TorchPredictor(
            encoder, own, protocol, facts, bfloat16=bfloat16, most_bytes=most_bytes
        )
    if protocol.side is None:
        raise ValueError(
            f"method {method['name']}: expected a protocol with inputs of one size, got "
            f"{protocol.name}. Take panet-417, or another with a side."
        )
    size = protocol.input_size((protocol.side, protocol.side), int(getattr(encoder, "multiple", 1)))
    torch_graph = TorchGraph(encoder, size, bfloat16=bfloat16)
    graph = RememberingGraph(torch_graph, most_bytes, half=most_bytes > 0)
    entry = {
        "size": list(size),
        "geometry": protocol.geometry,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
    }
    segmenter = segmenter_on({"encoder": graph}, str(facts["name"]), method, entry, threads)
    own_facts = {
        **facts,
        "settings": settings_in_full(segmenter),
        "input": f"{size[0]} x {size[1]}, {protocol.geometry}",
    }
    return SdkPredictor(segmenter, graph, own_facts)
