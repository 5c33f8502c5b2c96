"""The encoder of a bundle in int8: calibrated, measured, and as few of its layers kept in float32
as it takes to lose less than so many points of mean-IoU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export.accuracy import Cost, Judge, episodes_of
from export.calibrate import measure
from export.layers import LayerError, errors_alone, layer_table, summed_errors
from export.onnx_graph import store_half
from export.quantize import Flavour, Range, layers_of, quantised, tensors_to_measure
from export.settings import PrecisionSettings
from fsseg_sdk.backends import Graph, GraphFile, GraphSpec, open_graph

COMPARED = 2  # calibration pictures on which layers are compared


@dataclass(frozen=True)
class Step:
    """One try of the search: so many layers kept, and what was lost then."""

    kept: int
    cost: Cost


@dataclass(frozen=True)
class Search:
    """kept: names of the layers that stay in float32. enough: the loss is below the limit by a
    standard error or more."""

    kept: tuple[str, ...]
    steps: tuple[Step, ...]
    enough: bool

    @property
    def cost(self) -> Cost:
        return next(s.cost for s in self.steps if s.kept == len(self.kept))


def search(
    ranked: Sequence[str],
    measure: Callable[[Sequence[str]], Cost],
    most_loss: float,
    say: Callable[[str], None] = lambda text: None,
) -> Search:
    """Keep none, then the first 1/16, 1/8, 1/4, 1/2, 3/4 of the layers, until the loss is below
    ``most_loss`` by a standard error or more: the best of several tries is often the luckiest, and
    the fewer the episodes, the luckier. Then half as many of the last addition, if that is enough.

    Args:
        ranked: all layers, the one with the largest error by itself first.
        measure: the cost with these layers kept.
    """
    steps: list[Step] = []

    def lost(count: int) -> bool:
        cost = measure(ranked[:count])
        steps.append(Step(count, cost))
        say(f"  {count:3} of {len(ranked)} layers kept in float32: {cost.against(most_loss)}")
        return not cost.careful < most_loss  # NaN is too much

    shares = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
    tried = dict.fromkeys(-int(-len(ranked) * share // 1) for share in shares)
    counts = [count for count in tried if count == 0 or count < len(ranked)]
    before = 0
    for count in counts:
        if not lost(count):
            between = (before + count) // 2
            if before < between < count and not lost(between):
                count = between
            return Search(tuple(ranked[:count]), tuple(steps), True)
        before = count
    return Search(tuple(ranked[:before]), tuple(steps), False)


@dataclass(frozen=True)
class Int8Encoder:
    """files and graphs: by flavour. costs: what each loses on `episodes`, a description of them.
    errors: layer by layer, of the first flavour."""

    files: Mapping[Flavour, bytes]
    graphs: Mapping[Flavour, Graph]
    costs: Mapping[Flavour, Cost]
    exact: float
    search: Search
    errors: Sequence[LayerError]
    episodes: str
    pictures: int
    most_loss: float

    def __str__(self) -> str:
        lines = [f"  int8 on {self.episodes}: float32 has mean-IoU {self.exact:.2f} %"]
        lines += [
            f"    {flavour}: {c.against(self.most_loss)}" for flavour, c in self.costs.items()
        ]
        kept = ", ".join(self.search.kept) or "none"
        lines.append(f"  layers kept in float32: {kept}")
        lines.append("  relative error of each layer's output, in int8:")
        return "\n".join(lines) + "\n" + layer_table(self.errors)

    def facts(self) -> dict[str, Any]:
        """For the bundle's provenance."""
        return {
            "calibration_pictures": self.pictures,
            "episodes": self.episodes,
            "mean_iou_fp32": round(self.exact, 2),
            "mean_iou": {flavour: round(cost.mean_iou, 2) for flavour, cost in self.costs.items()},
            "kept_in_float32": list(self.search.kept),
        }


