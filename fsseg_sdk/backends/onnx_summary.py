"""Looks through an ONNX file without the onnx package, and says what it holds.

Malformed are: weights outside the file, operators of other domains than ONNX's own or of unknown
opsets, control flow, local functions, tensors whose stated size is not the size of their data,
messages that are cut off or read differently by different parsers, ORT's other format, names that
nobody defines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from . import onnx_schema as schema
from .graph import TensorInfo
from .protobuf import MalformedError, Span, decoded, parse

__all__ = ["OnnxSummary", "summarise"]

OPSETS = range(7, 27)  # that runtimes know; OpenVINO reads a newer one as if it knew it
MAX_NODES = 50_000
MAX_LENGTH = 1 << 40  # of one axis
MAX_ZEROS = 1 << 14  # zero points in one tensor
_DOMAINS = (b"", b"ai.onnx")
_TYPES = {1: "float32", 3: "int8", 10: "float16", 16: "bfloat16"}  # of weights that multiply
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_CARRIES = ("Identity", "Reshape", "Transpose")  # the type of their first input
_STORES = {  # where a tensor keeps its values: bytes of one, 0 for variable length
    "raw_data": 1, "float_data": 4, "int32_data": 0, "int64_data": 0, "double_data": 8,
    "uint64_data": 0,
}  # fmt: skip


@dataclass(frozen=True)
class OnnxSummary:
    """What a checked ONNX file holds. A free axis is -1 in the shapes. quantised: "s8s8" where
    QuantizeLinear makes int8 with zero point 0, "u8s8" where it makes uint8, "mixed", or "".
    products: types in which weights go into Conv, Gemm and MatMul ("int8": dequantised there)."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    nodes: int
    weight_bytes: int
    quantised: str = ""
    products: frozenset[str] = frozenset()


def summarise(data: bytes) -> OnnxSummary:
    """Raises MalformedError. The only cost that grows with the file is one step per node and per
    tensor: milliseconds."""
    if not data:
        raise MalformedError("an empty file")
    if data[4:8] == b"ORTM":  # a valid protobuf can carry it, and ONNX Runtime would believe it
        raise MalformedError("ONNX Runtime's own format instead of ONNX")
    model = parse(data, (0, len(data)), schema.MODEL, "model")
    model.require("ir_version", "graph", "opset_import")
    opset = 0
    for span in model.spans("opset_import"):
        entry = parse(data, span, schema.OPSET, "opset_import")
        if entry.bytes("domain") not in _DOMAINS:
            raise MalformedError(f"operators of the domain {entry.text('domain')!r}")
        opset = entry.number("version")
        if opset not in OPSETS:
            raise MalformedError(f"opset {opset}, where {OPSETS[0]} to {OPSETS[-1]} are known")
    graph = parse(data, model.span("graph"), schema.GRAPH, "graph")
    graph.require("node", "output")
    nodes = graph.spans("node")
    if len(nodes) > MAX_NODES:
        raise MalformedError(f"{len(nodes)} nodes, where {MAX_NODES} are allowed")

    defined = {b""}  # an input that is left out
    weight_bytes = 0
    zeros: dict[bytes, str] = {}
    types: dict[bytes, str] = {}  # of weights, and of what is made of them alone
    for span in graph.spans("initializer"):
        name, size, zeros[name], types[name] = _tensor(data, span)
        _define(defined, name)
        weight_bytes += size
    inputs = []
    for span in graph.spans("input"):
        info = _value_info(data, span)
        if info.name.encode() not in defined:  # else the default of an initializer, as of old
            inputs.append(info)
            _define(defined, info.name.encode())
    products: set[str] = set()
    quantised = {_node(data, span, defined, zeros, types, products) for span in nodes} - {""}
    outputs = tuple(_value_info(data, span) for span in graph.spans("output"))
    for info in outputs:
        if info.name.encode() not in defined:
            raise MalformedError(f"the output {info.name!r}, which no node computes")
    flavour = quantised.pop() if len(quantised) == 1 else "mixed" if quantised else ""
    found = frozenset(products & set(_TYPES.values()))
    return OnnxSummary(tuple(inputs), outputs, opset, len(nodes), weight_bytes, flavour, found)


