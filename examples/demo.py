"""What the SDK does, on the pictures beside this file: `make demo`, or `python examples/demo.py`.

Every case of pictures/cases.json is prepared from its labelled pictures and looked for in its
queries. Overlays and one sheet with all of them go to --out; a table says what was found, how sure,
how right against the exact masks, and how fast.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sheet import Answer, draw_shot, sheet

from fsseg_sdk import Box, FssegError, Result, Scribble, Segmenter, Task

PICTURES = Path(__file__).resolve().parent / "pictures"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="default: demo-out")
    parser.add_argument("--bundle", default="default", help="a bundle, by name or path")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="a folder with cases.json")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of a query (default: 3)")
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        segmenter = Segmenter.load(arguments.bundle)
        cases = json.loads((arguments.pictures / "cases.json").read_text(encoding="utf-8"))
        answers: list[Answer] = []
        for case in cases:
            answers += run_case(segmenter, case, arguments.pictures, max(1, arguments.repeat))
    except FssegError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    for answer in answers:
        answer.overlay.save(arguments.out / f"{answer.case}_{answer.query}.jpg", quality=92)
    closing = describe(segmenter, answers)
    sheet(answers, closing).save(arguments.out / "sheet.jpg", quality=90)
    print_table(answers)
    print("\n".join(closing))
    print(f"Look at {arguments.out / 'sheet.jpg'}; every overlay lies beside it.")
    return 0


def run_case(segmenter: Segmenter, case: dict[str, Any], folder: Path, repeat: int) -> list[Answer]:
    """Prepare the labelled pictures once, then look for their classes in every query."""
    shown = case["support"]
    support = {name: [read_shot(folder, shot) for shot in shots] for name, shots in shown.items()}
    task = segmenter.prepare(support)
    drawn = [
        draw_shot(folder, shot, label)
        for label, shots in enumerate(shown.values(), 1)
        for shot in shots
    ]
    answers = []
    for query in case["queries"]:
        result, milliseconds = timed(task, folder / query["image"], repeat)
        truth = np.array(Image.open(folder / query["truth"]))
        stem = Path(query["image"]).stem
        answers.append(
            Answer(
                case=case["name"],
                title=case["title"],
                query=stem,
                shots=drawn,
                overlay=Image.fromarray(result.overlay()),
                rows=compare(case["name"], stem, result, truth, milliseconds),
                milliseconds=milliseconds,
            )
        )
    return answers


def read_shot(folder: Path, shot: dict[str, Any]) -> tuple[Path, Path | Box | Scribble]:
    """A picture and how it is annotated: what `Segmenter.prepare` takes."""
    image = folder / shot["image"]
    if "box" in shot:
        return image, Box(*shot["box"])
    if "scribble" in shot:
        points = tuple((float(x), float(y)) for x, y in shot["scribble"]["points"])
        return image, Scribble((points,), width=shot["scribble"].get("width"))
    return image, folder / shot["mask"]


def timed(task: Task, query: Path, repeat: int) -> tuple[Result, float]:
    """The result, and the median milliseconds of a query in memory, as a camera's frames are."""
    pixels = np.array(Image.open(query).convert("RGB"))
    result = task.segment(pixels)
    return result, median(task.segment(pixels).timings["total"] for _ in range(repeat))


def compare(
    case: str, query: str, result: Result, truth: NDArray[Any], milliseconds: float
) -> list[list[str]]:
    """A row of the table for every class. IoU: intersection over union with the exact mask."""
    rows = []
    for label, name in enumerate(result.classes, 1):
        there, segmented = truth == label, result.labels == label
        found = name in result.found
        union = np.count_nonzero(there | segmented)
        iou = np.count_nonzero(there & segmented) / union if union else 1.0
        said = "yes" if found else "no"
        rows.append(
            [
                case,
                query,
                name,
                said if found == bool(there.any()) else f"{said} (wrong)",
                f"{100 * result.present[name]:.0f} %",
                f"{iou:.3f}" if there.any() else "not there",
                f"{milliseconds:.0f}",
                f"{1e3 / milliseconds:.1f}",
            ]
        )
    return rows


def print_table(answers: list[Answer]) -> None:
    heading = ["case", "query", "class", "found?", "how sure", "IoU", "ms", "FPS"]
    rows = [heading, *(row for answer in answers for row in answer.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    for number, row in enumerate(rows):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def describe(segmenter: Segmenter, answers: list[Answer]) -> list[str]:
    """What ran, and how fast."""
    typical = median(answer.milliseconds for answer in answers)
    runtime = f"{segmenter.backend} on {segmenter.device} in {segmenter.precision}"
    return [
        f"Bundle {segmenter.bundle}, method {segmenter.method}, {runtime}.",
        f"Median query: {typical:.0f} ms, {1e3 / typical:.1f} FPS.",
    ]


if __name__ == "__main__":
    sys.exit(main())
