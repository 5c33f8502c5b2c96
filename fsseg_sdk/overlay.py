"""A picture with what was found in it: tinted regions, outlines, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .palette import palette

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["Entry", "draw_overlay", "legend_font"]

_TINT = 0.45
_DIMMED = 0.80  # what is left of the light outside of regions
_GREY = (165, 165, 165)
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Entry:
    """A line of the legend. label: 1..254; score: 0..1; found: whether the class is shown."""

    label: int
    name: str
    score: float
    found: bool


def draw_overlay(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    entries: Sequence[Entry],
    *,
    legend: bool = True,
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], of the picture's own size. pixels: uint8 [H, W, 3]; labels: uint8 [H, W].

    Regions are tinted in their class's colour with a line of that colour inside their border and
    a light one around it; the rest is dimmed a little. The legend goes to the emptiest corner; it
    is left out of pictures that are too small for it.
    """
    height, width = labels.shape
    inside = labels > 0
    if inside.any():
        colours = palette()
        line = max(2, round(min(height, width) / 270))
        reach = _grown(_borders(labels), line - 1)
        drawn = (pixels * np.float32(_DIMMED)).astype(np.uint8)
        tint = colours[labels[inside]] * np.float32(_TINT)
        drawn[inside] = (pixels[inside] * np.float32(1 - _TINT) + tint).astype(np.uint8)
        halo = _grown(reach, max(1, line // 2)) & ~inside
        drawn[halo] = _WHITE
        edge = reach & inside
        drawn[edge] = colours[labels[edge]]
    else:
        drawn = np.array(pixels, order="C")
    if legend and entries:
        _draw_legend(drawn, inside, entries)
    return drawn


def _borders(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another label beside, above or below them; the picture's frame is no border."""
    border = np.zeros(labels.shape, np.bool_)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    return border


def _grown(region: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Grow by steps, a cross and a square in turns: close to a circle."""
    for step in range(steps):
        grown = region.copy()
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        source = grown.copy() if step % 2 else region
        grown[1:] |= source[:-1]
        grown[:-1] |= source[1:]
        region = grown
    return region


def _draw_legend(
    drawn: NDArray[np.uint8], inside: NDArray[np.bool_], entries: Sequence[Entry]
) -> None:
    from PIL import Image, ImageDraw

    height, width = inside.shape
    size = min(max(round(min(height, width) * 0.034), 13), 44)
    font = legend_font(size)
    gap, row, swatch = round(size * 0.55), round(size * 1.5), size
    room = int((height * 0.6 - 2 * gap) // row)
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    space = "  " if size < 20 else " "  # the font's own space all but vanishes at small sizes
    values = [f"{e.score:.0%}" if e.found else f"not{space}found" for e in entries]
    value_width = max(_length(ruler, value, font) for value in values)
    frame = 3 * gap + swatch + gap + value_width  # margins, swatch, and the gap before the value
    most = int(width * 0.7) - frame
    if room < 1 or most < 2 * size:
        return
    ranked = sorted(zip(entries, values, strict=True), key=lambda pair: not pair[0].found)
    shown = ranked if len(ranked) <= room else ranked[: room - 1]
    names = [_shortened(ruler, e.name.replace(" ", space), font, most) for e, _ in shown]
    rest = f"and{space}{len(ranked) - len(shown)}{space}more" if len(shown) < len(ranked) else ""
    name_width = max([_length(ruler, name, font) for name in [*names, rest]])
    box = (frame + min(name_width, most), 2 * gap + row * (len(shown) + bool(rest)))
    left, top = _emptiest(inside, box, gap)
    if left < 0:
        return
    area = drawn[top : top + box[1], left : left + box[0]]
    panel = Image.fromarray((area * np.float32(0.25)).astype(np.uint8))
    pen = ImageDraw.Draw(panel)
    colours = palette()
    for line, ((entry, value), name) in enumerate(zip(shown, names, strict=True)):
        middle = gap + row * line + row // 2
        corners = (gap, middle - swatch // 2, gap + swatch, middle + swatch - swatch // 2)
        ink = _WHITE if entry.found else _GREY
        if entry.found:
            red, green, blue = (int(part) for part in colours[entry.label])
            pen.rounded_rectangle(corners, swatch // 4, fill=(red, green, blue), outline=_WHITE)
        else:
            pen.rounded_rectangle(corners, swatch // 4, outline=_GREY)
        pen.text((2 * gap + swatch, middle), name, fill=ink, font=font, anchor="lm")
        pen.text((box[0] - gap, middle), value, fill=ink, font=font, anchor="rm")
    if rest:
        middle = gap + row * len(shown) + row // 2
        pen.text((2 * gap + swatch, middle), rest, fill=_GREY, font=font, anchor="lm")
    area[...] = np.asarray(panel)


def _emptiest(inside: NDArray[np.bool_], box: tuple[int, int], gap: int) -> tuple[int, int]:
    """The corner (left, top) where a box (width, height) hides the fewest region pixels."""
    height, width = inside.shape
    right, bottom = width - box[0] - gap, height - box[1] - gap
    if right < gap or bottom < gap:
        return -1, -1
    corners = [(gap, gap), (right, gap), (gap, bottom), (right, bottom)]
    hidden = [int(inside[y : y + box[1], x : x + box[0]].sum()) for x, y in corners]
    return corners[hidden.index(min(hidden))]


def legend_font(size: int) -> Any:
    """Pillow's own font, in pixels."""
    from PIL import ImageFont, features

    # Without FreeType, Pillow has one small bitmap font, which knows no sizes.
    return ImageFont.load_default(size) if features.check("freetype2") else ImageFont.load_default()


def _length(ruler: ImageDraw, text: str, font: Any) -> int:
    return int(np.ceil(ruler.textlength(text, font=font)))


def _shortened(ruler: ImageDraw, text: str, font: Any, most: int) -> str:
    if _length(ruler, text, font) <= most:
        return text
    while text and _length(ruler, text + "...", font) > most:
        text = text[:-1]
    return text + "..."