def _node(
    data: bytes,
    span: Span,
    defined: set[bytes],
    zeros: Mapping[bytes, str],
    types: dict[bytes, str],
    products: set[str],
) -> str:
    """Checks it; what it makes, if it quantises: as `OnnxSummary.quantised`. Notes the types of
    its results if they are made of weights, and what it multiplies with."""
    node = parse(data, span, schema.NODE, "node")
    node.require("op_type", "output")
    operator, _, to = node.text("op_type"), node.text("name"), 0
    if node.bytes("domain") not in _DOMAINS:
        raise MalformedError(f"the operator {operator!r} of the domain {node.text('domain')!r}")
    for place in node.spans("attribute"):
        attribute = parse(data, place, schema.ATTRIBUTE, "attribute")
        if attribute.text("name") == "to" and operator == "Cast":
            to = attribute.number("i")
        attribute.count("floats", 4)
        attribute.count("ints", 0)
        for tensor in (*attribute.spans("t"), *attribute.spans("tensors")):
            _tensor(data, tensor)
    for begin, end in node.spans("input"):
        if data[begin:end] not in defined:
            raise MalformedError(f"the input {_shown(data[begin:end])} of a node, defined nowhere")
    for begin, end in node.spans("output"):
        if begin < end:
            _define(defined, data[begin:end])
    given = [data[begin:end] for begin, end in node.spans("input")]
    if given[:1] and given[0] in types and operator in ("Cast", "DequantizeLinear", *_CARRIES):
        made = {"Cast": _TYPES.get(to, ""), "DequantizeLinear": "int8"}
        begin, end = node.spans("output")[0]
        types[data[begin:end]] = made.get(operator, types[given[0]])
    if operator in _PRODUCTS:
        products.update(types[name] for name in given[:2] if name in types)
    if operator != "QuantizeLinear":
        return ""
    return zeros.get(given[2] if len(given) > 2 else b"", "") or "mixed"


def _define(defined: set[bytes], name: bytes) -> None:
    if name in defined:
        raise MalformedError(f"the name {_shown(name)} defined twice")
    decoded(name, "name")
    defined.add(name)


def _tensor(data: bytes, span: Span) -> tuple[bytes, int, str, str]:
    """Name and bytes of a tensor whose data is all there, and nothing beside it; the flavour of
    what is quantised with it as zero point, "" where it can be none; and its type."""
    tensor = parse(data, span, schema.TENSOR, "tensor")
    name, kind = tensor.bytes("name"), tensor.number("data_type")
    shown = _shown(name)
    if tensor.number("data_location") != 0:
        raise MalformedError(f"external data: weights outside the file (tensor {shown})")
    if kind not in schema.BITS:
        raise MalformedError(f"tensor {shown} of type {kind}")
    dims = tensor.numbers("dims", 64)
    if any(length >= MAX_LENGTH for length in dims):
        raise MalformedError(f"tensor {shown} with dims out of range")
    count = math.prod(dims)
    size = (count * schema.BITS[kind] + 7) // 8
    stores = [store for store in _STORES if tensor.has(store)]
    there = 0
    if stores == ["raw_data"]:
        begin, end = tensor.span("raw_data")
        there, right = end - begin, size
    elif stores in ([], [schema.TYPED_STORE.get(kind)]):
        there, right = sum(tensor.count(store, _STORES[store]) for store in stores), count
    else:
        raise MalformedError(f"tensor {shown} of type {kind} with data in {' and '.join(stores)}")
    if there != right:
        raise MalformedError(
            f"tensor {shown} that claims {size} bytes and has other data: {there} of {right}"
        )
    flavour = "u8s8" if kind == schema.UINT8 else ""
    if kind == schema.INT8 and count <= MAX_ZEROS:  # one for each channel; not the weights
        raw = tensor.bytes("raw_data").count(0) == count
        typed = not (stores == ["raw_data"] or any(tensor.numbers("int32_data", MAX_ZEROS)))
        flavour = "s8s8" if raw or typed else ""
    return name, size, flavour, _TYPES.get(kind, "")


def _value_info(data: bytes, span: Span) -> TensorInfo:
    """A graph's input or output; its type must be stated, an axis without length is free."""
    value = parse(data, span, schema.VALUE_INFO, "value")
    value.require("name", "type")
    name = value.text("name")
    kind = parse(data, value.span("type"), schema.TYPE, "type")
    tensor = parse(data, kind.span("tensor_type"), schema.TENSOR_TYPE, "tensor_type")
    tensor.require("elem_type", "shape")
    shape = []
    for place in parse(data, tensor.span("shape"), schema.SHAPE, "shape").spans("dim"):
        dim = parse(data, place, schema.DIMENSION, "dim")
        dim.text("dim_param")
        shape.append(dim.number("dim_value") if dim.has("dim_value") else -1)
    element = tensor.number("elem_type")
    if element not in schema.DTYPES:
        raise MalformedError(f"{name!r} of the unsupported type {element}")
    return TensorInfo(name, schema.DTYPES[element], tuple(shape))


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace")[:80])
