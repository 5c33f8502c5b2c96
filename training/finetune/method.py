"""Fine-tuning as a method of the runtime's protocol, on torch.

A baseline of OSLSM (Shaban et al., BMVC 2017), section 6, after Caelles et al.: "encoder" is the
trunk, and "finetune_tail" holds the last layers, which `fit` tunes on the labelled pictures along
with a batch norm and a new classifier. It needs torch and so is none of fsseg_sdk's own methods.
torch uses as many threads as the process gives it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fsseg_sdk.errors import InputError
from fsseg_sdk.methods import Match, NamedGraph, Shots, State
from fsseg_sdk.methods.base import check_state
from fsseg_sdk.methods.panet import OnPanet, Panet, PanetFitted
from fsseg_sdk.methods.weak import refine_weak
from training.finetune.tuning import FinetuneSettings, Tuned, tune

TAIL = "finetune_tail"
INPUT, WEIGHTS = "tail_input", "tail_weights"
_PANET = Panet()


class TailGraph:
    """``features [B, C, h, w] -> features [B, D, h, w]``, the tail before any tuning; ``module`` is
    what a copy of is tuned."""

    backend, device, precision = "torch", "cpu", "fp32"

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self.inputs, self.outputs = (), ()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            # one picture at a time: a row must not depend on what else is in its batch
            found = [self.module(one[None]) for one in _tensor(feeds["features"])]
        return {"features": torch.cat(found).float().numpy()}


@dataclass(frozen=True)
class FinetuneFitted(OnPanet):
    """tuned: tail and classifier; order: where each label's plane is among its own."""

    rough: PanetFitted
    tuned: Tuned
    order: NDArray[np.int64]
    tail: NamedGraph
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        rough = self.rough.match(self.tail.run({"features": features})["features"], threads=threads)
        logits = self.tuned.logits(_tensor(features)).numpy()
        return Match(np.ascontiguousarray(logits[:, self.order]), evidence=rough.logits)


class Finetune:
    """The method. Its state is PANet's, on untuned features, and every shot's picture as it enters
    the tail, with the weights of its cells."""

    name = "finetune"
    properties = frozenset({"deterministic", "self_segmenting"})
    graphs: tuple[str, ...] = (TAIL,)
    settings_type: type[Any] = FinetuneSettings

    def summarise(
        self,
        shots: Shots,
        settings: FinetuneSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        untuned = replace(
            shots, features=graphs[TAIL].run({"features": shots.features})["features"]
        )
        if settings.panet.refine_weak:
            untuned = refine_weak(untuned, threads)
        state = _PANET.summarise(untuned, settings.panet, {}, threads=threads)
        weights = np.stack([untuned.foreground, untuned.background], axis=1)
        own = {
            INPUT: shots.features[shots.picture],
            WEIGHTS: np.maximum(weights, 0).astype(np.float32),
        }
        return State(state.way, {**state.arrays, **own})

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        arrays = dict(state.arrays)
        own = {name: arrays.pop(name) for name in (INPUT, WEIGHTS) if name in arrays}
        check_state(State(state.way, own), {INPUT: (channels, *grid), WEIGHTS: (2, *grid)})
        width = arrays["foreground"].shape[-1] if "foreground" in arrays else channels
        _PANET.check(State(state.way, arrays), width, grid)

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"panet": _PANET.settings_from(method, settings)}

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: FinetuneSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> FinetuneFitted:
        tail = graphs[TAIL]
        if not isinstance(tail, TailGraph):
            raise InputError(
                TAIL,
                expected="a TailGraph, whose module can be tuned",
                got=type(tail).__name__,
                remedy="Evaluate a checkpoint with `python -m training.evaluate --torch`.",
            )
        rough = _PANET.fit(state, n_ways, settings.panet, {})
        pictures, weights, order = _in_order(state, n_ways)
        tuned = tune(tail.module, list(_tensor(pictures)), _tensor(weights), settings)
        return FinetuneFitted(rough, tuned, order, tail)


def _in_order(
    state: State, n_ways: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Different pictures [P, C, h, w], the weights [P, 1 + N, h, w] of their cells, and for each
    label the place of its plane.

    Pictures and classes are put in an order of their own content: many steps would make much of how
    sums are rounded, and the answer must not depend on the order of shots and classes."""
    given, weights = state.arrays[INPUT], state.arrays[WEIGHTS]
    keys = [_digest(one) for one in given]
    marks = [key + _digest(one) for key, one in zip(keys, weights, strict=True)]
    own = [
        sorted(m for m, way in zip(marks, state.way, strict=True) if way == n)
        for n in range(n_ways)
    ]
    ways = sorted(range(n_ways), key=lambda n: own[n])
    order = np.empty(n_ways + 1, np.int64)
    order[0], order[1 + np.array(ways)] = 0, 1 + np.arange(n_ways)
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    place = {key: n for n, key in enumerate(sorted(first))}
    target = np.zeros((len(place), n_ways + 1, *weights.shape[2:]), np.float32)
    for row, key in enumerate(keys):
        for plane, own_weights in zip((order[1 + state.way[row]], 0), weights[row], strict=True):
            np.maximum(target[place[key], plane], own_weights, out=target[place[key], plane])
    return given[[first[key] for key in sorted(first)]], target, order


def _digest(array: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float32)
