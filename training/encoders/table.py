"""The table of encoders: channels, stride, parameters and GFLOP, all from the code itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.encoders.registry import ENCODERS, build_encoder

VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("vgg16", {"taps": ["conv3", "conv5"]}),
    ("resnet18", {"stem": "deep"}),
    ("resnet50", {"taps": ["layer2", "layer3"]}),
    ("resnet50", {"output_stride": 16}),
    ("mobilenet_v2", {"output_stride": 16}),
    ("mobilenet_v2", {"taps": ["features.10", "features.13", "features.17"]}),
    ("dino_small_keys", {"patch": 8, "grid": 28}),
)


@dataclass(frozen=True)
class Cost:
    """At one input size: (height, width) of the features, and floating-point operations of one
    picture, two per multiply-add."""

    side: int
    grid: tuple[int, int]
    flops: int


@dataclass(frozen=True)
class Row:
    name: str
    changes: Mapping[str, Any]
    channels: int
    stride: int
    parameters: int
    costs: tuple[Cost, ...]


def nearest_side(encoder: Any, side: int) -> int:
    """The multiple of ``encoder.multiple`` nearest to ``side``."""
    return max(1, round(side / encoder.multiple)) * encoder.multiple


def measure(name: str, changes: Mapping[str, Any], sides: Sequence[int]) -> Row:
    """Run an encoder on torch's meta device, where tensors have shapes but no numbers."""
    with torch.device("meta"), torch.no_grad():
        encoder = build_encoder(name, changes).eval()
        costs = []
        for wanted in sides:
            side = nearest_side(encoder, wanted)
            with FlopCounterMode(display=False) as counter:
                shape = encoder(torch.zeros(1, 3, side, side)).shape
            costs.append(Cost(side, (int(shape[2]), int(shape[3])), counter.get_total_flops()))
    parameters = sum(p.numel() for p in encoder.parameters())
    return Row(name, changes, int(shape[1]), encoder.stride, parameters, tuple(costs))


def rows(names: Sequence[str], sides: Sequence[int]) -> list[Row]:
    """Each encoder by its default settings, then some variants; all, if no names are given."""
    forms = (*((name, {}) for name in ENCODERS), *VARIANTS)
    return [measure(*form, sides) for form in forms if form[0] in names or not names]


def as_text(found: Sequence[Row], sides: Sequence[int], markdown: bool) -> str:
    """Lines of a table; costs at another side than the one asked for say at which."""
    head = ["encoder", "channels", "stride", "M parameters"]
    head += [f"{what} at {side}" for side in sides for what in ("grid", "GFLOP")]
    lines = [head]
    for row in found:
        changed = "".join(f", {k} {_plain(v)}" for k, v in row.changes.items())
        line = [row.name + changed, f"{row.channels:,}", str(row.stride)]
        line.append(f"{row.parameters / 1e6:.3f}")
        for side, cost in zip(sides, row.costs, strict=True):
            at = "" if cost.side == side else f" ({cost.side})"
            line += [f"{cost.grid[0]}x{cost.grid[1]}", f"{cost.flops / 1e9:.1f}{at}"]
        lines.append(line)
    if markdown:
        lines.insert(1, ["---"] * len(head))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _plain(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
