"""Markdown tables: methods by fold, paired differences, classes, and what each method is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.reporting.measured import NOT_YET, Method, Row, Section, Setting, difference

LEGEND = (
    "Mean-IoU in %, ± the standard deviation between runs, and the 95 % interval by bootstrap over "
    "query pictures. FB-IoU: the mean of foreground's and background's IoU."
)
TIMES = (
    "Milliseconds: from a decoded picture to its labels, the median over queries. They depend on "
    "the machine and on what else it did."
)
PAIRED = (
    "Differences in points of mean-IoU, with the 95 % interval of a bootstrap that draws the same "
    "pictures for both sides. *Not resolved*: the interval holds zero, so these pictures do not "
    "tell which is better."
)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the heading, the first column is text."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    rule = f"| {' | '.join(['---', *['---:'] * (len(rows[0]) - 1)])} |"
    return "\n".join([lines[0], rule, *lines[1:]])


def figure(figures: Mapping[str, Any] | None) -> str:
    """``55.0 ± 0.4 [52.1, 57.6]``."""
    if figures is None:
        return NOT_YET
    spread = "" if figures["std"] is None else f" ± {figures['std']:.1f}"
    low, high = figures["interval"]
    return f"{figures['miou']:.1f}{spread} [{low:.1f}, {high:.1f}]"


def by_fold(section: Section, setting: Setting) -> str:
    """Method x fold; the mean over the folds where there are several, and FB-IoU."""
    folds = section.folds(setting)
    heading = ["method", *(f"fold {fold}" for fold in folds)]
    rows = [[*heading, *(["mean"] if len(folds) > 1 else []), "FB-IoU"]]
    for method in section.shown(setting):
        mean = method.mean(setting, folds)
        cells = [figure(method.mean(setting, [fold])) for fold in folds]
        if len(folds) > 1:
            cells.append(figure(mean))
        rows.append([method.name, *cells, NOT_YET if mean is None else f"{mean['fbiou']:.1f}"])
    return markdown(rows)


def resolved(first: Sequence[Row] | None, second: Sequence[Row] | None) -> str:
    """``+9.7 [7.1, 12.2]``, or the same with the words "not resolved"."""
    if first is None or second is None:
        return NOT_YET
    value, low, high = difference(first, second)
    words = ", not resolved" if low <= 0 <= high else ""
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]{words}"


def against(section: Section, setting: Setting, baseline: Method) -> str | None:
    """Each method less the baseline, by fold; None where there is nothing to compare."""
    if not any(s == setting for s, _ in baseline.rows):
        return None
    folds = section.folds(setting)
    columns = [[fold] for fold in folds] + ([folds] if len(folds) > 1 else [])
    rows = [[f"less {baseline.name}", *(f"fold {fold}" for fold in folds)]]
    rows[0] += ["mean"] if len(folds) > 1 else []
    for method in section.shown(setting):
        if method is not baseline and method.rows:
            pairs = [(method.of(setting, c), baseline.of(setting, c)) for c in columns]
            rows.append([method.name, *(resolved(*pair) for pair in pairs)])
    return markdown(rows) if len(rows) > 1 else None


def marks(section: Section) -> str | None:
    """Other annotations less dense ones, within each method; over the folds of the method."""
    rows = [["less dense", "setting", "folds", "difference"]]
    for method in section.methods:
        for setting in section.settings():
            dense = setting._replace(annotation="dense")
            folds = [f for s, f in method.rows if s == setting and (dense, f) in method.rows]
            if setting != dense and folds:
                cell = resolved(method.of(setting, folds), method.of(dense, folds))
                where = ", ".join(map(str, sorted(folds)))
                at = f"{setting.ways}-way {setting.shots}-shot, {setting.resolution}"
                at += f", {setting.false_positives}" if setting.ways > 1 else ""
                rows.append([f"{method.name}, {setting.annotation}", at, where, cell])
    return markdown(rows) if len(rows) > 1 else None


def by_class(section: Section, setting: Setting) -> str:
    """Class x method: the mean over runs of each class's IoU."""
    methods = [m for m in section.shown(setting) if m.rows]
    names: dict[tuple[int, str], None] = {}
    for method in methods:
        for (own, fold), row in sorted(method.rows.items(), key=lambda item: item[0][1]):
            if own == setting:
                names.update(dict.fromkeys((fold, name) for name in row.figures["per_class"]))
    rows = [["class", "fold", *(method.name for method in methods)]]
    for fold, name in sorted(names, key=lambda each: each[0]):
        cells = []
        for method in methods:
            found = method.rows.get((setting, fold))
            value = None if found is None else found.figures["per_class"].get(name)
            missing = NOT_YET if found is None else "-"
            cells.append(missing if value is None else f"{value:.1f}")
        rows.append([name, str(fold), *cells])
    return markdown(rows)


def facts(section: Section) -> str:
    """What each method is, and how long it takes for a query."""
    rows = [["method", "encoder", "trained", "precision", "input", "runs x episodes", "ms a query"]]
    for method in section.methods:
        if not method.rows:
            rows.append([method.name, *[""] * 5, NOT_YET])
            continue
        models = [row.model for row in method.rows.values()]
        lists = [
            f"{len(r.figures['runs'])} x {r.figures['episodes'] // len(r.figures['runs'])}"
            for r in method.rows.values()
        ]
        ms = section.ms_of(method)
        rows.append(
            [
                method.name,
                _each(model.get("encoder") for model in models),
                _each(_training(model) for model in models),
                *(_each(model.get(key) for model in models) for key in ("precision", "input")),
                _each(lists),
                "-" if ms is None else f"{ms:.0f}",
            ]
        )
    return markdown(rows)


def _training(model: Mapping[str, Any]) -> str:
    trained = model.get("trained") or {}
    named = {"seed": trained.get("seed"), "iterations": trained.get("iteration")}
    said = ", ".join(f"{key} {value}" for key, value in named.items() if value is not None)
    return said or ("no" if model.get("kind") == "raw" else "-")


def _each(values: Any) -> str:
    """The different ones, in the order of their first appearance."""
    return "; ".join(str(v) for v in dict.fromkeys(values) if v is not None) or "-"


def tables(section: Section, baseline: str | None) -> Iterator[str]:
    """The blocks of a section, one after another."""
    yield f"## {section.title}\n\n{section.data['caveat']}"
    yield "\n".join(f"- {note}" for note in section.notes)
    yield facts(section)
    yield TIMES
    yield LEGEND
    base = None if baseline is None else section.method(baseline)
    for setting in section.settings():
        yield f"### {setting}"
        yield by_fold(section, setting)
        if base is not None and (less := against(section, setting, base)) is not None:
            yield less
    if base is not None:
        yield PAIRED
    if (less := marks(section)) is not None:
        yield "### Other annotations than dense masks"
        yield less
        if base is None:
            yield PAIRED


def classes(section: Section) -> Iterator[str]:
    """The blocks with IoU by class."""
    yield f"## {section.title}: IoU in % by class\n\n{section.data['caveat']}"
    for setting in section.settings():
        yield f"### {setting}"
        yield by_class(section, setting)
