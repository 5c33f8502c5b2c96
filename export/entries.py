"""Graphs of a manifest: which file is in float32, one picture a call, the entry as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from export.wanted import PrecisionError
from fsseg_sdk.backends import GraphFile, GraphSpec, TensorInfo


def exact_file(name: str, spec: GraphSpec) -> GraphFile:
    for file in spec.files:
        if file.compute == "float32":
            return file
    raise PrecisionError(
        f"graph {name!r}: expected a file that computes in float32, got "
        f"{', '.join(map(str, spec.files))}. Start from the bundle that this one was made of."
    )


def one_picture(spec: GraphSpec) -> GraphSpec:
    def fixed(infos: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
        return tuple(replace(i, shape=(1, *i.shape[1:])) for i in infos)

    return replace(spec, inputs=fixed(spec.inputs), outputs=fixed(spec.outputs))


def entry_of_files(spec: GraphSpec, files: Sequence[GraphFile]) -> dict[str, Any]:
    """A graph in the manifest."""

    def words(file: GraphFile) -> dict[str, str]:
        named = {"file": file.file, "storage": file.storage, "compute": file.compute}
        return {**named, "flavour": file.flavour} if file.flavour else named

    def tensors(infos: Sequence[TensorInfo]) -> list[dict[str, Any]]:
        return [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in infos]

    borders = {"inputs": tensors(spec.inputs), "outputs": tensors(spec.outputs)}
    others = {"others": [words(file) for file in files[1:]]} if len(files) > 1 else {}
    return {**words(files[0]), **borders, **others}
