"""Plots of a section and of training runs, as PNG files that are read at a page's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.reporting.measured import Method, Section, Setting
from training.runlog import read_log

WIDTH = 8.0  # inches; at 150 dots an inch
MARKERS = "osD^vP*X"


def pyplot() -> Any:
    """
    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says what to do.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plots: expected the package matplotlib. pip install matplotlib, or leave out --out, "
            "--curves and --page."
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as module

    return module


def plotted(section: Section) -> list[Setting]:
    """The settings that plots are about: the fewest ways, at the protocol's own resolution (the
    first of a result), all false positives counted."""
    settings = section.settings()
    first = settings[0]
    same = first._replace(false_positives="all")
    return [s for s in settings if s[1:2] + s[3:] == same[1:2] + same[3:]]


def drawn(section: Section) -> list[str]:
    """Names of the methods that plots show: those with all folds that any method has."""
    return [
        method.name
        for method in section.methods
        if any(mean_of(section, method, setting) is not None for setting in plotted(section))
    ]


def over_shots(section: Section, path: Path) -> bool:
    """Mean-IoU over the number of shots, a panel for each annotation; False (and no file) where
    there is one number of shots only."""
    settings = plotted(section)
    kinds = list(dict.fromkeys(s.annotation for s in settings))
    if len({s.shots for s in settings}) < 2 or not drawn(section):
        return False
    figure, panels = new_panels(len(kinds), 3.6)
    for axes, kind in zip(panels, kinds, strict=True):
        own = sorted(s for s in settings if s.annotation == kind)
        for number, method in enumerate(section.methods):
            points = [(s.shots, m) for s in own if (m := mean_of(section, method, s)) is not None]
            _line(axes, section, number, points, spread=0.2, line="-")
        shots = sorted({s.shots for s in own})
        axes.set_xticks(shots, [str(k) for k in shots])
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("shots")
    finish(figure, panels, section, path)
    return True


def over_annotations(section: Section, path: Path) -> bool:
    """Mean-IoU by annotation, a panel for each number of shots; False where there is one kind."""
    settings = plotted(section)
    kinds = list(dict.fromkeys(s.annotation for s in settings))
    shots = sorted({s.shots for s in settings})
    if len(kinds) < 2 or not drawn(section):
        return False
    figure, panels = new_panels(len(shots), 3.6)
    for axes, k in zip(panels, shots, strict=True):
        own = {s.annotation: s for s in settings if s.shots == k}
        for number, method in enumerate(section.methods):
            means = [
                (place, mean_of(section, method, own[kind]))
                for place, kind in enumerate(kinds)
                if kind in own
            ]
            points = [(place, mean) for place, mean in means if mean is not None]
            _line(axes, section, number, points, spread=0.5)
        axes.set_xticks(range(len(kinds)), [kind.replace("-", "\n") for kind in kinds])
        axes.set_xlim(-0.5, len(kinds) - 0.5)
        axes.set_title(f"{k} shot" + ("s" if k > 1 else ""), fontsize=10)
    finish(figure, panels, section, path)
    return True


def over_time(section: Section, path: Path) -> bool:
    """Mean-IoU against milliseconds per query (logarithmic), a marker for each method and a panel
    for each number of shots; False where no time was measured."""
    settings = plotted(section)
    settings = [s for s in settings if s.annotation == settings[0].annotation]
    found = [
        (place, number, ms, mean)
        for number, method in enumerate(section.methods)
        if (ms := section.ms_of(method)) is not None
        for place, setting in enumerate(settings)
        if (mean := mean_of(section, method, setting)) is not None
    ]
    if not found:
        return False
    figure, panels = new_panels(len(settings), 4.4)
    for place, number, ms, mean in found:
        _line(panels[place], section, number, [(ms, mean)])
    low, high = min(ms for _, _, ms, _ in found), max(ms for _, _, ms, _ in found)
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [n * 10.0**e for e in range(-2, 7) for n in steps]
    inside = [t for t in ticks if low / 1.5 <= t <= high * 1.5]
    for axes, setting in zip(panels, settings, strict=True):
        axes.set_xscale("log")
        axes.set_xlim(low / 1.5, high * 1.5)
        axes.set_xticks(inside, [f"{t:g}" for t in inside])
        axes.minorticks_off()
        axes.set_xlabel("milliseconds a query")
        axes.set_title(str(setting), fontsize=10)
    finish(figure, panels, section, path)
    return True


