"""Tables, plots and a page of pictures from results of `python -m training.evaluate`.

    python -m training.report raw.json "PANet, ResNet-50=trained.json" --baseline "raw resnet50" \\
        --expected training/configs/panet-voc-sweep.toml --out report --curves runs/*
    python -m training.report trained.json --page page.png --data ../data/voc2012 \\
        --model runs/resnet50-seed0-fold{fold}/checkpoint.safetensors

Tables are printed; --out writes them, with plots, to a folder. A page shows the pictures of the
data set: it may be published only where their licences allow that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from fsseg_sdk.errors import FssegError
from training.datasets import open_dataset
from training.reporting import plots
from training.reporting.measured import Section
from training.reporting.over_auxiliary import over_auxiliary
from training.reporting.page import page
from training.reporting.reading import read_sections, read_times
from training.reporting.tables import classes, tables


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("results", nargs="*", metavar="[NAME=]RESULT.json", help="NAME: of the method, in tables")
    add("--baseline", metavar="NAME", help="a method; the others are compared with it")
    add("--times", nargs="+", metavar="[NAME=]RESULT.json", help="ms a query of these instead")
    add("--expected", type=Path, metavar="FILE", help="a sweep, or names: rows not yet run")
    add("--out", type=Path, metavar="FOLDER", help="for report.md, classes.md and plots")
    add("--curves", type=Path, nargs="+", default=[], metavar="RUN", help="run folders, to --out")
    add("--page", type=Path, metavar="FILE", help="a PNG of good, median and bad episodes")
    add("--data", type=Path, help="--page: the folder of the labelled set")
    add("--model", help="--page: the file that was measured; {fold} stands for the fold")
    add("--method", metavar="NAME", help="--page: which one, where the results have several")
    add("--lists", type=Path, metavar="FOLDER", help="--page: of the lists of episodes")
    add("--each", type=int, default=2, help="--page: episodes of each rank in a fold")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.results and not options.curves:
        parser.error("name results, or run folders with --curves")
    if options.curves and options.out is None:
        parser.error("--curves needs --out FOLDER")
    if options.page is not None and None in (options.data, options.model):
        parser.error("--page needs --data FOLDER and --model FILE")
    if options.each < 1:
        parser.error("--each takes 1 or more")
    try:
        run(options)
    except (OSError, ModuleNotFoundError, ValueError, FssegError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    sections = read_sections(options.results, options.expected) if options.results else []
    _check_baseline(sections, options.baseline)
    if options.times:
        times = read_times(options.times)
        for section in sections:
            section.times = times
    blocks: list[str] = []
    for section in sections:
        known = {method.name for method in section.methods if method.rows}
        blocks += tables(section, options.baseline if options.baseline in known else None)
    print("\n\n".join(blocks))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        blocks += _drawn(sections, options)
        if sections:
            by_class = [block for section in sections for block in classes(section)]
            _write(options.out / "report.md", "Measured", blocks)
            _write(options.out / "classes.md", "Measured, by class", by_class)
    if options.page is not None:
        _page(sections, options)
    for caveat in dict.fromkeys(str(section.data["caveat"]) for section in sections):
        print("\n" + fill(caveat, 100))


def _check_baseline(sections: Sequence[Section], name: str | None) -> None:
    known = {method.name for section in sections for method in section.methods if method.rows}
    if name is not None and name not in known:
        listed = ", ".join(map(repr, sorted(known)))
        raise ValueError(f"--baseline: expected one of {listed}, got {name!r}")


def _drawn(sections: Sequence[Section], options: argparse.Namespace) -> list[str]:
    """Draw what there is to draw; the links to it."""
    links = []
    for section in sections:
        end = f"{section.data['name']}-{section.protocol}.png".replace(" ", "-")
        for name, draw, what in (
            ("shots", plots.over_shots, "Mean-IoU over shots"),
            ("auxiliary", over_auxiliary, "Mean-IoU over auxiliary pictures"),
            ("annotations", plots.over_annotations, "Mean-IoU by annotation"),
            ("time", plots.over_time, "Mean-IoU against milliseconds a query"),
        ):
            path = options.out / f"{name}-{end}"
            if draw(section, path):
                links.append(f"![{what}: {section.title}]({path.name})")
                print(f"written: {path}")
        known = [m.name for m in section.methods if m.rows]
        if left := [name for name in known if name not in plots.drawn(section)]:
            links.append(f"Not in the plots, since a fold is not yet run: {', '.join(left)}.")
    if options.curves:
        path = options.out / "curves.png"
        waiting = plots.curves(options.curves, path)
        links.append(f"![Loss and watched IoU of training runs]({path.name})")
        if waiting:
            links.append(f"Training runs that are not yet run: {', '.join(waiting)}.")
        print(f"written: {path}")
    return links


def _page(sections: Sequence[Section], options: argparse.Namespace) -> None:
    named = options.method
    if named is None:
        have = {m.name for section in sections for m in section.methods if m.rows}
        if len(sections) != 1 or len(have) != 1:
            listed = ", ".join(map(repr, sorted(have)))
            raise ValueError(
                f"--page: expected one method on one set by one protocol, got {listed} in "
                f"{len(sections)} tables. Name one with --method, and give its results alone."
            )
        (named,) = have
    (section,) = [s for s in sections if any(m.name == named for m in s.methods)][:1] or sections
    lines = page(
        section,
        section.method(named),
        open_dataset(options.data),
        options.model,
        options.page,
        lists=options.lists,
        each=options.each,
    )
    worst = max(abs(line.stored - line.redrawn) for line in lines)
    print(f"written: {options.page}; IoU differs from the result's by {worst:.1f} points at most")


def _write(path: Path, title: str, blocks: Sequence[str]) -> None:
    path.write_text(f"# {title}\n\n" + "\n\n".join(blocks) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
