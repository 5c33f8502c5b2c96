"""What a query gives back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .image import Picture, read_image
from .preprocess import Geometry, bilinear_samples

__all__ = ["Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """The segmentation of one query of size (H, W) into N classes. Immutable.

    classes: names in the order of the labels 1..N.
    raw_labels: uint8 [H, W], the method's answer as if every class were in the picture; an
        `ops.DeviceArray` where labels were left on a device: `labels` and `mask` are copies then.
    logits: float32 [P, h, w], background first, on a feature grid; planes: uint8 [P], the label
        that each plane stands for, a class may have several; None: 0..N, one each. geometry: how
        that grid lies over the picture; activation: what makes scores of logits.
    evidence: float32 [N+1, h, w], what the scores in `present` were made of; None: of the logits.
    present: how sure it is, 0..1, that a class is in the picture; found from `threshold` on.
        calibrated: whether these scores are probabilities, or only rank pictures.
    timings: milliseconds of decode, preprocess, encoder, match, label and total.
    bundle, method, backend, device, precision: what really ran. dropped: frames that a stream left
        out just before this one. warnings: what the user should know. places: the device where
        preprocess, encoder, match and label ran; "replayed" names those of them that were enqueued
        as one recorded CUDA graph.
    picture: the query, for `overlay`; where an array was given this is a view of it, so draw
        before you reuse a camera's buffer, or hand `overlay` the picture.
    """

    classes: tuple[str, ...]
    raw_labels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    geometry: Geometry
    present: Mapping[str, float]
    threshold: float = 0.5
    calibrated: bool = False
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    bundle: str = ""
    method: str = ""
    backend: str = ""
    device: str = ""
    precision: str = ""
    dropped: int = 0
    picture: Picture | None = None
    evidence: NDArray[np.float32] | None = None
    planes: NDArray[np.uint8] | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, axes = len(self.classes) + 1, (self.raw_labels.ndim, self.logits.ndim)
        names, labels = tuple(self.present), range(count)
        own = labels if self.planes is None else self.planes.tolist()
        fits = axes == (2, 3) and self.size == self.geometry.image_size
        planned = sorted(set(own)) == list(labels) and len(self.logits) == len(own)
        if not fits or not planned or names != self.classes:
            raise InputError(
                "result",
                expected=f"labels {self.geometry.image_size}, {len(own)} logits of all of "
                f"0..{count - 1}, {self.classes}",
                got=f"labels {self.raw_labels.shape}, logits {self.logits.shape} of "
                f"{list(own)}, {names}",
                remedy="Build results with what one query gave.",
            )
        object.__setattr__(self, "present", MappingProxyType(dict(self.present)))
        object.__setattr__(self, "timings", MappingProxyType(dict(self.timings)))
        object.__setattr__(self, "places", MappingProxyType(dict(self.places)))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the query."""
        return int(self.raw_labels.shape[0]), int(self.raw_labels.shape[1])

    @property
    def found(self) -> tuple[str, ...]:
        """The classes that are in the picture: their score reaches the threshold."""
        return tuple(name for name, score in self.present.items() if score >= self.threshold)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 [H, W]: 0 background, 1..N the classes. Classes not found are background here."""
        keep = np.arange(256, dtype=np.uint8)
        keep[[n for n, name in enumerate(self.classes, 1) if name not in self.found]] = 0
        raw = self.raw_labels
        if not isinstance(raw, np.ndarray):
            raw = raw.to_host()
        return raw if len(self.found) == len(self.classes) else keep[raw]

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """bool [H, W]: pixels of any class that was found."""
        return self.labels > 0

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """float32 [N+1, H, W], background first: how sure each pixel's classes are. Made on demand.

        The logits, upsampled bilinearly, of a class with several planes the largest, then the
        activation; with "sigmoid" the background is 1 less the largest of the classes. The largest
        is `raw_labels`, up to rounding: a sigmoid is 1.0 from a logit of about 17 on, so that two
        classes that are both so sure score the same here, while the labels still tell them apart.
        """
        scores = self._upsampled()
        if self.activation == "softmax":
            scores -= scores.max(axis=0)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=0)
        elif self.activation == "sigmoid":
            np.tanh(scores * np.float32(0.5), out=scores)  # the same, without overflow
            scores = (scores + 1) * np.float32(0.5)
            np.subtract(1, scores[1:].max(axis=0), out=scores[0])
        return scores

    def _upsampled(self) -> NDArray[np.float32]:
        """[N+1, H, W]: of each class the largest of its planes."""
        height, width = self.size
        rows, columns = self.geometry.extent((self.logits.shape[1], self.logits.shape[2]))
        wide = _interpolated(self.logits, 2, width, columns)
        if self.planes is None:
            return _interpolated(wide, 1, height, rows)
        found = np.full((len(self.classes) + 1, height, width), -np.inf, np.float32)
        for plane, label in enumerate(self.planes):  # never all planes of all classes at once
            own = _interpolated(wide[plane : plane + 1], 1, height, rows)[0]
            np.maximum(found[label], own, out=found[label])
        return found

    def overlay(self, picture: object = None, *, legend: bool = True) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]: the picture with tinted regions, outlines and a legend.

        picture: anything `read_image` takes, of the query's size; by default the query itself. It
        is left as it is. Raises InputError when there is none or its size differs.
        """
        from .overlay import Entry, draw_overlay

        if picture is None and self.picture is None:
            raise InputError(
                "overlay, picture",
                expected="the picture that was segmented",
                got="none: this result was made without keeping it",
                remedy="Pass it: result.overlay(picture).",
            )
        shown = self.picture if picture is None else picture
        base = read_image(shown, "overlay, picture").on_host()
        if base.size != self.size:
            height, width = self.size
            raise InputError(
                "overlay, picture",
                expected=f"{width} x {height} pixels, as the query",
                got=f"{base.size[1]} x {base.size[0]}",
                remedy="Pass the picture that was segmented.",
            )
        entries = [
            Entry(label, name, self.present[name], name in self.found)
            for label, name in enumerate(self.classes, 1)
        ]
        return draw_overlay(base.pixels, self.labels, entries, legend=legend)

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, in plain Python types: what `to_json` writes.

        Per class: label, score, found, pixels, share of the picture, and box [left, top, right,
        bottom] (right and bottom exclusive; null without pixels).
        """
        height, width = self.size
        return {
            "size": {"width": width, "height": height},
            "classes": {name: self._of_class(n, name) for n, name in enumerate(self.classes, 1)},
            "threshold": self.threshold,
            "calibrated": self.calibrated,
            "timings_ms": {name: round(ms, 3) for name, ms in self.timings.items()},
            "warnings": list(self.warnings),
            "bundle": self.bundle,
            "method": self.method,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "places": dict(self.places),
            "dropped": self.dropped,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def save(
        self, folder: str | os.PathLike[str], stem: str, *, picture: object = None
    ) -> dict[str, Path]:
        """Write STEM_mask.png, STEM_overlay.jpg and STEM.json into `folder` (made if missing).

        The mask holds `labels` as palette indices and says that it is upright (EXIF orientation
        1), so that it can serve as a mask again, also of a picture that EXIF turns. Without a
        picture, the overlay is left out. Files appear whole or not at all, and replace older
        ones. Returns their paths by kind: "mask", "overlay", "json".
        """
        from .saving import save_result

        return save_result(self, Path(folder), stem, picture)

    def _of_class(self, label: int, name: str) -> dict[str, Any]:
        region = self.labels == label
        pixels, score = int(np.count_nonzero(region)), self.present[name]
        box = None
        if pixels:
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            box = [int(i) for i in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        return {
            "label": label,
            "score": round(score, 4) if math.isfinite(score) else None,
            "found": name in self.found,
            "pixels": pixels,
            "share": round(pixels / region.size, 6),
            "box": box,
        }


def _interpolated(
    planes: NDArray[np.float32], axis: int, pixels: int, extent: float
) -> NDArray[np.float32]:
    """Planes [P, a, b] with `axis` (1 or 2) stretched to `pixels`, of which it covers `extent`."""
    low, high, share = bilinear_samples(pixels, extent)
    weight = share[:, None] if axis == 1 else share
    result = planes.take(low, axis) * (1 - weight)
    result += planes.take(high, axis) * weight
    return result
