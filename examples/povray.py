"""Scene -> POV-Ray text -> picture, and the same scene in flat colours -> exact mask."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from kinds import CLASSES, part
from mesh import pov_mesh
from numpy.typing import NDArray
from PIL import Image
from scene import Item, Scene
from textures import Surface, surface

LIGHTS = ("panels", "window", "lamp", "hall", "sun")  # macros Light_... of workshop.inc
FINE = (
    "radiosity { pretrace_start 0.08 pretrace_end 0.03 count 60 nearest_count 10 error_bound 0.6 "
    "low_error_factor 0.6 recursion_limit 1 gray_threshold 0.1 normal off }"
)
QUICK = (
    "radiosity { pretrace_start 0.08 pretrace_end 0.02 count 40 nearest_count 8 error_bound 0.9 "
    "low_error_factor 0.7 recursion_limit 1 gray_threshold 0.2 normal off }"
)
SHARP = 3  # rendered so many halves larger, then averaged: faster than POV-Ray's own way
EXPOSURE = 0.3  # POV-Ray clips at 1; rendering darker keeps the highlights for the tone curve


def available() -> bool:
    """Whether POV-Ray is installed."""
    return shutil.which("povray") is not None


def render(
    scene: Scene, size: tuple[int, int], folder: Path, *, fine: bool = True, noise: float = 0.005
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture [H, W, 3] uint8 and mask [H, W] uint8 (0, or 1 + index in CLASSES) of `scene`.

    `size` is (width, height); `fine` spends more on light; `noise` is the sensor's, of 1.

    Scratch files go to `folder`. Raises RuntimeError with what POV-Ray said when it fails.
    """
    ground = surface(scene.surface, scene.seed)
    Image.fromarray((ground.colour * 255 + 0.5).astype(np.uint8)).save(
        folder / "colour.png", compress_level=1
    )
    Image.fromarray((ground.relief * 65535).astype(np.uint16)).save(
        folder / "relief.png", compress_level=1
    )
    shutil.copy(Path(__file__).with_name("workshop.inc"), folder)
    kinds = sorted({item.kind for item in scene.items})
    (folder / "parts.inc").write_text(
        "\n".join(
            pov_mesh(f"Mesh_{name}", mesh) for kind in kinds for name, mesh, _ in part(kind).pieces
        )
    )
    (folder / "picture.pov").write_text(_text(scene, ground, size, fine, labels=False))
    (folder / "mask.pov").write_text(_text(scene, ground, size, fine, labels=True))
    light = _average(_run(folder, "picture", (size[0] * SHARP // 2, size[1] * SHARP // 2)), size)
    labels = _run(folder, "mask", size)
    mask = np.rint(labels[..., 0] * 255 / 16).astype(np.uint8)
    return develop(light, np.random.default_rng([scene.seed, 5]), noise), mask


def develop(
    light: NDArray[np.float32], rng: np.random.Generator, noise: float
) -> NDArray[np.uint8]:
    """What a camera makes of linear light [H, W, 3]: exposure, vignette, curve, sRGB, noise."""
    height, width, _ = light.shape
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    middle = float(np.exp(np.log(np.maximum(luminance, 1e-3)).mean()))
    gain = 0.155 / middle * (middle / 0.04) ** 0.35  # dark scenes stay darker than light ones
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    exposed = light * gain * (1 - 0.13 * (x**2 + y**2))[..., None]
    curve = exposed * (2.51 * exposed + 0.03) / (exposed * (2.43 * exposed + 0.59) + 0.14)
    shown = np.where(
        curve <= 0.0031308, curve * 12.92, 1.055 * np.maximum(curve, 0.0031308) ** (1 / 2.4) - 0.055
    )
    shown += rng.normal(0, noise, (height, width, 1)) + rng.normal(0, noise / 2, shown.shape)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def _average(light: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Light of a larger render, brought down to `size` (width, height)."""
    planes = [Image.fromarray(np.ascontiguousarray(light[..., c])) for c in range(3)]
    small = [np.asarray(plane.resize(size, Image.Resampling.HAMMING)) for plane in planes]
    return np.maximum(np.stack(small, -1), 0)


def _run(folder: Path, name: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """Linear light [H, W, 3] of `name`.pov. One thread: the same scene gives the same pixels."""
    command = [
        "povray",
        f"+I{name}.pov",
        f"+O{name}.ppm",
        f"+W{size[0]}",
        f"+H{size[1]}",
        "+FP16",
        "File_Gamma=1.0",
        "-D",
        "-GA",
        "+WT1",
        "+L.",
        "Verbose=false",
        "-A",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"POV-Ray could not render {name}.pov: {done.stderr[-600:].strip()}")
    data = (folder / f"{name}.ppm").read_bytes()
    pixels = np.frombuffer(data, ">u2", size[0] * size[1] * 3, len(data) - size[0] * size[1] * 6)
    return (pixels.reshape(size[1], size[0], 3) / 65535).astype(np.float32)


def _vector(values: Iterable[float]) -> str:
    return "<" + ", ".join(f"{value:.5f}" for value in values) + ">"


def _text(scene: Scene, ground: Surface, size: tuple[int, int], fine: bool, labels: bool) -> str:
    """The scene as POV-Ray text; `labels`: parts in the flat colours of their classes."""
    camera = scene.camera
    position, right, up, forward = camera.frame()
    half = float(np.tan(np.radians(camera.fov) / 2))
    lines = [
        "#version 3.7;",
        f"#declare Exposure = {EXPOSURE};",
        f"#declare Grid = {11 if fine else 5};",
        '#include "workshop.inc"',
        '#include "parts.inc"',
        f"camera {{ perspective location {_vector(position)} direction {_vector(forward)}",
        f"  right {_vector(right * 2 * half)} up {_vector(up * 2 * half * size[1] / size[0])} }}",
    ]
    if labels:
        lines.append("global_settings { assumed_gamma 1.0 max_trace_level 2 }")
        lines.append("plane { z, 0 texture { Flat(0) } }")
    else:
        radiosity = FINE if fine else QUICK
        lines.append(f"global_settings {{ assumed_gamma 1.0 max_trace_level 6 {radiosity} }}")
        lines.append(f"Light_{scene.light}()")
        lines.append(f"Ground({ground.extent}, {ground.bump}, {ground.gloss}, {int(ground.metal)})")
    if np.isfinite(scene.rail):
        lines.append(f"Guides({scene.rail}, {int(labels)})")
    lines += [_object(item, labels) for item in scene.items]
    return "\n".join(lines) + "\n"


def _object(item: Item, labels: bool) -> str:
    """One part: its pieces with their materials, turned and shifted into place."""
    label = CLASSES.index(item.kind) + 1 if item.kind in CLASSES else 0
    pieces = []
    for name, _, material in part(item.kind).pieces:
        texture = f"Flat({label})" if labels else f"{material.capitalize()}({item.finish:.5f})"
        pieces.append(f"object {{ Mesh_{name} texture {{ {texture} }} }}")
    matrix = np.concatenate([(item.pose * item.size).T, item.shift[None]]).ravel()
    body = pieces[0] if len(pieces) == 1 else "union { " + " ".join(pieces) + " }"
    return "object { " + body + " matrix " + _vector(matrix) + " }"
