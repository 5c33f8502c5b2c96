"""Checkpoints and plain ImageNet weights as predictors."""

from __future__ import annotations

from pathlib import Path

from training.evaluation.predictor import digest_of
from training.evaluation.protocols import Protocol
from training.evaluation.provenance import trained
from training.evaluation.torch_predictor import TorchPredictor
from training.torch_graph import raw_encoder, trained_encoder


def of_checkpoint(
    path: Path | str, protocol: Protocol, *, bfloat16: bool = False, most_bytes: int = 0
) -> TorchPredictor:
    """A checkpoint of this project.

    Raises:
        ValueError: no checkpoint, or one of another method.
    """
    encoder, header = trained_encoder(path)
    method = header["method"]
    if method["name"] != "panet":
        raise ValueError(
            f"{path}: expected a checkpoint of panet, got one of {method['name']}. Export it and "
            "evaluate the bundle."
        )
    facts = {
        "kind": "torch",
        "name": Path(path).parent.name or Path(path).stem,
        "digest": digest_of(Path(path)),
        "encoder": header["encoder"]["name"],
        "trained": trained(header),
    }
    return TorchPredictor(
        encoder, method["settings"], protocol, facts, bfloat16=bfloat16, most_bytes=most_bytes
    )


def of_weights(
    name: str,
    weights: Path | str,
    protocol: Protocol,
    *,
    bfloat16: bool = False,
    most_bytes: int = 0,
) -> TorchPredictor:
    """An encoder as ImageNet training left it: what episodic training has to beat."""
    facts = {
        "kind": "raw",
        "name": f"raw {name}",
        "digest": digest_of(Path(weights)),
        "encoder": name,
        "trained": {},
    }
    return TorchPredictor(
        raw_encoder(name, weights),
        {"scale": 20.0, "background_parts": 1},
        protocol,
        facts,
        bfloat16=bfloat16,
        most_bytes=most_bytes,
    )
