"""What the SDK does, on the pictures beside this file: `make demo`, or `python examples/demo.py`.

Every case of pictures/cases.json is prepared from its labelled pictures and looked for in its
queries. Overlays and one sheet with all of them go to --out; a table says what was found, how sure,
how right against the exact masks, and how fast.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fsseg_sdk import Box, FssegError, Result, Scribble, Segmenter, Task
from fsseg_sdk.palette import palette

PICTURES = Path(__file__).resolve().parent / "pictures"


@dataclass(frozen=True)
class Answer:
    """One query of a case. shots: the labelled pictures, drawn; milliseconds: of the query."""

    case: str
    title: str
    query: str
    shots: list[Image.Image]
    overlay: Image.Image
    rows: list[list[str]]
    milliseconds: float


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


# ---- the SDK at work ----


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


# ---- the sheet ----

_GROUND, _CARD, _INK, _QUIET = (17, 19, 24), (29, 32, 40), (238, 240, 244), (150, 156, 168)
_CARD_SIZE, _GAP, _TITLE = (920, 520), 24, 60
_SHOT_AREA, _QUERY_AREA = (236, 428), (608, 428)


def draw_shot(folder: Path, shot: dict[str, Any], label: int) -> Image.Image:
    """The picture with its annotation in the colour of its class."""
    picture = Image.open(folder / shot["image"]).convert("RGB")
    red, green, blue = (int(part) for part in palette()[label])
    colour = (red, green, blue)
    line = max(6, picture.width // 90)
    if "mask" in shot:
        mask = np.array(Image.open(folder / shot["mask"])) > 0
        pixels = np.array(picture)
        pixels[mask] = (0.35 * pixels[mask] + 0.65 * np.array(colour)).astype(np.uint8)
        return Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for ink, width in ((_INK, 2 * line), (colour, line)):  # a light edge: seen on any ground
        if "box" in shot:
            pen.rectangle(shot["box"], outline=ink, width=width)
        else:
            points = [tuple(point) for point in shot["scribble"]["points"]]
            pen.line(points, fill=ink, width=2 * width, joint="curve")
    return picture


def sheet(answers: list[Answer], closing: list[str]) -> Image.Image:
    """All answers in two columns of cards: what was shown on the left, what was found right."""
    width, height = _CARD_SIZE
    cards = [card(answer) for answer in answers]
    if len(cards) % 2:
        cards.append(closing_card(closing))
    lines = len(cards) // 2
    whole = Image.new("RGB", (2 * width + 3 * _GAP, lines * (height + _GAP) + _GAP), _GROUND)
    for index, picture in enumerate(cards):
        left, top = index % 2 * (width + _GAP), index // 2 * (height + _GAP)
        whole.paste(picture, (_GAP + left, _GAP + top))
    return whole


def card(answer: Answer) -> Image.Image:
    drawn = Image.new("RGB", _CARD_SIZE, _CARD)
    pen = ImageDraw.Draw(drawn)
    pen.text((_GAP, _TITLE / 2 + 4), answer.title, fill=_INK, font=_font(26), anchor="lm")
    note = f"{answer.milliseconds:.0f} ms"
    pen.text((_CARD_SIZE[0] - _GAP, _TITLE / 2 + 4), note, fill=_QUIET, font=_font(20), anchor="rm")
    paste_grid(drawn, answer.shots, (_GAP, _TITLE + 8), _SHOT_AREA)
    paste_grid(drawn, [answer.overlay], (2 * _GAP + _SHOT_AREA[0] + 4, _TITLE + 8), _QUERY_AREA)
    return drawn


def closing_card(lines: list[str]) -> Image.Image:
    drawn = Image.new("RGB", _CARD_SIZE, _GROUND)
    pen = ImageDraw.Draw(drawn)
    told = ["Left: what was shown.", "Right: what was found in a new picture."]
    for number, line in enumerate([*told, "", *lines]):
        size, ink = (26, _INK) if number < len(told) else (19, _QUIET)
        pen.text((_GAP, 170 + 44 * number), line, fill=ink, font=_font(size), anchor="lm")
    return drawn


def paste_grid(
    drawn: Image.Image,
    pictures: list[Image.Image],
    place: tuple[int, int],
    area: tuple[int, int],
) -> None:
    """One picture as large as it fits; several below each other, in two columns from four on."""
    columns = 1 if len(pictures) < 4 else 2
    lines = -(-len(pictures) // columns)
    gap = 8
    cell = ((area[0] - gap * (columns - 1)) // columns, (area[1] - gap * (lines - 1)) // lines)
    for index, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail(cell, Image.Resampling.LANCZOS)
        left = place[0] + index % columns * (cell[0] + gap)
        drawn.paste(small, (left, place[1] + index // columns * (small.height + gap)))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    sys.exit(main())
