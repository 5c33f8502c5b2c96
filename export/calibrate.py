"""Calibration: between what bounds a graph's tensors lie, on real pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from export.plain import session_of, with_outputs
from export.quantize import Flavour, Range
from fsseg_sdk.errors import FssegError, InputError
from fsseg_sdk.image import Picture, read_image
from fsseg_sdk.preprocess import plan, preprocess

LEAST, MOST = 8, 64
"""Different pictures that a calibration needs, and that it takes of a folder with more."""
SAMPLED = 8192  # values of a tensor that are kept of each picture
SHARES = tuple(float(share) for share in np.geomspace(1.0, 0.1, 24))
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "pictures"
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


def read_pictures(folder: Path | None, most: int = MOST) -> list[Picture]:
    """The pictures of a folder, evenly spread over its sorted names; None: those that the examples
    come with.

    Raises:
        InputError: the folder cannot be read, has a picture that is broken or of one colour, or
            has fewer than `LEAST` different ones.
    """
    where = EXAMPLES if folder is None else folder
    if not where.is_dir():
        raise _refused(f"a folder with {LEAST} pictures or more", f"no folder {where.name!r}")
    files = sorted(p for p in where.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if folder is None:
        files = [file for file in files if file.suffix == ".webp"]  # the others are masks
    if len(files) > most:
        files = [files[index * len(files) // most] for index in range(most)]
    pictures: dict[bytes, Picture] = {}
    for file in files:
        try:
            picture = read_image(file)
        except FssegError as error:
            raise _refused("pictures that can be read", f"{file.name!r}: {error.got}") from error
        if int(np.ptp(picture.pixels.reshape(-1, 3), axis=0).max()) == 0:
            raise _refused("pictures that show something", f"{file.name!r}, which is of one colour")
        pictures.setdefault(picture.pixels.tobytes(), picture)
    if len(pictures) < LEAST:
        raise _refused(f"{LEAST} different pictures or more", f"{len(pictures)} in {where.name!r}")
    return list(pictures.values())


def _refused(expected: str, got: str) -> InputError:
    return InputError(
        "--calibration",
        expected=expected,
        got=got,
        remedy="Name a folder of pictures such as those that will be segmented, 16 or more.",
    )


def inputs_of(
    pictures: Sequence[Picture], entry: Mapping[str, Any]
) -> list[dict[str, NDArray[np.float32]]]:
    """The encoder's feeds, made as the bundle makes them. entry: "input" of its manifest."""
    size = (int(entry["size"][0]), int(entry["size"][1]))
    mean, std = tuple(entry["mean"]), tuple(entry["std"])
    return [
        {"image": preprocess(p, plan(entry["geometry"], p.size, size), mean, std, threads=1)}
        for p in pictures
    ]


def measure(
    model: onnx.ModelProto,
    names: Sequence[str],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
) -> Mapping[Flavour, dict[str, Range]]:
    """For each flavour the bounds of these tensors to quantise with: those with the least squared
    error of a value, which lie within the least and the largest where a few values lie far out."""
    session = session_of(with_outputs(model, names, TensorProto.FLOAT), optimise=False)
    seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for each in feeds:
        for name, value in zip(names, session.run(list(names), dict(each)), strict=True):
            seen[name].append(_sample(value.ravel()))
    values = {name: np.concatenate(parts) for name, parts in seen.items()}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"tensor {name!r}: expected finite values, got NaN or infinity")
    return {
        "s8s8": {name: _symmetric(value) for name, value in values.items()},
        "u8s8": {name: _asymmetric(value) for name, value in values.items()},
    }


def _sample(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evenly spaced values of one picture, with the least and the largest."""
    step = max(1, flat.size // SAMPLED)
    return np.concatenate([flat[::step], [flat.min(), flat.max()]]).astype(np.float32)


def _error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of 256 steps from low to high."""
    step = max((high - low) / 255, 1e-12)
    index = np.clip(np.rint((values - low) / step), 0, 255)
    return float(np.square(index * step + low - values).mean())


def _symmetric(values: NDArray[np.float32]) -> Range:
    most = float(np.abs(values).max())
    bounds = [most * share for share in SHARES]
    best = min(bounds, key=lambda bound: _error(values, -bound, bound))
    return Range(-best, best)


def _asymmetric(values: NDArray[np.float32]) -> Range:
    """Each end in turn; 0 is always within, as convolutions pad with it."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    ends = low, high
    for _ in range(2):
        high = min((ends[1] * s for s in SHARES), key=lambda end: _error(values, low, end))
        low = min((ends[0] * s for s in SHARES), key=lambda end: _error(values, end, high))
    return Range(low, high)
