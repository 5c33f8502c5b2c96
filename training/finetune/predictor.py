"""A checkpoint evaluated with method finetune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fsseg_sdk.methods.settings import merged, settings_from_json
from training.evaluation.predictor import How, SdkPredictor, segmenter_on, settings_in_full
from training.evaluation.protocols import Protocol
from training.finetune.method import TAIL, Finetune, TailGraph
from training.finetune.split import split
from training.finetune.tuning import FinetuneSettings
from training.remembering import RememberingGraph
from training.torch_graph import TorchGraph


class FinetunePredictor(SdkPredictor):
    """The runtime's Segmenter and Task, with a method that is not the runtime's."""

    @property
    def takes_auxiliary(self) -> bool:
        return False


def finetune_predictor(
    encoder: Any,
    stored: Mapping[str, Any],
    protocol: Protocol,
    facts: Mapping[str, Any],
    how: How,
) -> FinetunePredictor:
    """stored: a manifest's method entry, whose PANet settings carry over.

    Raises:
        ValueError: the encoder cannot be cut, or the protocol has inputs of many sizes.
    """
    if protocol.side is None:
        raise ValueError(
            f"method finetune: expected a protocol with inputs of one size, got {protocol.name}. "
            "Take panet-417, or another with a side."
        )
    method = Finetune()
    own = method.settings_from(str(stored["name"]), stored["settings"])
    changed = merged(own, how.changes, "settings")
    settings: FinetuneSettings = settings_from_json(FinetuneSettings, changed, "settings")
    trunk, tail = split(encoder)
    size = protocol.input_size((protocol.side, protocol.side), int(trunk.multiple))
    graph = RememberingGraph(
        TorchGraph(trunk, size, bfloat16=how.bfloat16), how.most_bytes, half=how.most_bytes > 0
    )
    entry = {
        "size": list(size),
        "geometry": protocol.geometry,
        "mean": list(trunk.mean),
        "std": list(trunk.std),
    }
    plain = {"name": "panet", "settings": {}}
    segmenter = segmenter_on({"encoder": graph}, str(facts["name"]), plain, entry, how.threads)
    graphs: dict[str, Any] = {TAIL: TailGraph(tail)}
    segmenter._core = replace(segmenter._core, method=method, settings=settings, graphs=graphs)
    more = {
        "settings": settings_in_full(segmenter),
        "input": f"{size[0]} x {size[1]}, {protocol.geometry}",
    }
    return FinetunePredictor(segmenter, graph, {**facts, **more})
