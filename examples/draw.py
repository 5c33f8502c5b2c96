"""Draw a small labelled data set of parts with numpy and Pillow alone, in seconds.

    python examples/draw.py dataset OUT [--count 60] [--seed 0] [--size 320]

It has the classes, surfaces and layout of `render.py dataset`, seen from straight above and simply
shaded. The same arguments give the same pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from layout import write_dataset
from numpy.typing import NDArray
from parts import CLUTTER, PARTS
from PIL import Image, ImageFilter
from reliefs import MATERIALS, RADIUS, RELIEFS, Field
from textures import SURFACES, surface

SHARP = 2  # drawn so many times larger, then averaged

# linear colour, share of it that scatters, share that mirrors the room, exponent of the highlight
FINISHES: dict[str, tuple[tuple[float, float, float], float, float, float]] = {
    "zinc": ((0.62, 0.65, 0.70), 0.35, 0.85, 30),
    "steel": ((0.58, 0.57, 0.56), 0.35, 0.80, 40),
    "brass": ((0.76, 0.50, 0.16), 0.40, 0.85, 30),
    "oxide": ((0.05, 0.05, 0.05), 0.80, 0.10, 25),
    "rubber": ((0.022, 0.022, 0.024), 0.90, 0.02, 16),
    "plastic": ((0.52, 0.026, 0.02), 0.90, 0.04, 60),
    "nylon": ((0.025, 0.16, 0.50), 0.90, 0.04, 30),
    "coated": ((0.025, 0.12, 0.44), 0.85, 0.10, 60),
}


@lru_cache(maxsize=len(SURFACES))
def _ground(name: str, seed: int) -> Field:
    """[768, 768, 3] linear colour of a surface."""
    return surface(name, seed, 768).colour.astype(np.float64) ** 2.2


def _blur(field: Field, radius: float) -> Field:
    """Field with values 0..1, blurred."""
    image = Image.fromarray((field * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float64) / 255


def _shade(
    kind: str, height: Field, second: NDArray[np.bool_], pixel: float, light: Field, finish: float
) -> Field:
    """[H, W, 3] light that comes from a part; `pixel` is its size in cm."""
    slope_y, slope_x = np.gradient(height, pixel)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    half = light + np.array([0, 0, 1.0])
    half /= np.linalg.norm(half)
    facing = np.maximum(normal @ light, 0)
    gleam = np.maximum(normal @ half, 0)
    mirrored_x, mirrored_y = (
        2 * normal[..., 0] * normal[..., 2],
        2 * normal[..., 1] * normal[..., 2],
    )
    room = 0.30 + 0.26 * np.sin(5 * mirrored_x + 2 * mirrored_y + 6 * finish) + 0.25 * facing
    shown = np.zeros((*height.shape, 3))
    for place, name in zip((~second, second), MATERIALS[kind], strict=True):
        colour, scatter, mirror, exponent = FINISHES[name]
        tint = np.array(colour) * (0.85 + 0.3 * finish)
        metal = mirror > 0.5  # metals tint what they mirror, the rest does not
        spark, own = (0.6, tint) if metal else (0.22, np.ones(3))
        scattered = scatter * (0.25 + 0.85 * facing)
        mirrored = mirror * room + spark * gleam**exponent
        lit = tint * scattered[..., None] + own * mirrored[..., None]
        shown[place] = lit[place]
    return shown


def _shifted(layer: Field, down: int, across: int) -> Field:
    """The layer moved; nothing comes in at the borders."""
    moved = np.roll(layer, (down, across), (0, 1))
    moved[: down if down > 0 else 0] = moved[down if down < 0 else len(moved) :] = 0
    moved[:, : across if across > 0 else 0] = moved[
        :, across if across < 0 else moved.shape[1] :
    ] = 0
    return moved


def _places(
    kinds: list[str], width: float, height: float, rng: np.random.Generator
) -> list[tuple[str, float, float]]:
    """Where each part's middle lies, in cm; what finds no room after 200 tries is left out."""
    placed: list[tuple[str, float, float]] = []
    for kind in kinds:
        reach = RADIUS[kind]
        for _ in range(200):
            x, y = (
                rng.uniform(reach * 0.9, width - reach * 0.9),
                rng.uniform(reach * 0.9, height - reach * 0.9),
            )
            if all(
                np.hypot(x - a, y - b) > 0.9 * (reach + RADIUS[other]) for other, a, b in placed
            ):
                placed.append((kind, x, y))
                break
    return placed


