"""What the benchmarks print, write and draw: tables, JSON, bars."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import machine, write_json
from fsseg_sdk import __version__
from fsseg_sdk.doctor import packages
from training.evaluation.results import table

__all__ = ["bars", "command", "table", "where", "write_report"]

QUIET = 0.5  # load up to which a machine counts as idle


def command(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=description)
    parser.add_argument("--bundle", default="default", help="a path, or a shipped bundle's name")
    parser.add_argument("--json", metavar="FILE", help="all figures, and the machine's")
    parser.add_argument("--plot", metavar="FILE", help="a chart, PNG or SVG")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def write_report(path: str | None, options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """``--json FILE``: the figures beside what they depend on; None writes nothing. Of folders only
    their names are written, so that a report says nothing about where it was made."""
    asked = {k: _plain(v) for k, v in vars(options).items() if k not in ("json", "plot")}
    facts = {**machine(), "packages": packages(), "fsseg_sdk": __version__}
    write_json(path, {"machine": facts, "options": asked, **result})


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    path = isinstance(value, Path) or (isinstance(value, str) and "/" in value)
    return Path(value).name if path else value


def where() -> str:
    """One line about the machine, and a warning where others are at work on it."""
    facts = machine()
    load = facts["load"][0] if facts["load"] else 0.0
    busy = "; times and ratios of a busy machine are worth little" if load > QUIET else ""
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['kernels']['simd']} kernels, "
        f"load {load:g}{busy}"
    )


def bars(path: str, panels: Sequence[tuple[str, Mapping[str, Mapping[str, float]], str]]) -> None:
    """One panel above another, each ``(title, {group: {bar: value}}, axis label)``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [
        1.2 + 0.22 * sum(len(group) + 1 for group in groups.values()) for _, groups, _ in panels
    ]
    figure, grid = pyplot.subplots(
        len(panels), figsize=(8, sum(heights)), height_ratios=heights, squeeze=False
    )
    for axes, (title, groups, label) in zip(grid[:, 0], panels, strict=True):
        colours: dict[str, str] = {}
        ticks, names, place = [], [], 0.0
        for name, group in groups.items():
            ticks.append(place + (len(group) - 1) / 2)
            names.append(name)
            for bar, value in group.items():
                new = bar not in colours
                colours.setdefault(bar, f"C{len(colours) % 10}")
                axes.barh(place, value, color=colours[bar], label=bar if new else None)
                axes.text(value, place, f" {value:.3g}", va="center", fontsize=7)
                place += 1
            place += 0.6
        axes.set_yticks(ticks, names, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(label, fontsize=8)
        axes.margins(x=0.12)
        if len(colours) > 1:
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
