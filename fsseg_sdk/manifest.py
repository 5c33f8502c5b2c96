"""What a bundle says of itself: `manifest.json` as frozen dataclasses, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast

from .archive import MANIFEST
from .backends.graph import GraphSpec, TensorInfo
from .fields import Fields, Refusal, thaw
from .manifest_graphs import read_graphs

__all__ = [
    "FORMAT",
    "VERSION",
    "Features",
    "Golden",
    "Input",
    "Manifest",
    "Member",
    "MethodEntry",
    "parse_manifest",
]

FORMAT = "fsseg-bundle"
VERSION = (1, 1, 0)
"""The newest that this package writes and knows. It reads 1.x.y: a minor version may add fields
that a reader can do without (they are ignored then), a major version anything. 1.1 has several
files for a graph; a bundle without any is written as 1.0.0, as ever."""

MAX_SIDE = 8192
_GRAPH_NAME = r"[a-z][a-z0-9_]{0,31}"


@dataclass(frozen=True)
class MethodEntry:
    """The method that the bundle was made for, and its settings as plain, read-only JSON."""

    name: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Input:
    """size (S_h, S_w) of the encoder's input; mean and std per channel RGB in units of 0..1."""

    size: tuple[int, int]
    geometry: Literal["squash", "fit"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Features:
    """channels C, grid (h, w), and the pixels of the input that one cell stands for."""

    channels: int
    grid: tuple[int, int]
    stride: float


@dataclass(frozen=True)
class Member:
    """One file of the bundle: sha256 in hex and length."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Golden:
    """Members with what the bundle must compute, to be checked anywhere (`fsseg bundle verify`).

    image: uint8 [H, W, 3]; mask: uint8 [H, W], 0 or 1; features: float32 [C, n], of the image at
    every `every`-th cell of the flattened grid; labels: uint8 [H, W], what the method answers
    for the image with itself and the mask as support.
    """

    image: str
    mask: str
    features: str
    labels: str
    every: int


@dataclass(frozen=True)
class Manifest:
    """A bundle's description. Immutable; `to_json` gives plain dicts and lists."""

    format_version: str
    name: str
    created_with: str
    method: MethodEntry
    input: Input
    features: Features
    graphs: Mapping[str, GraphSpec]
    members: Mapping[str, Member]
    golden: Golden | None
    provenance: Mapping[str, object]
    source: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """The manifest as it stands in the file."""
        return cast("dict[str, object]", thaw(self.source))


def parse_manifest(value: Mapping[str, object], refuse: Refusal, *, lenient: bool) -> Manifest:
    """Checks every field and how they agree; `refuse` makes the errors. lenient: unknown fields
    are allowed, because the file has a newer minor version."""
    fields = Fields(value, MANIFEST, refuse, lenient=lenient)
    fields.choice("format", [FORMAT])
    method = fields.nested("method")
    manifest = Manifest(
        format_version=fields.text("format_version"),
        name=fields.text("name", r".{1,100}", "1 to 100 characters"),
        created_with=fields.text("created_with", r".{1,100}", "1 to 100 characters"),
        method=MethodEntry(method.text("name", _GRAPH_NAME, "a name"), method.free("settings")),
        input=_input(fields.nested("input")),
        features=_features(fields.nested("features")),
        graphs=read_graphs(fields.nested("graphs")),
        members=_members(fields.nested("members")),
        golden=_golden(fields.nested("golden")) if fields.has("golden") else None,
        provenance=fields.free("provenance"),
        source=fields.whole(),
    )
    method.end()
    fields.end()
    _check_encoder(manifest, refuse)
    _check_members(manifest, refuse, lenient=lenient)
    return manifest


def _input(fields: Fields) -> Input:
    size = fields.integers("size", range(2, 3), 8, MAX_SIDE)
    mean = fields.numbers("mean", 3, -10.0, 10.0)
    std = fields.numbers("std", 3, 1e-3, 1e3)
    geometry = fields.choice("geometry", ("squash", "fit"))
    fields.end()
    return Input(
        size=(size[0], size[1]),
        geometry=cast("Literal['squash', 'fit']", geometry),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _features(fields: Fields) -> Features:
    grid = fields.integers("grid", range(2, 3), 1, 2048)
    channels = fields.integer("channels", 1, 65536)
    if grid[0] * grid[1] * channels > 1 << 28:
        raise fields.fail("grid", f"at most {1 << 28} values with {channels} channels", grid)
    stride = fields.number("stride", 1.0, MAX_SIDE)
    fields.end()
    return Features(channels, (grid[0], grid[1]), stride)


def _members(fields: Fields) -> Mapping[str, Member]:
    """`archive` has compared them with what is in the file."""
    members = {}
    for name in fields.names():
        entry = fields.nested(name)
        members[name] = Member(entry.text("sha256"), entry.integer("bytes", 0, 1 << 32))
    return MappingProxyType(members)


def _golden(fields: Fields) -> Golden:
    image, mask, features, labels = (
        fields.text(key, r"[a-z0-9_./-]{1,100}\.npy", "a member '*.npy'")
        for key in ("image", "mask", "features", "labels")
    )
    every = fields.integer("every", 1, 1 << 22)
    fields.end()
    return Golden(image, mask, features, labels, every)


def _check_encoder(manifest: Manifest, refuse: Refusal) -> None:
    part = f"{MANIFEST}.graphs"
    if "encoder" not in manifest.graphs:
        raise refuse(part, expected="a graph 'encoder'", got=", ".join(manifest.graphs) or "none")
    size, features = manifest.input.size, manifest.features
    encoder = manifest.graphs["encoder"]
    image = TensorInfo("image", "float32", (-1, 3, *size))
    grid = TensorInfo("features", "float32", (-1, features.channels, *features.grid))
    for key, found, right in (
        ("inputs", encoder.inputs, image),
        ("outputs", encoder.outputs, grid),
    ):
        free = TensorInfo(right.name, right.dtype, (1, *right.shape[1:]))
        if found not in ((right,), (free,)):
            raise refuse(
                f"{part}.encoder.{key}",
                expected=f"{right}, as 'input' and 'features' say",
                got=" and ".join(str(info) for info in found),
            )
    if encoder.inputs[0].shape[0] != encoder.outputs[0].shape[0]:
        raise refuse(f"{part}.encoder", expected="one batch length", got="two")
    for side, cells in zip(size, features.grid, strict=True):
        if not abs(cells * features.stride - side) <= features.stride:
            raise refuse(
                f"{MANIFEST}.features.stride",
                expected=f"about {side / cells:g}, for {cells} cells on {side} pixels",
                got=f"{features.stride:g}",
            )


def _check_members(manifest: Manifest, refuse: Refusal, *, lenient: bool) -> None:
    """Every member has a purpose, every purpose its own member."""
    used = [file.file for spec in manifest.graphs.values() for file in spec.files]
    golden = manifest.golden
    if golden is not None:
        used += [golden.image, golden.mask, golden.features, golden.labels]
    for name in used:
        if name not in manifest.members or used.count(name) > 1:
            got = "two uses of one" if name in manifest.members else "none"
            raise refuse(f"member {name!r}", expected="a member of its own", got=got)
    for name in manifest.members:
        if name not in used and not lenient:
            raise refuse(
                f"member {name!r}", expected="only members that graphs or golden name", got="it"
            )
