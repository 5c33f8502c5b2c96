"""The plot of what auxiliary pictures bring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.reporting.measured import Section
from training.reporting.plots import MARKERS, finish, mean_of, new_panels, plotted


def over_auxiliary(section: Section, path: Path) -> bool:
    """Mean-IoU over the number of auxiliary pictures, a line for each model, of the first setting;
    False where no model was measured with several numbers. A model that takes none is a line
    across."""
    setting = plotted(section)[0]
    lines: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for method in section.methods:
        mean = mean_of(section, method, setting)
        if mean is not None and not method.given.wrong:
            lines.setdefault(method.model, []).append((method.given.auxiliary, mean))
    if max(map(len, lines.values()), default=0) < 2:
        return False
    numbers = sorted({number for points in lines.values() for number, _ in points})
    figure, (axes,) = new_panels(1, 4.0)
    for place, (model, points) in enumerate(lines.items()):
        style: dict[str, Any] = {"color": f"C{place % 10}", "label": model}
        if len(points) == 1 and points[0][0] == 0:
            axes.axhline(points[0][1]["miou"], linestyle="--", linewidth=1.2, **style)
            continue
        points.sort(key=lambda point: point[0])
        x, means = zip(*points, strict=True)
        marker = MARKERS[place % len(MARKERS)]
        axes.plot(x, [m["miou"] for m in means], marker=marker, linewidth=1.2, **style)
        low, high = zip(*(m["interval"] for m in means), strict=True)
        axes.fill_between(x, low, high, alpha=0.15, color=style["color"], linewidth=0)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_xlabel("auxiliary pictures of a class")
    axes.set_title(str(setting), fontsize=10)
    finish(figure, [axes], section, path)
    return True
