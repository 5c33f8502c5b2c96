"""Every kind of thing that a scene may hold, by name."""

from __future__ import annotations

from functools import cache

import fruit
import parts
from mesh import Part

CLASSES = parts.PARTS + fruit.FRUIT  # id = 1 + index; the rest is clutter, background to a mask


@cache
def part(kind: str) -> Part:
    """The thing of this kind; KeyError for a kind that is not there."""
    return {**parts.MAKERS, **fruit.MAKERS}[kind]()
