"""The part of a bundle's manifest that says what its graphs are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .backends.graph import GraphFile, GraphSpec, TensorInfo
from .backends.onnx_schema import DTYPES
from .fields import Fields

__all__ = ["read_graphs"]

TYPES = ("float32", "float16", "bfloat16", "int8")  # of weights, and to compute in
_FLAVOURS = ("s8s8", "u8s8")
_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"


def read_graphs(fields: Fields) -> Mapping[str, GraphSpec]:
    """The object "graphs": from a graph's name to what it is. Each entry has file, storage,
    compute, inputs and outputs; flavour and error, for compute "int8"; others, more files (file,
    storage, compute, flavour, error) that compute the same."""
    graphs: dict[str, GraphSpec] = {}
    for name in fields.names()[:16]:
        graph = fields.nested(name)
        file = _file(graph)
        spec = GraphSpec(
            file=file.file,
            inputs=_tensors(graph, "inputs"),
            outputs=_tensors(graph, "outputs"),
            storage=file.storage,
            compute=file.compute,
            flavour=file.flavour,
            error=file.error,
            others=_others(graph) if graph.has("others") else (),
        )
        _check_files(graph, spec)
        graphs[name] = spec
        graph.end()
    fields.end()
    return MappingProxyType(graphs)


def _file(fields: Fields) -> GraphFile:
    compute = fields.choice("compute", TYPES)
    flavoured, measured = (compute == "int8" and fields.has(key) for key in ("flavour", "error"))
    return GraphFile(
        file=fields.text("file", r"[a-z0-9_.-]{1,60}\.onnx", "a member '*.onnx'"),
        storage=fields.choice("storage", TYPES),
        compute=compute,
        flavour=fields.choice("flavour", _FLAVOURS) if flavoured else "",
        error=fields.number("error", 0.0, 1.0) if measured else None,
    )


def _others(graph: Fields) -> tuple[GraphFile, ...]:
    files = []
    for item in graph.items("others", 8):
        files.append(_file(item))
        item.end()
    return tuple(files)


def _check_files(graph: Fields, spec: GraphSpec) -> None:
    """Several files are the same function: each of another kind, and float32 at the borders."""
    if not spec.others:
        return
    kinds = [(file.compute, file.flavour) for file in spec.files]
    if len(set(kinds)) != len(kinds):
        got = ", ".join(map(str, spec.files))
        raise graph.fail("others", "one file for each compute type and flavour", got)
    for info in (*spec.inputs, *spec.outputs):
        if info.dtype != "float32":
            raise graph.fail("others", "a graph with float32 inputs and outputs", str(info))


def _tensors(graph: Fields, key: str) -> tuple[TensorInfo, ...]:
    tensors = []
    for item in graph.items(key, 16):
        name = item.text("name", _NAME, "a name of letters, digits, '_', '-' and '.'")
        dtype = item.choice("dtype", tuple(DTYPES.values()))
        shape = item.integers("shape", range(9), -1, 1 << 24)
        if 0 in shape:
            raise item.fail("shape", "lengths of 1 or more, or -1 for a free one", list(shape))
        item.end()
        tensors.append(TensorInfo(name, dtype, shape))
    if len({info.name for info in tensors}) != len(tensors):
        raise graph.fail(key, "each name once", [info.name for info in tensors])
    return tuple(tensors)
