"""The demo's sheet: a card for every query, on its left what was shown, right what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsseg_sdk.palette import palette

_GROUND, _CARD, _INK, _QUIET = (17, 19, 24), (29, 32, 40), (238, 240, 244), (150, 156, 168)
_CARD_SIZE, _GAP, _TITLE = (920, 520), 24, 60
_SHOT_AREA, _QUERY_AREA = (236, 428), (608, 428)


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