def curves(folders: Sequence[Path], path: Path) -> list[str]:
    """Loss and watched IoU over iterations, a line for each run; the names of those that have no
    row yet.

    Raises:
        FileNotFoundError: no such folder, or none of them has a log.
        ValueError: a log is no training log.
    """
    every = {folder.name: _log(folder) for folder in folders}
    runs = {name: rows for name, rows in every.items() if rows}
    if not runs:
        raise FileNotFoundError(
            f"{folders[0]}: expected the folder of a training run with log.jsonl, got none there"
        )
    figure, panels = new_panels(2, 3.6, share=False)
    for number, (name, rows) in enumerate(runs.items()):
        style: dict[str, Any] = {"color": f"C{number % 10}", "linewidth": 1.2}
        style["linestyle"] = ("-", "--", ":")[number // 10 % 3]
        dots = "." if len(rows) < 40 else None
        steps = [row["iteration"] for row in rows if "loss" in row]
        losses = [row["loss"] for row in rows if "loss" in row]
        panels[0].plot(steps, losses, label=name, marker=dots, **style)
        watched = [(r["iteration"], r["watched"]) for r in rows if r.get("watched")]
        panels[1].plot(
            [iteration for iteration, _ in watched],
            [sum(figures.values()) / len(figures) for _, figures in watched],
            marker=dots,
            **style,
        )
    for axes, title in zip(panels, ("loss", "watched IoU, %"), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
    _save(figure, panels, path)
    return [name for name in every if name not in runs]


def _log(folder: Path) -> list[dict[str, Any]]:
    file = folder / "log.jsonl"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected the folder of a training run, got none there")
    try:
        rows = read_log(file)
        [row["iteration"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected the log of a training run, got {error!r}") from error
    return rows


def mean_of(section: Section, method: Method, setting: Setting) -> Mapping[str, Any] | None:
    return method.mean(setting, section.measured(setting))


def _line(
    axes: Any,
    section: Section,
    number: int,
    points: Sequence[tuple[float, Mapping[str, Any]]],
    spread: float = 0.0,
    line: str = "",
) -> None:
    """A method's points with their intervals. spread: the methods' points are moved aside, over so
    much in all, so that none hides another."""
    if not points:
        return
    shown = drawn(section)
    run = [place for place, method in enumerate(section.methods) if method.name in shown]
    aside = ((run.index(number) + 0.5) / len(run) - 0.5) * spread
    values = [mean["miou"] for _, mean in points]
    below = [max(0.0, mean["miou"] - mean["interval"][0]) for _, mean in points]
    above = [max(0.0, mean["interval"][1] - mean["miou"]) for _, mean in points]
    axes.errorbar(
        [x + aside for x, _ in points],
        values,
        yerr=[below, above],
        label=section.methods[number].name,
        color=f"C{number % 10}",
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        linestyle=line,
        linewidth=1.2,
        elinewidth=0.9,
        capsize=2.5,
    )


def new_panels(count: int, height: float, share: bool = True) -> tuple[Any, list[Any]]:
    figure, grid = pyplot().subplots(
        1, count, figsize=(WIDTH, height), sharey=share, squeeze=False, layout="constrained"
    )
    return figure, list(grid[0])


def finish(figure: Any, panels: Sequence[Any], section: Section, path: Path) -> None:
    folds = ", ".join(map(str, section.measured(plotted(section)[0])))
    several = "mean of folds" if "," in folds else "fold"
    panels[0].set_ylabel(f"mean-IoU, %, {several} {folds}")
    figure.suptitle(f"{section.title} (bars: 95 % interval)", fontsize=10)
    _save(figure, panels, path)


def _save(figure: Any, panels: Sequence[Any], path: Path) -> None:
    named: dict[str, Any] = {}
    for axes in panels:
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    columns = 3 if max(map(len, named), default=0) < 28 else 2
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=columns, fontsize=8
    )
    figure.savefig(path, dpi=150)
    pyplot().close(figure)
