"""``--kept FILE``: a sheet of the auxiliary pictures, and what was kept of each, step by step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..image import Picture
from ..overlay import legend_font
from ..palette import palette
from ..preprocess import plan
from ..saving import write_whole

if TYPE_CHECKING:
    from ..task import Task

__all__ = ["check_kept", "draw_kept", "write_kept"]

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_MOST_OF_JPEG = 65500
_WIDTH, _GAP, _LINE = 256, 8, 26
_DIMMED = 0.25  # what is left of the light where nothing was kept
_TINT = 0.35


def check_kept(out: str, auxiliary: object) -> None:
    """Before any work is done: InputError for a file that is no JPEG or PNG or in no folder, and
    where there are no auxiliary pictures of which something may be kept."""
    if Path(out).suffix.lower() not in _FORMATS:
        raise InputError(
            "--kept",
            expected=f"a file with the suffix {', '.join(_FORMATS)}",
            got=repr(out),
            remedy="Call it kept.jpg.",
        )
    if not Path(out).parent.is_dir():
        raise InputError(
            "--kept",
            expected="a file in a folder that exists",
            got=repr(out),
            remedy="Make the folder first.",
        )
    if auxiliary is None:
        raise InputError(
            "--kept",
            expected="auxiliary pictures, of which something may be kept",
            got="none",
            remedy="Pass --auxiliary DIR, too.",
        )


def write_kept(out: str, task: Task, auxiliary: Sequence[tuple[int, Picture]]) -> None:
    """Draw and write the sheet, whole or not at all. auxiliary: the task's (way, picture), in
    order."""
    from PIL import Image

    encoded, kind = io.BytesIO(), _FORMATS[Path(out).suffix.lower()]
    sheet = Image.fromarray(draw_kept(task, auxiliary))
    if kind == "JPEG" and max(sheet.size) > _MOST_OF_JPEG:
        raise InputError(
            "--kept",
            expected=f"at most {_MOST_OF_JPEG} rows and columns of a JPEG",
            got=f"a sheet of {sheet.height} rows and {sheet.width} columns",
            remedy="Call it kept.png.",
        )
    sheet.save(encoded, kind, quality=90)
    write_whole(Path(out), encoded.getvalue())


def draw_kept(task: Task, auxiliary: Sequence[tuple[int, Picture]]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: a row for each picture. First the picture, then for each step how much of
    every place joined the class's prototype: dark is nothing, tinted and bright is all."""
    from PIL import Image, ImageDraw

    kept = task.kept()
    heights = [_height(picture) for _, picture in auxiliary]
    columns = 1 + len(kept)
    size = (
        columns * (_WIDTH + _GAP) + _GAP,
        _LINE + _GAP + sum(height + _GAP + _LINE for height in heights),
    )
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), legend_font(16)
    for column in range(columns):
        title = f"step {column}" if column else "picture"
        pen.text((_GAP + column * (_WIDTH + _GAP), _GAP), title, fill="black", font=font)
    top = _LINE + _GAP
    for row, ((way, picture), height) in enumerate(zip(auxiliary, heights, strict=True)):
        small = Image.fromarray(np.ascontiguousarray(picture.pixels))
        small = small.resize((_WIDTH, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pen.text((_GAP, top + height + 2), task.classes[way], fill="black", font=font)
        for column in range(columns):
            left = _GAP + column * (_WIDTH + _GAP)
            if not column:
                sheet.paste(small, (left, top))
                continue
            cells, extent = kept[column - 1, row], _extent(task, picture)
            shown = _shown(np.asarray(small), _stretched(cells, extent, height), palette()[1 + way])
            sheet.paste(Image.fromarray(shown), (left, top))
            text = f"{cells.sum():.1f} of {extent[0] * extent[1]:.0f} cells"
            pen.text((left, top + height + 2), text, fill="black", font=font)
        top += height + _GAP + _LINE
    return np.asarray(sheet)


def _height(picture: Picture) -> int:
    """As shown; a strip of a picture is squeezed."""
    return min(max(round(_WIDTH * picture.size[0] / picture.size[1]), _LINE), 4 * _WIDTH)


def _shown(
    pixels: NDArray[np.uint8], share: NDArray[np.float32], colour: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    tinted = pixels * np.float32(1 - _TINT) + colour * np.float32(_TINT)
    mixed = pixels * np.float32(_DIMMED) * (1 - share[..., None]) + tinted * share[..., None]
    return mixed.astype(np.uint8)


def _extent(task: Task, picture: Picture) -> tuple[float, float]:
    encoder = task.core.encoder
    return plan(encoder.geometry, picture.size, encoder.input_size).extent(encoder.grid)


def _stretched(
    cells: NDArray[np.float32], extent: tuple[float, float], height: int
) -> NDArray[np.float32]:
    """Over the picture, bilinear, as labels are. extent: the cells that it covers."""
    from PIL import Image

    plane = Image.fromarray(np.ascontiguousarray(cells))
    box = (0.0, 0.0, extent[1], extent[0])
    stretched = plane.resize((_WIDTH, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(stretched).clip(0, 1)
