"""Surfaces to lie on, made of noise: colour and relief as arrays that tile without a seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """`colour` [n, n, 3] float32 sRGB 0..1; `relief` [n, n] float32 height 0..1; `extent` in cm.

    `bump` is the height in cm of relief 1, `gloss` 0..1 how polished, `metal` whether it mirrors in
    its own colour.
    """

    colour: Array
    relief: Array
    extent: float
    bump: float
    gloss: float
    metal: bool = False


def noise(
    rng: np.random.Generator, size: int, slope: float, stretch: float = 1.0, low: float = 1.0
) -> Array:
    """[size, size] noise with mean 0 and deviation 1 whose amplitude falls with frequency^slope.

    `stretch` > 1 draws it out along x; `low` leaves out waves longer than size / low.
    """
    fy = np.fft.fftfreq(size)[:, None].astype(np.float32) * size
    fx = np.fft.rfftfreq(size)[None].astype(np.float32) * size * stretch
    frequency = np.sqrt(fx**2 + fy**2)
    amplitude = np.where(frequency < low, 0, np.maximum(frequency, 1e-3) ** -slope)
    phase = rng.uniform(0, 2 * np.pi, amplitude.shape).astype(np.float32)
    field = np.fft.irfft2(amplitude * np.exp(1j * phase), (size, size))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _tint(base: tuple[float, float, float], value: Array, warm: Array | float = 0.0) -> Array:
    """Base colour made lighter by `value` and warmer by `warm`."""
    shift = np.stack([value + warm, value, value - warm], -1)
    return np.clip(np.asarray(base, np.float32) * (1 + shift), 0, 1).astype(np.float32)


def _scratches(rng: np.random.Generator, size: int, count: int, along: float) -> Array:
    """[size, size] 0..1: thin straight scuffs, nearly parallel to x where `along` is near 1."""
    field = np.zeros((size, size), np.float32)
    for _ in range(count):
        length = int(rng.uniform(0.02, 0.25) * size)
        angle = rng.normal(0, 1.2 * (1 - along) + 0.02)
        y, x = rng.integers(0, size, 2)
        t = np.arange(length)
        fade = np.sin(np.pi * t / max(length, 1)) * rng.uniform(0.15, 1.0)
        rows = (y + t * np.sin(angle) + 1.5 * np.sin(t / 90 + y)).astype(int) % size
        columns = (x + t * np.cos(angle)).astype(int) % size
        field[rows, columns] = np.maximum(field[rows, columns], fade)
    return field


def belt(rng: np.random.Generator, size: int, colour: tuple[float, float, float]) -> Surface:
    """A PVC belt: a fine cross weave, streaks along its travel, scuffs and dust."""
    extent = 36.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(2 * np.pi / size)
    threads = round(extent / 0.17)
    weave = (np.sin(x * threads) * np.sin(y * threads) * 0.5 + 0.5).astype(np.float32)
    streaks, blotches, dust = (
        noise(rng, size, 0.9, 30),
        noise(rng, size, 1.5),
        noise(rng, size, 0.5, 1, 60),
    )
    scuffs = _scratches(rng, size, size // 9, 0.9)
    value = 0.022 * streaks + 0.05 * blotches + 0.05 * (weave - 0.5) + 0.03 * dust
    value = value + 0.5 * np.clip(noise(rng, size, 0.3, 1, 90) - 3.1, 0, 1) + 0.16 * scuffs
    tint = _tint(colour, value)
    grey = tint.mean(-1, keepdims=True) * np.float32(1.15) + np.float32(0.02)
    worn = np.clip(0.18 + 0.10 * blotches + 0.05 * streaks, 0, 0.5)[..., None].astype(np.float32)
    return Surface(
        tint * (1 - worn) + grey * worn,
        np.clip(weave * 0.8 + 0.05 * dust, 0, 1),
        extent,
        0.006,
        0.10,
    )


def wood(rng: np.random.Generator, size: int, colour: tuple[float, float, float]) -> Surface:
    """A worn bench top of boards along x, each cut from another place of another log."""
    boards, extent = 4, 40.0
    rows = size // boards
    albedo = np.empty((size, size, 3), np.float32)
    relief = np.empty((size, size), np.float32)
    warp, fibre = noise(rng, size, 1.9, 7), noise(rng, size, 0.55, 45)
    pores, slow = noise(rng, size, 0.15, 26, 40), noise(rng, size, 1.6, 3)
    x = np.linspace(0, 2 * np.pi, size, endpoint=False, dtype=np.float32)[None]
    for k in range(boards):
        y = np.linspace(-0.5, 0.5, rows, dtype=np.float32)[:, None]
        part = slice(k * rows, (k + 1) * rows)
        pith = rng.uniform(0.1, 0.9) * rng.choice([-1, 1])
        depth = rng.uniform(0.25, 0.6) + 0.10 * np.sin(x + rng.uniform(0, 6))
        depth = depth + 0.05 * np.sin(2 * x + rng.uniform(0, 6))
        shift = int(rng.integers(0, size))
        bent = np.roll(warp, shift, 1)[part]
        log = np.sqrt((y - pith) ** 2 + depth**2) + 0.030 * bent
        year = (log * rng.uniform(15, 27)) % 1
        late = np.clip(year**3 - np.clip((year - 0.93) * 14, 0, 1), 0, 1)
        grain = np.roll(fibre, shift, 1)[part]
        dark = np.clip(np.roll(pores, shift, 1)[part] - 1.3, 0, 1.5)
        value = rng.normal(0, 0.07) - 0.20 * late + 0.05 * grain - 0.14 * dark + 0.05 * slow[part]
        board = _tint(
            colour, value.astype(np.float32), (0.05 * late + rng.normal(0, 0.02)).astype(np.float32)
        )
        seam = np.clip(1 - (0.5 - np.abs(y)) * rows / (size * 0.0022), 0, 1) + 0 * x
        albedo[part] = board * (1 - 0.82 * seam[..., None])
        relief[part] = np.clip(0.72 + 0.05 * grain - 0.15 * dark - 0.05 * late - 0.7 * seam, 0, 1)
    scuffs = np.minimum(_scratches(rng, size, size // 16, 0.3), 1)
    stain = np.clip(noise(rng, size, 1.7) - 0.9, 0, 1.2)[..., None] * np.float32(0.16)
    return Surface(
        np.clip(albedo * (1 - stain) * (1 - 0.22 * scuffs[..., None]), 0, 1),
        relief,
        extent,
        0.03,
        0.16,
    )


def steel(rng: np.random.Generator, size: int, colour: tuple[float, float, float]) -> Surface:
    """A brushed steel table with hairline scratches."""
    brushed, long = noise(rng, size, 0.12, 60), noise(rng, size, 0.6, 120)
    clouds, scuffs = noise(rng, size, 1.6), _scratches(rng, size, size // 6, 0.2)
    value = 0.045 * brushed + 0.03 * long + 0.04 * clouds - 0.12 * scuffs
    relief = np.clip(0.5 + 0.12 * brushed + 0.06 * long - 0.25 * scuffs, 0, 1)
    return Surface(_tint(colour, value, 0.008 * clouds), relief, 30.0, 0.004, 0.55, metal=True)


def stone(rng: np.random.Generator, size: int, colour: tuple[float, float, float]) -> Surface:
    """Cast concrete: mottled, speckled, with small pits."""
    mottle, fine, speckle = (
        noise(rng, size, 1.3),
        noise(rng, size, 0.4, 1, 30),
        noise(rng, size, 0.1, 1, 100),
    )
    pits = np.clip(noise(rng, size, 0.9, 1, 60) - 2.4, 0, 1)
    value = 0.07 * mottle + 0.045 * fine + 0.05 * speckle - 0.55 * pits
    relief = np.clip(0.6 + 0.06 * fine + 0.05 * speckle - 0.6 * pits, 0, 1)
    return Surface(_tint(colour, value, 0.012 * noise(rng, size, 1.5)), relief, 34.0, 0.035, 0.06)


def cloth(rng: np.random.Generator, size: int, colour: tuple[float, float, float]) -> Surface:
    """Plain-woven linen: uneven threads over and under each other."""
    extent = 36.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) * np.float32(2 * np.pi / size)
    threads = round(extent / 0.22)
    sway = 0.35 * noise(rng, size, 1.2)
    warp, weft = np.abs(np.sin(x * threads / 2 + sway)), np.abs(np.sin(y * threads / 2 + sway))
    over = np.sin(x * threads / 2 + sway) * np.sin(y * threads / 2 + sway) > 0
    weave = np.where(over, warp, weft).astype(np.float32)
    slubs = np.where(over, noise(rng, size, 0.35, 0.04), noise(rng, size, 0.35, 25))
    value = 0.16 * (weave - 0.75) + 0.045 * slubs + 0.03 * noise(rng, size, 1.4)
    return Surface(_tint(colour, value), np.clip(weave, 0, 1), extent, 0.02, 0.0)


SURFACES: dict[
    str,
    tuple[
        Callable[[np.random.Generator, int, tuple[float, float, float]], Surface],
        tuple[float, float, float],
    ],
] = {
    "green belt": (belt, (0.09, 0.33, 0.25)),
    "black belt": (belt, (0.16, 0.165, 0.175)),
    "blue belt": (belt, (0.16, 0.34, 0.53)),
    "white belt": (belt, (0.72, 0.73, 0.72)),
    "oak bench": (wood, (0.70, 0.52, 0.34)),
    "walnut bench": (wood, (0.44, 0.30, 0.20)),
    "beech bench": (wood, (0.80, 0.66, 0.49)),
    "steel table": (steel, (0.62, 0.635, 0.65)),
    "concrete": (stone, (0.56, 0.55, 0.53)),
    "slate": (stone, (0.25, 0.265, 0.28)),
    "linen": (cloth, (0.80, 0.76, 0.68)),
}


def surface(name: str, seed: int, size: int = 2048) -> Surface:
    """The named surface, of SURFACES. The same seed and size give the same pixels."""
    maker, colour = SURFACES[name]
    return maker(np.random.default_rng([seed, 77]), size, colour)
