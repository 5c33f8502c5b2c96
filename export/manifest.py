"""What a new bundle's manifest says: where it comes from, and what each of its graphs is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from export.settings import ExportSettings
from fsseg_sdk import __version__
from fsseg_sdk.backends import GraphFile, GraphSpec, TensorInfo

GOLDEN_CELLS = 64  # feature cells that the golden vectors keep, of the whole grid


def manifest_of(
    encoder: Any,
    grid: tuple[int, int],
    graphs: Mapping[str, GraphSpec],
    header: Mapping[str, Any],
    settings: ExportSettings,
) -> dict[str, Any]:
    """Of the bundle of a checkpoint, as JSON.

    encoder: in torch. grid: of its features. header: the checkpoint's.
    """
    card = json.loads(settings.card.read_text()) if settings.card else {}
    return {
        "name": settings.name,
        "created_with": f"fsseg_sdk {__version__}",
        "method": header["method"],
        "input": {
            "size": list(settings.input_size),
            "geometry": settings.geometry,
            "mean": list(encoder.mean),
            "std": list(encoder.std),
        },
        "features": {
            "channels": encoder.channels,
            "grid": list(grid),
            "stride": float(encoder.stride),
        },
        "graphs": {name: graph_entry(spec) for name, spec in graphs.items()},
        "golden": {
            **{key: f"golden/{key}.npy" for key in ("image", "mask", "features", "labels")},
            "every": max(1, grid[0] * grid[1] // GOLDEN_CELLS),
        },
        "provenance": {
            "encoder": header["encoder"]["name"],
            "starting_weights": header.get("initial"),
            **{
                key: header[key]
                for key in ("settings", "iteration", "sources", "pictures")
                if key in header
            },
            **card,
        },
    }


def graph_entry(spec: GraphSpec, files: Sequence[GraphFile] | None = None) -> dict[str, Any]:
    """Of one graph, with these files; by default those of ``spec``."""

    def words(file: GraphFile) -> dict[str, Any]:
        said = {"flavour": file.flavour or None, "error": file.error}
        named = {"file": file.file, "storage": file.storage, "compute": file.compute}
        return {**named, **{key: value for key, value in said.items() if value is not None}}

    def tensors(infos: Sequence[TensorInfo]) -> list[dict[str, Any]]:
        return [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in infos]

    first, *rest = spec.files if files is None else files
    borders = {"inputs": tensors(spec.inputs), "outputs": tensors(spec.outputs)}
    others = {"others": [words(file) for file in rest]} if rest else {}
    own = words(first)
    return {"file": own.pop("file"), **borders, **own, **others}