def make_int8(
    model: ModelProto,
    spec: GraphSpec,
    exact: Mapping[str, Graph],
    manifest: Mapping[str, Any],
    feeds: Sequence[Mapping[str, NDArray[np.float32]]],
    wanted: PrecisionSettings,
    near: Callable[[Graph], bool],
    say: Callable[[str], None],
) -> Int8Encoder:
    """Quantise the encoder `model`; keep layers in float32 until little enough is lost.

    Args:
        spec: of the encoder. exact: all graphs in float32. manifest: of the bundle, as JSON.
        feeds: the calibration pictures. near: whether an encoder's features are near enough; one
            that is not has lost too much, whatever it finds on the episodes.
    """
    ranges = measure(model, tensors_to_measure(model), feeds)
    first = wanted.flavours[0]
    alone = errors_alone(model, ranges[first], first, feeds[:COMPARED])
    ranked = sorted(layers_of(model), key=lambda name: -alone[name])
    episodes, described = episodes_of(wanted.episodes, wanted.queries)
    say(f"  measuring on {described}")
    judge = Judge(manifest, exact, episodes)
    made: dict[tuple[Flavour, int], tuple[bytes, Graph]] = {}

    def build(flavour: Flavour, kept: Sequence[str]) -> tuple[bytes, Graph]:
        key = flavour, len(kept)
        if key not in made:
            data = file_of(model, ranges[flavour], flavour, kept)
            made[key] = data, open_int8(data, spec, flavour)
        return made[key]

    costs: dict[tuple[Flavour, int], Cost] = {}

    def cost_of(flavour: Flavour, kept: Sequence[str]) -> Cost:
        key = flavour, len(kept)
        if key not in costs:
            graph = build(flavour, kept)[1]
            far = Cost(np.nan, np.inf, np.inf, np.inf)
            label = f"{flavour}, {len(kept)} kept"
            costs[key] = judge.cost(graph, label, wanted.most_loss) if near(graph) else far
        return costs[key]

    def worst(kept: Sequence[str]) -> Cost:
        """Of the flavours; the second is not asked where the first has lost too much."""
        found = []
        for flavour in wanted.flavours:
            found.append(cost_of(flavour, kept))
            if not found[-1].careful < wanted.most_loss:
                break
        return max(found, key=_most)

    result = search(ranked, worst, wanted.most_loss, say)
    final = {flavour: build(flavour, result.kept) for flavour in wanted.flavours}
    grown = summed_errors(model, onnx.load_from_string(final[first][0]), feeds[:COMPARED])
    return Int8Encoder(
        files={flavour: data for flavour, (data, _) in final.items()},
        graphs={flavour: graph for flavour, (_, graph) in final.items()},
        costs={flavour: cost_of(flavour, result.kept) for flavour in wanted.flavours},
        exact=judge.exact.mean_iou(),
        search=result,
        errors=[
            replace(each, alone=alone[each.name], kept=each.name in result.kept) for each in grown
        ],
        episodes=described,
        pictures=len(feeds),
        most_loss=wanted.most_loss,
    )


def _most(cost: Cost) -> float:
    """That may be lost, to compare: what is not a number is the largest."""
    return np.inf if np.isnan(cost.careful) else cost.careful


def file_of(
    model: ModelProto, ranges: Mapping[str, Range], flavour: Flavour, kept: Sequence[str]
) -> bytes:
    """What stays in float32 is stored in float16, as it is in a float32 file by default."""
    return store_half(quantised(model, ranges, flavour, kept))


def open_int8(data: bytes, spec: GraphSpec, flavour: Flavour) -> Graph:
    """In the runtime that the flavour is for, if it is installed; else in ONNX Runtime."""
    own = spec.only(GraphFile("encoder.onnx", "int8", "int8", flavour))
    backend = "onnxruntime" if flavour == "u8s8" else "auto"
    return open_graph(data, own, backend=backend, device="cpu", precision="int8", threads=1)
