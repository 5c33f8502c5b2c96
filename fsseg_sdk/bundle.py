"""Bundles (.fsseg): one file with graphs, settings, hashes and golden vectors. Data, never code.

`Bundle.open` checks everything before it hands out anything: the archive byte by byte (see
`archive`), every field of the manifest, every ONNX file (see `backends.onnx_check`), the type and
shape of every golden array. Hashes show damage, not who made the file: docs/security.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .archive import Archive, Caps, read_archive, write_archive
from .backends.onnx_check import OnnxSummary, check_onnx
from .errors import BundleError
from .manifest import FORMAT, VERSION, Manifest, parse_manifest
from .npy import read_npy

__all__ = ["Bundle", "GoldenArrays", "Manifest", "write_bundle"]

CAPS = Caps(file_bytes=1 << 30, members=64, manifest_bytes=256 * 1024)
GOLDEN_BYTES = 512 * 1024


@dataclass(frozen=True, eq=False)
class GoldenArrays:
    """The golden vectors, read-only; see `manifest.Golden` for what they are.

    image uint8 [H, W, 3], mask uint8 [H, W], features float32 [C, n], labels uint8 [H, W].
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    features: NDArray[np.float32]
    labels: NDArray[np.uint8]
    every: int


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle in memory. Immutable.

    digest: sha256 of the manifest in hex; it covers every member, so it names the bundle.
    graphs: what the first ONNX file of each graph holds; all files were checked. Members stay in
    memory as long as the Bundle does.
    """

    path: Path
    manifest: Manifest
    digest: str
    graphs: Mapping[str, OnnxSummary]
    golden: GoldenArrays | None
    _members: Mapping[str, memoryview]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Reads and checks the bundle at `path`; BundleError names what is wrong, and where."""
        path = Path(path)
        return cls._from(path, read_archive(path, FORMAT, BundleError, CAPS, VERSION[:2]))

    @classmethod
    def _from(cls, path: Path, archive: Archive) -> Bundle:
        manifest = parse_manifest(archive.manifest, archive.refuse, lenient=archive.newer)
        graphs: dict[str, OnnxSummary] = {}
        for name, spec in manifest.graphs.items():
            for file in spec.files:
                data = _whole(archive.members[file.file])
                found = check_onnx(data, spec.only(file), archive.refuse)
                graphs.setdefault(name, found)
        golden = _golden(manifest, archive)
        return cls(path, manifest, archive.digest, graphs, golden, archive.members)

    def member(self, name: str) -> memoryview:
        """The content of a member, read-only, without a copy. BundleError if there is none."""
        if name not in self._members:
            raise BundleError(
                f"bundle {self.path.name!r}, member {name!r}",
                expected=f"one of {', '.join(self._members)}",
                got="another name",
                remedy="Look at bundle.manifest.members for the names.",
            )
        return self._members[name]


def _whole(view: memoryview) -> bytes:
    """The bytes behind a member, without a copy."""
    return view.obj if isinstance(view.obj, bytes) else view.tobytes()


def write_bundle(
    path: str | os.PathLike[str], manifest: Mapping[str, object], members: Mapping[str, bytes]
) -> str:
    """Writes a bundle and returns its digest; the same input gives the same file.

    manifest: as in `manifest.Manifest.to_json`, where "format", "format_version" and "members" are
    filled in. The file is complete and opens as a bundle, or `path` is as it was before. Raises
    BundleError, for a full disk as for a manifest or graph that `Bundle.open` would refuse.
    """
    path = Path(path)
    return write_archive(
        path,
        FORMAT,
        manifest,
        members,
        BundleError,
        CAPS,
        VERSION if _of_1_1(manifest) else (1, 0, 0),
        check=lambda archive: Bundle._from(path, archive),
    )


def _of_1_1(manifest: Mapping[str, object]) -> bool:
    """Whether a manifest, not yet checked, needs what format 1.1 has."""
    graphs = manifest.get("graphs")
    entries = graphs.values() if isinstance(graphs, Mapping) else ()
    return any(isinstance(e, Mapping) and {"others", "flavour", "error"} & set(e) for e in entries)


def _golden(manifest: Manifest, archive: Archive) -> GoldenArrays | None:
    golden = manifest.golden
    if golden is None:
        return None
    names = (golden.image, golden.mask, golden.features, golden.labels)
    total = sum(archive.members[name].nbytes for name in names)
    if total > GOLDEN_BYTES:
        raise archive.refuse(
            "golden vectors", expected=f"at most {GOLDEN_BYTES} bytes", got=f"{total}"
        )

    def read(name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return read_npy(
            archive.members[name], f"member {name!r}", archive.refuse, dtype=dtype, shape=shape
        )

    image = read(golden.image, "uint8", (-1, -1, 3))
    size = image.shape[:2]
    cells = manifest.features.grid[0] * manifest.features.grid[1]
    sampled = (manifest.features.channels, -(-cells // golden.every))
    mask = read(golden.mask, "uint8", size)
    if 0 in size or mask.max() != 1:
        raise archive.refuse(
            f"member {golden.mask!r}", expected="0 and 1, with some pixel 1", got="other values"
        )
    features = read(golden.features, "float32", sampled)
    labels = read(golden.labels, "uint8", size)
    if labels.max() > 1:
        raise archive.refuse(
            f"member {golden.labels!r}", expected="labels 0 and 1", got=f"{labels.max()}"
        )
    return GoldenArrays(image, mask, features, labels, golden.every)
