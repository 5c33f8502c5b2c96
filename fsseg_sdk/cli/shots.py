"""Labelled pictures of the command line -> the support that `Segmenter.prepare` takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..support import Box, Scribble

__all__ = ["parse_box", "parse_strokes", "read_shots"]

Given = Sequence[tuple[str, Sequence[str]]]  # (option, its values), in the order of the command
Shots = dict[str, list[tuple[str, Any]]]

_ANNOTATIONS = ("mask", "box", "scribble")


def read_shots(given: Given, name: str = "object") -> Shots:
    """{class: [(image path, mask path | Box | Scribble), ...]}, in the order of the command.

    given: ("class", [NAME, IMAGE, MASK, ...]), ("box" or "scribble", [NAME, IMAGE, text]), or
    ("support", [IMAGE]) followed by ("mask", "box" or "scribble", [text]) for the class `name`.
    Raises InputError for what does not pair up or cannot be parsed.
    """
    shots: Shots = {}
    waiting: str | None = None  # the image of a --support without its annotation
    for option, values in given:
        if waiting is not None and (option not in _ANNOTATIONS or len(values) != 1):
            raise _unpaired(waiting)
        if option == "support":
            waiting = values[0]
        elif option == "class":
            shots.setdefault(values[0], []).extend(_pairs(values))
        elif len(values) == 3:
            annotation = _annotation(option, values[2])
            shots.setdefault(values[0], []).append((values[1], annotation))
        elif waiting is not None:
            shots.setdefault(name, []).append((waiting, _annotation(option, values[0])))
            waiting = None
        else:
            raise InputError(
                f"--{option}",
                expected="a --support IMAGE before it",
                got=f"{values[0]!r} alone",
                remedy=f"Write --support IMAGE --{option} ..., once for each labelled picture.",
            )
    if waiting is not None:
        raise _unpaired(waiting)
    if not shots:
        raise InputError(
            "labelled pictures",
            expected="at least one",
            got="none",
            remedy="Pass --class NAME IMAGE MASK, or see --help for boxes and scribbles.",
        )
    return shots


def _pairs(values: Sequence[str]) -> list[tuple[str, Any]]:
    rest = values[1:]
    if not rest or len(rest) % 2:
        raise InputError(
            f"--class {values[0]}",
            expected="a name, then pairs of image and mask",
            got=f"{len(rest)} files",
            remedy="Write --class NAME IMAGE MASK, and further pairs behind it.",
        )
    return list(zip(rest[::2], rest[1::2], strict=True))


def _annotation(option: str, text: str) -> Any:
    if option == "box":
        return parse_box(text)
    return parse_strokes(text) if option == "scribble" else text


def parse_box(text: str) -> Box:
    """A `Box` from "left,top,right,bottom". Raises InputError."""
    numbers = _numbers(text)
    if numbers is None or len(numbers) != 4:
        raise InputError(
            "--box",
            expected="four numbers LEFT,TOP,RIGHT,BOTTOM in pixels",
            got=repr(text),
            remedy='Write it without spaces, such as "10,20,90,80".',
        )
    return Box(*numbers)


def parse_strokes(text: str) -> Scribble:
    """A `Scribble` from "x,y x,y; x,y x,y; not x,y x,y". Raises InputError."""
    strokes: list[list[tuple[float, float]]] = []
    background: list[list[tuple[float, float]]] = []
    for part in text.split(";"):
        words = part.split()
        target = strokes
        if words and words[0] == "not":
            target, words = background, words[1:]
        stroke: list[tuple[float, float]] = []
        for word in words:
            numbers = _numbers(word)
            if numbers is None or len(numbers) != 2:
                raise InputError(
                    "--scribble",
                    expected='points "x,y" between spaces, strokes between ";"',
                    got=repr(word),
                    remedy='Write it in quotes, such as "12,30 40,50; not 5,5 9,9".',
                )
            stroke.append((numbers[0], numbers[1]))
        if stroke:
            target.append(stroke)
    return Scribble(strokes, background=background)  # type: ignore[arg-type]  # lists will do


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _unpaired(image: str) -> InputError:
    return InputError(
        f"--support {image}",
        expected="--mask, --box or --scribble right behind it",
        got="none",
        remedy="Write --support IMAGE --mask MASK, once for each labelled picture.",
    )
