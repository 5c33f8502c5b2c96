"""What stands behind an option: text to value, for argparse."""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["positive", "setting", "size", "tile"]


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, got {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 1920x1080, got {text!r}")
    return positive(width), positive(height)


def setting(text: str) -> dict[str, Any]:
    """``"panet.scale=10"`` as ``{"panet": {"scale": 10}}``; a value that is no JSON is a word."""
    name, equals, value = text.partition("=")
    place = name.strip().split(".")
    if not equals or not all(place):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        found: Any = json.loads(value)
    except ValueError:
        found = value.strip()
    for part in reversed(place):
        found = {part: found}
    return dict(found)


def tile(text: str) -> str | int | bool:
    if text == "auto":
        return "auto"
    return True if text == "native" else positive(text)
