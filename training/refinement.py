"""What SROFB learns from, and what it changes: a picture with a line for each query.

    python -m training.refinement mine.fsseg --support a.jpg --mask a.png b.jpg c.jpg --out r.png

Columns: the support; the query with the cells that it is trained on (the class tinted, the
background darkened); PANet's match; the answer after refinement. A bundle of panet is opened as
srofb. After figure 6 of Mei et al.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import FssegError, Result, Segmenter, Task, ops
from fsseg_sdk.image import read_image
from fsseg_sdk.methods.srofb import SrofbFitted
from fsseg_sdk.overlay import draw_overlay
from training.reporting.plots import pyplot
from training.tables import changes_of

COLUMNS = ("support", "sure cells", "match", "refined")
DARK = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.refinement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundle", help="a path, or a shipped bundle's name")
    add("queries", nargs="+", type=Path)
    add("--support", type=Path, required=True)
    add("--mask", type=Path, required=True)
    add("--method", default="srofb")
    add("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the method")
    add("--out", type=Path, required=True, metavar="FILE", help="PNG or JPEG")
    options = parser.parse_args(arguments)
    try:
        segmenter = Segmenter.load(
            options.bundle, method=options.method, settings=changes_of(options.setting)
        )
        task = segmenter.prepare({"class": (options.support, options.mask)})
        draw(task, options.support, options.mask, options.queries, options.out)
    except (FssegError, ValueError, OSError) as error:
        print(f"refinement: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def draw(task: Task, support: Path, mask: Path, queries: Sequence[Path], out: Path) -> None:
    """Write the picture of a task with one class.

    Raises:
        ValueError: the task is not of a method that refines itself.
    """
    shown = read_image(support, "support").pixels
    marked = (np.asarray(read_image(mask, "mask").pixels)[..., 0] > 0).astype(np.uint8)
    rows = [(draw_overlay(shown, marked, [], legend=False), *line(task, q)) for q in queries]
    plt: Any = pyplot()
    figure, axes = plt.subplots(
        len(rows), len(COLUMNS), figsize=(3 * len(COLUMNS), 2.6 * len(rows)), squeeze=False
    )
    for place, pictures in zip(axes, rows, strict=True):
        for axis, picture in zip(place, pictures, strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def line(task: Task, query: Path) -> tuple[NDArray[np.uint8], ...]:
    """The query with its sure cells, the match, and the refined answer: [H, W, 3] each."""
    if not isinstance(task.fitted, SrofbFitted):
        raise ValueError(
            f"method: expected srofb or srofb-fast, got {task.core.method.name}. Name one of them."
        )
    result = task.segment(query)
    pixels = read_image(query, "query").pixels
    extent = result.geometry.extent((result.logits.shape[1], result.logits.shape[2]))
    evidence = result.logits if result.evidence is None else result.evidence
    sure = task.fitted.sure_cells(evidence, extent)
    before = ops.upsample_argmax(evidence[None], result.size, extent)[0]
    match = draw_overlay(pixels, before, [], legend=False)
    refined = draw_overlay(pixels, result.raw_labels, [], legend=False)
    return _sure(pixels, sure, result), match, refined


def _sure(pixels: NDArray[np.uint8], sure: NDArray[np.bool_], result: Result) -> NDArray[np.uint8]:
    """Nearest neighbour: cells are seen as cells."""
    rows, columns = result.geometry.extent((sure.shape[1], sure.shape[2]))
    height, width = result.size
    at = (
        ((np.arange(height) + 0.5) * rows / height).astype(int)[:, None],
        ((np.arange(width) + 0.5) * columns / width).astype(int)[None],
    )
    tinted = draw_overlay(pixels, sure[1][at].astype(np.uint8), [], legend=False)
    scene = sure[0][at][..., None]
    return np.where(scene, (tinted * DARK).astype(np.uint8), tinted)


if __name__ == "__main__":
    raise SystemExit(main())
