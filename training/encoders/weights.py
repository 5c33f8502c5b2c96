"""Pretrained state dicts: reading them, and saying what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from training.encoders.base import Encoder

NESTED = ("state_dict", "model", "teacher", "student")  # where training scripts put the weights


class StateDictError(ValueError):
    """A state dict of another network; the message says which tensors differ."""


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file (.pth, .pt, .bin) that holds only them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or what only unpickling code could read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of weights, found none. Correct the path; the project brings "
            "no pretrained weights of its own."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.200}"
        raise ValueError(
            f"{path}: expected a state dict, got a file that cannot be read as one ({reason}). "
            "Save model.state_dict() again."
        ) from error
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"{path}: expected a state dict, got {type(content).__name__} without tensors. "
            "Save model.state_dict()."
        )
    return tensors


@dataclass(frozen=True)
class Differences:
    """Where a state dict and an encoder disagree.

    missing, foreign: names. shapes: (name, expected, got).
    """

    missing: tuple[str, ...]
    shapes: tuple[tuple[str, list[int], list[int]], ...]
    foreign: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.shapes or self.foreign)

    def __str__(self) -> str:
        other = [f"{name} (expected {own}, got {got})" for name, own, got in self.shapes]
        parts = (
            ("missing", self.missing),
            ("of another shape", other),
            ("of another network", self.foreign),
        )
        return "; ".join(
            f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for what, names in parts
            if names
        )


def without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what wrappers put before all names ("module.", "backbone."), and what lacks it."""
    counts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts["".join(part + "." for part in parts[:start])] += 1
    prefix = max(counts, key=lambda name: (counts[name], -len(name)), default="")
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def needed(encoder: Encoder) -> dict[str, Tensor]:
    """The tensors that define an encoder; counters of batch norm do not."""
    state = encoder.state_dict()
    return {key: value for key, value in state.items() if not _counter(key)}


def compare(encoder: Encoder, state: dict[str, Tensor]) -> tuple[Differences, dict[str, Tensor]]:
    """Differences, and the tensors that the encoder would load, with its names."""
    own = needed(encoder)
    given = encoder.convert(without_prefix(state, own))
    kept = {key: given[key] for key in own if key in given}
    differences = Differences(
        missing=tuple(k for k in own if k not in given and not encoder.fresh(k)),
        shapes=tuple(
            (key, list(own[key].shape), list(value.shape))
            for key, value in kept.items()
            if own[key].shape != value.shape
        ),
        foreign=tuple(k for k in given if k not in own and not _counter(k) and encoder.foreign(k)),
    )
    return differences, kept


def load_weights(encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Load a state dict of any float type into an encoder.

    Raises:
        StateDictError: it is that of another network.
    """
    differences, kept = compare(encoder, state)
    if differences:
        name = encoder.name or type(encoder).__name__
        raise StateDictError(
            f"state dict: expected the {len(needed(encoder))} tensors of {name}, got "
            f"{len(state)} others. {differences}."
        )
    encoder.load_state_dict({key: value.float() for key, value in kept.items()}, strict=False)


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
