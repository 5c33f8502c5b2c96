"""The parts that lie on belts and benches: shape, materials and the ways each comes to rest.

Six kinds are classes of the data set (PARTS, in the order of their ids); CLUTTER lies among them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mesh import Array, Part, angles, rotation, tube, turn

PARTS = ("bolt", "nut", "gear", "ring", "knob", "spring")
CLUTTER = ("washer", "key", "pin")
Rings = list[tuple["float | Array", "float | Array"]]  # radius and height of each ring
AROUND = 96  # points of a ring; a multiple of six, so that hexagons have their corners


def _polygon(apothem: float, sides: int, around: int = AROUND, sharpness: float = 70.0) -> Array:
    """[N] radius of a polygon with slightly rounded corners."""
    facing = np.cos(angles(around)[:, None] - angles(sides)[None])
    rounded: Array = apothem * (np.maximum(facing, 0) ** sharpness).sum(1) ** (-1 / sharpness)
    return rounded


def _rows(rings: Rings, around: int = AROUND) -> tuple[Array, Array]:
    radius = np.stack([np.broadcast_to(r, around) for r, _ in rings])
    return radius, np.stack([np.broadcast_to(z, around) for _, z in rings])


def _thread(radius: float, start: float, end: float, pitch: float) -> Rings:
    """Rings of an outside thread: a helical groove that fades at both ends."""
    rings: Rings = []
    for z in np.arange(start, end, pitch / 9):
        wave = np.abs(((z / pitch - angles(AROUND) / (2 * np.pi)) % 1) * 2 - 1)
        fade = min(1.0, (z - start) / pitch, (end - z) / pitch)
        rings.append((radius - 0.62 * pitch * fade * np.clip(wave * 1.25 - 0.12, 0, 1), float(z)))
    return rings


def _bolt() -> Part:
    radius, length, apothem, head = 0.46, 3.7, 0.83, 0.66
    outline, top = _polygon(apothem, 6), length + head
    flat = 0.93 * apothem
    drop = np.maximum(outline - flat, 0) * 0.5
    shaft: Rings = [(1e-4, 0), (radius - 0.17, 0), (radius - 0.16, 0.002), (radius - 0.1, 0.07)]
    shaft += _thread(radius, 0.1, 2.75, 0.15)
    shaft += [
        (radius, 2.8),
        (radius, length - 0.04),
        (radius + 0.04, length),
        (flat, length),
        (flat, length + 0.03),
        (outline - 0.02, length + 0.03),
        (outline, length + 0.06),
        (outline, top - drop - 0.02),
        (outline - 0.02, top - drop),
        ((outline + flat) / 2, top - drop / 2),
        (flat, top - 0.002),
        (flat - 0.02, top),
        (0.55, top),
        (0.5, top - 0.04),
        (1e-4, top - 0.04),
    ]
    # On its side it touches the ground with a flat of the head and with the end of the thread.
    tilt = float(np.degrees(np.arcsin((apothem - radius + 0.05) / length)))
    lying = rotation(1, 90 - tilt)
    return Part((("Bolt", turn(*_rows(shaft)), "zinc"),), (lying, lying, lying, rotation(0, 180)))


def _nut() -> Part:
    apothem, height, bore = 1.08, 0.95, 0.62
    outline, flat = _polygon(apothem, 6), 0.95 * apothem
    drop = np.maximum(outline - flat, 0) * 0.5
    collar = height + 0.3
    body: Rings = [
        (bore + 0.07, 0),
        (flat - 0.02, 0),
        (flat, 0.002),
        (outline - 0.01, drop),
        (outline, drop + 0.02),
        (outline, height - drop - 0.02),
        (outline - 0.02, height - drop),
        (flat, height),
        (flat - 0.05, height + 0.02),
        (flat - 0.07, height + 0.06),
        (flat - 0.07, collar - 0.1),
        (flat - 0.1, collar - 0.02),
        (flat - 0.17, collar),
        (flat - 0.24, collar - 0.02),
    ]
    body += [(flat - 0.25, height), (bore, height)]
    body += [(r, z) for r, z in reversed(_thread(bore + 0.08, 0.06, height - 0.02, 0.15))]
    outer, inner, low = flat - 0.255, bore - 0.02, height - 0.1
    insert: Rings = [
        (inner, low),
        (outer, low),
        (outer, collar - 0.08),
        (outer - 0.03, collar - 0.06),
        (inner + 0.05, collar - 0.06),
        (inner, collar - 0.1),
    ]
    pieces = (
        ("Nut", turn(*_rows(body), closed=True), "steel"),
        ("Insert", turn(*_rows(insert), closed=True), "nylon"),
    )
    return Part(pieces, (np.eye(3), np.eye(3), rotation(0, 180)))


def _gear() -> Part:
    teeth, root, tip, height = 22, 1.50, 1.80, 0.62
    around = teeth * 26
    wave = np.abs(((teeth * angles(around) / (2 * np.pi)) % 1) * 2 - 1)
    outline = root + (tip - root) * np.clip((wave - 0.25) / 0.42, 0, 1)
    rim, hub, bore, web = 1.28, 0.66, 0.34, 0.17
    rings: Rings = [
        (outline - 0.04, 0),
        (outline, 0.04),
        (outline, height - 0.04),
        (outline - 0.04, height),
        (rim + 0.04, height),
        (rim, height - 0.04),
        (rim - 0.02, height - web + 0.03),
        (rim - 0.06, height - web),
        (hub + 0.06, height - web),
        (hub + 0.02, height - web + 0.04),
        (hub, height + 0.16),
        (hub - 0.04, height + 0.2),
        (bore + 0.04, height + 0.2),
        (bore, height + 0.16),
        (bore, 0.04),
        (bore + 0.04, 0),
    ]
    return Part(
        (("Gear", turn(*_rows(rings, around), closed=True), "brass"),),
        (np.eye(3), np.eye(3), rotation(0, 180)),
    )


def _ring() -> Part:
    angle = angles(28)[:, None]
    wire = 0.31
    radius = 1.42 + wire * np.cos(angle) + np.zeros(AROUND)
    ring = turn(radius, wire + wire * np.sin(angle), closed=True)
    return Part((("Ring", ring, "rubber"),), (np.eye(3),))


def _knob() -> Part:
    lobes, around = 6, 180
    outline = 1.42 + 0.19 * np.cos(lobes * angles(around))
    base: Rings = [(0.3, 0.05), (0.34, 0.0), (0.74, 0.0), (0.78, 0.04), (0.8, 0.42), (0.86, 0.48)]
    skirt: Rings = [(outline - 0.12, 0.5), (outline - 0.03, 0.54), (outline, 0.62), (outline, 0.98)]
    for bend in np.radians(np.arange(15, 91, 15)):  # a generous round over the edge
        skirt.append((outline - 0.22 * (1 - np.cos(bend)), 0.98 + 0.22 * np.sin(bend)))
    crown: Rings = [
        (0.95, 1.24),
        (0.72, 1.26),
        (0.68, 1.24),
        (0.66, 1.18),
        (0.5, 1.165),
        (0.25, 1.16),
        (1e-4, 1.16),
    ]
    bush: Rings = [
        (0.16, 0.5),
        (0.16, -0.04),
        (0.2, -0.06),
        (0.29, -0.06),
        (0.31, -0.03),
        (0.31, 0.5),
    ]
    pieces = (
        ("Knob", turn(*_rows(base + skirt + crown, around)), "plastic"),
        ("Bush", turn(*_rows(bush), closed=True), "brass"),
    )
    return Part(pieces, (np.eye(3), np.eye(3), np.eye(3), rotation(0, 180)))


def _spring() -> Part:
    turns, radius, wire, length = 8.5, 0.66, 0.13, 3.4
    t = np.linspace(0, turns, int(turns * 40))
    pitch = np.clip(np.minimum(t, turns - t) - 0.6, 0, 0.6) / 0.6  # the end coils are closed
    z = wire + np.cumsum(2 * wire * 1.02 / 40 * (1 - pitch) + pitch * (length / (turns - 1.6) / 40))
    path = np.stack([radius * np.cos(t * 2 * np.pi), radius * np.sin(t * 2 * np.pi), z], -1)
    lying = rotation(1, 90)
    return Part((("Spring", tube(path, wire), "coated"),), (lying, lying, lying, np.eye(3)))


def _washer() -> Part:
    inner: Rings = [(0.65, 0.17), (0.62, 0.14), (0.62, 0.03), (0.65, 0)]
    outer: Rings = [(1.17, 0), (1.2, 0.03), (1.2, 0.14), (1.17, 0.17)]
    rows = _rows(inner + outer)
    return Part((("Washer", turn(*rows, closed=True), "steel"),), (np.eye(3),))


def _key() -> Part:
    bend = np.radians(np.linspace(0, 90, 14))
    corner = np.stack([3.2 + 0.7 * np.sin(bend), 0.7 * (1 - np.cos(bend)), 0 * bend], -1)
    long = np.stack([np.linspace(-2.4, 3.1, 8), np.zeros(8), np.zeros(8)], -1)
    short = np.stack([np.full(4, 3.9), np.linspace(0.8, 2.0, 4), np.zeros(4)], -1)
    key = tube(np.concatenate([long, corner, short]), 0.26, 6, np.pi / 6)
    return Part((("Key", key, "oxide"),), (np.eye(3),))


def _pin() -> Part:
    rows = _rows([(1e-4, 0), (0.34, 0), (0.42, 0.1), (0.42, 2.7), (0.34, 2.8), (1e-4, 2.8)])
    return Part((("Pin", turn(*rows), "steel"),), (rotation(1, 90),))


MAKERS: dict[str, Callable[[], Part]] = {
    "bolt": _bolt,
    "nut": _nut,
    "gear": _gear,
    "ring": _ring,
    "knob": _knob,
    "spring": _spring,
    "washer": _washer,
    "key": _key,
    "pin": _pin,
}