def picture(
    rng: np.random.Generator, size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture [3/4 size, size, 3] and its labels (0 background, 1 + index in PARTS)."""
    name = str(rng.choice(list(SURFACES)))
    kinds = [str(kind) for kind in rng.choice(PARTS, int(rng.integers(2, 5)), replace=False)]
    kinds += [str(kind) for kind in rng.choice(kinds, int(rng.integers(0, 3)))]
    kinds += [str(kind) for kind in rng.choice(CLUTTER, int(rng.integers(0, 3)))]
    span = float(rng.uniform(12, 17))
    columns, rows = size * SHARP, size * 3 // 4 * SHARP
    pixel = span / columns
    azimuth, low = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1)
    light = np.array([np.cos(azimuth) * low, np.sin(azimuth) * low, 1.0])
    light /= np.linalg.norm(light)
    tile = np.roll(_ground(name, seed), tuple(rng.integers(0, 768, 2)), (0, 1))
    base = np.tile(tile, (rows // 768 + 1, columns // 768 + 1, 1))[:rows, :columns]
    shown, labels = base * (0.35 + 0.65 * light[2]), np.zeros((rows, columns), np.uint8)
    dark, parts = np.zeros((rows, columns)), []
    y, x = (np.mgrid[0:rows, 0:columns] + 0.5) * pixel
    for kind, middle_x, middle_y in _places(kinds, span, span * rows / columns, rng):
        top, left = (max(int((m - RADIUS[kind] - 0.3) / pixel), 0) for m in (middle_y, middle_x))
        window = (
            slice(top, int((middle_y + RADIUS[kind] + 0.3) / pixel)),
            slice(left, int((middle_x + RADIUS[kind] + 0.3) / pixel)),
        )
        turn = rng.uniform(0, 2 * np.pi)
        dx, dy = x[window] - middle_x, y[window] - middle_y
        height, second = RELIEFS[kind](
            dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        )
        parts.append(
            (window, height, _shade(kind, height, second, pixel, light, float(rng.uniform())))
        )
        for step in np.linspace(0.15, 1, 6):  # the shadow, layer upon layer
            reach = height.max() * step / light[2] / pixel
            layer = np.zeros_like(dark)
            layer[window] = height >= height.max() * step * 0.98
            dark = np.maximum(dark, _shifted(layer, int(-light[1] * reach), int(-light[0] * reach)))
        if kind in PARTS:
            labels[window][height > 0] = PARTS.index(kind) + 1
    shown *= 1 - 0.72 * _blur(dark, 0.12 / pixel)[..., None]
    for window, height, lit in parts:
        shown[window] = np.where((height > 0)[..., None], lit, shown[window])
    return _develop(shown, rng), _reduce(labels)


def _develop(shown: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Average down, then exposure, white balance, a soft shoulder, gamma and noise."""
    rows, columns, _ = shown.shape
    small = shown.reshape(rows // SHARP, SHARP, columns // SHARP, SHARP, 3).mean((1, 3))
    small = small * rng.uniform(0.8, 1.3) * (1 + rng.normal(0, 0.04, 3))
    curve = (1 - np.exp(-1.35 * np.maximum(small, 0))) ** (1 / 2.2) + rng.normal(
        0, 0.012, small.shape
    )
    return (np.clip(curve, 0, 1) * 255 + 0.5).astype(np.uint8)


def _reduce(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] -> [H / SHARP, W / SHARP]: the label of at least half of the small pixels."""
    rows, columns = labels.shape
    cells = labels.reshape(rows // SHARP, SHARP, columns // SHARP, SHARP).swapaxes(1, 2)
    return np.sort(cells.reshape(rows // SHARP, columns // SHARP, -1), axis=-1)[
        ..., SHARP * SHARP // 2
    ]


def main() -> int:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    data = modes.add_parser("dataset", help="a labelled data set")
    data.add_argument("out", type=Path)
    data.add_argument("--count", type=int, default=60)
    data.add_argument("--seed", type=int, default=0)
    data.add_argument(
        "--size", type=int, default=320, help="width in pixels, a multiple of 4 (default: 320)"
    )
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.size < 32 or arguments.size % 4:
        parser.error("--count must be at least 1, --size a multiple of 4 and at least 32")

    if (arguments.out / "index.jsonl").exists():
        parser.error(f"{arguments.out} holds a data set already; name an empty folder")

    def pictures() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for number in range(arguments.count):
            yield picture(
                np.random.default_rng([arguments.seed, number]), arguments.size, arguments.seed
            )

    source = f"examples/draw.py dataset --seed {arguments.seed} --size {arguments.size}"
    write_dataset(
        arguments.out, "parts", PARTS, source, pictures(), "drawn from above, simply shaded"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
