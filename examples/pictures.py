"""The example pictures: what is in each, and the demo's cases that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from kinds import CLASSES
from mesh import Array
from numpy.typing import NDArray
from scene import Camera, Item, Scene, arrange


@dataclass(frozen=True)
class Shot:
    """One example picture. `kinds` are laid down in this order; `size` is (width, height)."""

    surface: str
    light: str
    kinds: tuple[str, ...]
    span: float
    tilt: float
    seed: int
    turn: float = 0.0
    rail: float = inf
    size: tuple[int, int] = (960, 720)
    gap: float = 0.25

    def scene(self) -> Scene:
        """The arranged scene; the same every time."""
        camera = Camera(self.span, self.tilt, self.turn, aspect=self.size[0] / self.size[1])
        items = arrange(
            self.kinds, camera, np.random.default_rng(self.seed), rail=self.rail, gap=self.gap
        )
        return Scene(self.surface, self.light, camera, items, self.seed, self.rail)


@dataclass(frozen=True)
class Case:
    """A demo case: `support` (class -> pictures, each with how it is annotated) and `queries`."""

    name: str
    title: str
    support: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    queries: tuple[str, ...] = ()


def _kinds(text: str) -> tuple[str, ...]:
    """ "bolt 2, nut" -> ("bolt", "bolt", "nut")."""
    kinds: list[str] = []
    for entry in text.split(", "):
        name, _, count = entry.partition(" ")
        kinds += [name] * int(count or 1)
    return tuple(kinds)


_SMALL = (800, 600)

SHOTS: dict[str, Shot] = {
    "bolt-support": Shot("green belt", "panels", _kinds("bolt, knob, washer"), 13, 28, 34),
    "bolt-belt": Shot(
        "green belt", "panels", _kinds("bolt 3, gear, ring, spring, key"), 20, 34, 34, 9, 7.6
    ),
    "bolt-bench": Shot("oak bench", "lamp", _kinds("bolt 2, knob, nut, key, ring"), 17, 36, 34),
    "knob-support": Shot("steel table", "window", _kinds("knob, spring, washer, bolt"), 14, 22, 37),
    "knob-bench": Shot("walnut bench", "sun", _kinds("knob 3, bolt, ring, pin, gear"), 19, 32, 15),
    "lemon-support": Shot("linen", "window", _kinds("lemon, apple, orange"), 30, 46, 35),
    "lemon-table": Shot("beech bench", "hall", _kinds("lemon 3, apple 2, orange 2"), 42, 42, 17),
    "spring-1": Shot("beech bench", "window", _kinds("spring, nut"), 11, 18, 36, size=_SMALL),
    "spring-2": Shot("concrete", "hall", _kinds("spring, washer, ring"), 12.5, 30, 34, size=_SMALL),
    "spring-3": Shot("steel table", "panels", _kinds("spring, knob"), 11, 25, 31, size=_SMALL),
    "spring-4": Shot("white belt", "hall", _kinds("spring, bolt"), 12, 35, 30, size=_SMALL),
    "spring-5": Shot("slate", "lamp", _kinds("spring, gear"), 11.5, 12, 32, size=_SMALL),
    "spring-line": Shot(
        "black belt",
        "hall",
        _kinds("spring 4, knob, gear 2, bolt 2, ring 2, nut 2, washer, pin"),
        27,
        33,
        23,
        0,
        7.4,
        (1920, 1080),
    ),
    "gear-support": Shot("concrete", "window", _kinds("gear, ring, pin"), 13, 24, 35),
    "two-line": Shot(
        "blue belt", "hall", _kinds("bolt 3, gear 3, ring, knob, nut"), 22, 30, 25, -8, 8.2
    ),
    "absent-belt": Shot(
        "green belt", "panels", _kinds("gear, ring, spring, knob 2, washer"), 19, 34, 26, 9, 7.6
    ),
}

CASES = (
    Case(
        "one-mask",
        "One picture, one mask",
        {"bolt": (("bolt-support", "mask"),)},
        ("bolt-belt", "bolt-bench"),
    ),
    Case("box", "A box instead of a mask", {"knob": (("knob-support", "box"),)}, ("knob-bench",)),
    Case(
        "scribble",
        "A scribble instead of a mask",
        {"lemon": (("lemon-support", "scribble"),)},
        ("lemon-table",),
    ),
    Case(
        "five-shots",
        "Five pictures of one class",
        {"spring": tuple((f"spring-{k}", "mask") for k in range(1, 6))},
        ("spring-line",),
    ),
    Case(
        "two-classes",
        "Two classes at once",
        {"bolt": (("bolt-support", "mask"),), "gear": (("gear-support", "mask"),)},
        ("two-line",),
    ),
    Case(
        "absent",
        "What is not there is not found",
        {"bolt": (("bolt-support", "mask"),)},
        ("absent-belt",),
    ),
)


def _stroke(scene: Scene, item: Item) -> Array:
    """[n, 2] places in the picture (-1..1) of a line drawn along the thing, a little bent."""
    position, right, _, _ = scene.camera.frame()
    middle = item.shift
    toward = (position - middle) / np.linalg.norm(position - middle)
    t = np.linspace(-1, 1, 9)
    along = item.pose @ np.array([0, 0, 2.0]) if item.kind != "gear" else right
    line = t[:, None] * along + 0.5 * right * np.cos(2 * t)[:, None]
    return scene.camera.project(middle + toward * 2.0 + line)


def annotation(kind: str, way: str, shot: Shot, mask: NDArray[np.uint8]) -> dict[str, Any]:
    """Pixels: {box [left, top, right, bottom]}, ends exclusive, or {scribble {points, width}}."""
    found = mask == CLASSES.index(kind) + 1
    rows, columns = np.nonzero(found.any(1))[0], np.nonzero(found.any(0))[0]
    if way == "box":
        ends = columns[0] - 3, rows[0] - 3, columns[-1] + 4, rows[-1] + 4
        return {"box": [int(end) for end in ends]}
    scene = shot.scene()
    item = next(item for item in scene.items if item.kind == kind)
    points = (_stroke(scene, item) * [1, -1] + 1) / 2 * np.array(shot.size)
    if not all(found[int(y), int(x)] for x, y in points):
        raise ValueError(f"the scribble leaves the {kind}")
    return {"scribble": {"points": points.round().astype(int).tolist(), "width": 9}}


def support_classes(name: str) -> Sequence[str]:
    """Classes for which this picture is a support with a mask."""
    return sorted(
        {kind for case in CASES for kind, shots in case.support.items() if (name, "mask") in shots}
    )
