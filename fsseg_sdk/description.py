"""What must be known of an encoder and its method, whether a bundle says it or a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .errors import InputError
from .fields import Fields, Refusal
from .preprocess import Kind

if TYPE_CHECKING:
    from .bundle import Manifest

__all__ = ["Description", "describe_manifest", "read_description"]

_REFUSE = Refusal(InputError, "settings", "Pass what a bundle's manifest.json says.")
_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Description:
    """input_size (S_h, S_w), mean and std of the pixels in 0..1, the features' channels and grid
    (h, w), and the method with its settings as parsed JSON."""

    name: str
    method: str
    method_settings: Mapping[str, Any]
    input_size: tuple[int, int]
    geometry: Kind
    mean: _Triple
    std: _Triple
    channels: int
    grid: tuple[int, int]


def describe_manifest(manifest: Manifest) -> Description:
    """From a bundle's manifest, which was checked when it was read."""
    return Description(
        name=manifest.name,
        method=manifest.method.name,
        method_settings=manifest.method.settings,
        input_size=manifest.input.size,
        geometry=manifest.input.geometry,
        mean=manifest.input.mean,
        std=manifest.input.std,
        channels=manifest.features.channels,
        grid=manifest.features.grid,
    )


def read_description(settings: Mapping[str, Any]) -> Description:
    """From a mapping with the manifest's keys "method", "input", "features" and, if wanted,
    "name"; others are not looked at. InputError names the field."""
    fields = Fields(settings, "settings", _REFUSE, lenient=True)
    method = fields.nested("method")
    entry, features = fields.nested("input"), fields.nested("features")
    return Description(
        name=fields.text("name") if fields.has("name") else "unnamed",
        method=method.text("name"),
        method_settings=method.free("settings") if method.has("settings") else {},
        input_size=_pair(entry, "size"),
        geometry=cast(Kind, entry.choice("geometry", ["squash", "fit"])),
        mean=cast(_Triple, entry.numbers("mean", 3, -1e3, 1e3)),
        std=cast(_Triple, entry.numbers("std", 3, 1e-6, 1e3)),
        channels=features.integer("channels", 1, 1 << 16),
        grid=_pair(features, "grid"),
    )


def _pair(fields: Fields, key: str) -> tuple[int, int]:
    first, second = fields.integers(key, range(2, 3), 1, 1 << 14)
    return first, second
