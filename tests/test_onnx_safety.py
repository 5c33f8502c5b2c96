"""The look through ONNX files before a runtime gets them, and that what passes crashes nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from fsseg_sdk.backends import GraphSpec, TensorInfo, open_graph
from fsseg_sdk.backends.onnx_check import OnnxSummary, check_onnx
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.errors import BackendError, BundleError
from fsseg_sdk.fields import Refusal
from tests.archives import edited
from tests.tiny import tiny_bundle, tiny_onnx

IMAGE = TensorInfo("image", "float32", (-1, 3, 64, 64))
FEATURES = TensorInfo("features", "float32", (-1, 16, 8, 8))
SPEC = GraphSpec("encoder.onnx", (IMAGE,), (FEATURES,))
REFUSE = Refusal(BundleError, "bundle 'x'", "Do not use it.")


def check(data: bytes, spec: GraphSpec = SPEC) -> OnnxSummary:
    return check_onnx(data, spec, REFUSE)


def refused(data: bytes, spec: GraphSpec = SPEC) -> str:
    begin = time.perf_counter()
    with pytest.raises(BundleError) as caught:
        check(data, spec)
    assert time.perf_counter() - begin < 1.0
    assert "member 'encoder.onnx'" in str(caught.value)
    return str(caught.value)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_from_string(tiny_onnx())
    change(model)
    return model.SerializeToString()


def test_what_it_reads() -> None:
    summary = check(tiny_onnx())
    assert summary == OnnxSummary(
        (IMAGE,), (FEATURES,), 17, 3, 4 * 16 * 4, "", frozenset(["float32"])
    )
    assert check(tiny_onnx(half=True)).weight_bytes == 2 * 16 * 3 + 4 * 16
    half = changed(lambda model: model.graph.input[0].type.tensor_type.shape.dim[0].Clear())
    assert check(half).inputs == (IMAGE,)


@pytest.mark.parametrize("claimed", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("kind", "right", "products"),
    [
        ("float32", "float32", {"float32"}),
        ("stored in half", "float32", {"float32"}),  # behind a Cast
        ("float16", "float16", {"float16"}),
        ("int8", "int8", {"int8"}),
    ],
)
def test_what_a_file_computes_in(kind: str, claimed: str, right: str, products: set[str]) -> None:
    from tests.quantised import tiny_fp16, tiny_int8  # which needs more than a child process should

    made = {
        "float32": tiny_onnx,
        "stored in half": lambda: tiny_onnx(half=True),
        "float16": tiny_fp16,
        "int8": lambda: tiny_int8("s8s8"),
    }
    data, spec = made[kind](), replace(SPEC, compute=claimed)
    if claimed == right:
        assert check(data, spec).products == products
    else:
        assert f"expected a graph that computes in {claimed}" in refused(data, spec)


DTYPES = ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool", "uint16",
          "uint32", "uint64", "int16"]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_all_ways_to_store_a_tensor(dtype: str, raw: bool, shape: tuple[int, ...]) -> None:
    array = (np.arange(int(np.prod(shape))) % 2 * 100).reshape(shape).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.flatten().tolist()
    tensor = helper.make_tensor("more", kind, shape, values, raw=raw)
    before = check(tiny_onnx()).weight_bytes
    data = changed(lambda model: model.graph.initializer.append(tensor))
    assert check(data).weight_bytes == before + array.nbytes


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def external_in_constant(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    tensor.external_data.add().key = "location"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def location_only(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def subgraph(kind: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", [], [])
        model.graph.node.append(helper.make_node(kind, ["features"], ["z"], body=inner))

    return change


def several_subgraphs(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [inner]))


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def opset(version: int) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(model.opset_import[0], "version", version)


def custom_import(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("f", "F", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    )


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def text(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"]))


def complex_numbers(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.complex64), "c"))


def claims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    return change


def two_stores(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].float_data.extend([1.0] * 48)


def wrong_store(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * 48)


def too_few(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 47)


def reference(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute[0]
    attribute.ref_attr_name = "x"


def defined_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["image"], ["colour"]))


def defined_nowhere(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "elsewhere"


def out_of_order(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def no_output(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "other"


def sequence(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def type_attribute(model: onnx.ModelProto) -> None:
    attribute = AttributeProto(name="tp", type=AttributeProto.TYPE_PROTO)
    attribute.tp.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.node[0].attribute.append(attribute)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (external, "external data"),
        (external_in_constant, "external data"),
        (location_only, "external data"),
        *(
            (subgraph(kind), "control flow")
            for kind in ("If", "Loop", "Scan", "SequenceMap", "Relu")
        ),
        (several_subgraphs, "control flow"),
        (custom_operator, "the operator 'AveragePool' of the domain 'com.evil'"),
        (custom_import, "operators of the domain 'com.microsoft'"),
        (opset(6), "opset 6, where 7 to 26 are known"),
        (opset(27), "opset 27, where"),
        (function, "local functions"),
        (reference, "local functions"),
        (sparse, "sparse tensors"),
        (text, "text tensors"),
        (complex_numbers, "of type 14"),
        (claims(1 << 20, 1 << 20, 1 << 20), "has other data: 192 of"),
        (claims(2_500_000_000), "that claims 10000000000 bytes"),
        (claims(1 << 62, 4), "dims"),
        (claims(-1, 3, 1, 1), "dims"),
        (claims(*[1] * 65), "dims"),
        (claims(0), "has other data"),
        (claims(), "has other data"),
        (two_stores, "data in raw_data and float_data"),
        (wrong_store, "data in int64_data"),
        (too_few, "has other data: 47 of 48"),
        (defined_twice, "'colour' defined twice"),
        (defined_nowhere, "'elsewhere' of a node, defined nowhere"),
        (out_of_order, "defined nowhere"),
        (no_output, "the output 'features', which no node computes"),
        (sequence, "not a plain tensor"),
        (type_attribute, "not a plain tensor"),
        (lambda model: model.training_info.add(), "training information"),
        (lambda model: model.ClearField("opset_import"), "without opset_import"),
        (lambda model: model.ClearField("graph"), "without graph"),
        (lambda model: model.ClearField("ir_version"), "without ir_version"),
        (lambda model: model.graph.ClearField("node"), "without node"),
        (lambda model: model.graph.ClearField("output"), "without output"),
        (lambda model: model.graph.input[0].ClearField("type"), "without type"),
        (lambda model: model.graph.ClearField("input"), "defined nowhere"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:30]),
)
def test_graphs_that_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], words: str
) -> None:
    data = changed(change)
    assert words in refused(data)
    path = tiny_bundle(tmp_path / "x.fsseg")  # and behind right hashes in a bundle
    edited(path, lambda manifest, members: members.update({"encoder.onnx": data}))
    with pytest.raises(BundleError, match=r"member 'encoder\.onnx'"):
        Bundle.open(path)
    with pytest.raises(BackendError, match=r"graph, member 'encoder\.onnx'"):
        open_graph(data, SPEC)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (GraphSpec("encoder.onnx", (FEATURES,), (FEATURES,)), "inputs 'features', got 'image'"),
        (GraphSpec("encoder.onnx", (IMAGE,), (IMAGE,)), "outputs 'image', got 'features'"),
        (GraphSpec("encoder.onnx", (IMAGE,), (FEATURES, IMAGE)), "got 'features'"),
        (GraphSpec("encoder.onnx", (TensorInfo("image", "uint8", IMAGE.shape),), (FEATURES,)),
         "expected 'image' uint8"),
        (GraphSpec("encoder.onnx", (TensorInfo("image", "float32", (-1, 3, 64)),), (FEATURES,)),
         "got 'image' float32 [any, 3, 64, 64]"),
        (GraphSpec("encoder.onnx", (TensorInfo("image", "float32", (-1, 3, 64, -1)),), (FEATURES,)),
         "expected 'image' float32 [any, 3, 64, any]"),
        (GraphSpec("encoder.onnx", (IMAGE,), (TensorInfo("features", "float32", (-1, 8, 8, 8)),)),
         "expected 'features' float32 [any, 8, 8, 8]"),
    ],
)  # fmt: skip
def test_graphs_that_are_not_what_the_manifest_says(spec: GraphSpec, words: str) -> None:
    assert words in refused(tiny_onnx(), spec)


def test_a_free_axis_may_be_pinned_but_not_freed() -> None:
    pinned = GraphSpec(
        "encoder.onnx",
        (TensorInfo("image", "float32", (1, 3, 64, 64)),),
        (TensorInfo("features", "float32", (1, 16, 8, 8)),),
    )
    check(tiny_onnx(), pinned)
    assert "[any, 3, 64, 64], got 'image' float32 [1, " in refused(tiny_onnx(batch=1), SPEC)


def varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"not protobuf", "unknown field"),
        (b"\x08", "truncated"),
        (b"\x08\x80", "truncated or too long"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "truncated or too long"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "truncated or too long"),
        (b"\x0a\x01\x08", "wire type 2"),
        (b"\x0b\x0c", "wire type 3"),  # a group
        (b"\x3a\x7f", "ends behind its message"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends behind its message"),
        (b"\x00", "unknown field 0"),
        (b"\xf8\xff\xff\xff\x7f\x00", "unknown field"),
        (b"\x80\xc3\x40", "unknown field"),
        (tiny_onnx() + b"\x08\x08", "ir_version occurs twice"),
        (tiny_onnx() + field(7, b""), "graph occurs twice"),  # parsers would merge the two
        (tiny_onnx() + field(7, field(5, field(8, b"x"))), "graph occurs twice"),
        (tiny_onnx() + field(25, b""), "local functions"),
        (tiny_onnx() + b"\x9a\x06\x01x", "unknown field 99"),
    ],
)
def test_malformed_protobuf(data: bytes, words: str) -> None:
    assert words in refused(data)


def test_a_file_in_two_formats(tmp_path: Path) -> None:
    """ONNX Runtime takes a file with "ORTM" at byte 4 for its own format, whatever else it is.
    Such bytes can be ONNX as well: the name of the producer stands there."""
    model = onnx.load_from_string(tiny_onnx())
    model.producer_name = "ORTM"
    data = model.SerializeToString()
    assert data[4:8] == b"ORTM"
    assert onnx.load_from_string(data).graph.node
    assert "ONNX Runtime's own format" in refused(data)


def test_names_that_are_not_text() -> None:
    """ONNX Runtime passes them on; reading them from Python raises UnicodeDecodeError."""
    data = tiny_onnx()
    for name in (b"batch", b"features", b"image", b"weight", b"mixed", b"Conv", b"strides"):
        assert "not UTF-8" in refused(data.replace(name, b"\xff" * len(name)))


def test_truncated_anywhere() -> None:
    """At every byte: an error, or nothing that matters is missing."""
    data = tiny_onnx()
    whole = check(data)
    passed = 0
    for length in range(len(data)):
        try:
            summary = check(data[:length])
        except BundleError:
            continue
        passed += 1
        assert (summary.inputs, summary.outputs) == (whole.inputs, whole.outputs)
    assert passed <= 2


def test_long_fields_cost_linear_time() -> None:
    """Ten million bytes of one endless number, of dimensions, of empty nodes: none takes long."""
    model = onnx.load_from_string(tiny_onnx())
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    endless = b"\x80" * 10_000_000
    start = onnx.GraphProto(initializer=[TensorProto(name="t", data_type=1)])
    raw = start.initializer[0].SerializeToString()

    def around(payload: bytes) -> bytes:
        tensor = raw + b"\x0a" + varint(len(payload)) + payload
        graph = b"\x2a" + varint(len(tensor)) + tensor + model.graph.SerializeToString()
        return b"\x08\x08" + field(8, b"\x10\x11") + b"\x3a" + varint(len(graph)) + graph

    assert "half a number" in refused(around(endless))
    assert "more than 64 dims" in refused(around(b"\x01" * 10_000_000))
    nodes = model.graph.SerializeToString() + b"\x0a\x00" * 60_000
    data = b"\x08\x08" + field(8, b"\x10\x11") + b"\x3a" + varint(len(nodes)) + nodes
    assert "nodes, where 50000 are allowed" in refused(data)


# --- in a child process: a crash there would be seen as a signal ----------------------------------

CHILD = """
import random, sys
import numpy as np
from fsseg_sdk.backends import open_graph
from fsseg_sdk.errors import FssegError
from tests.test_bundle_attacks import mutated
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx
mode, seed = sys.argv[1], int(sys.argv[2])
data, rng = tiny_onnx(half=mode == "mutated"), random.Random(seed)
if mode == "truncated":
    files = [data[:length] for length in range(len(data))]
else:
    files = [mutated(rng, data) for _ in range(1500)]
image = np.ones((1, 3, 64, 64), np.float32)
opened = refused = 0
for file in files:
    try:
        open_graph(file, SPEC, threads=1).run({"image": image})
        opened += 1
    except FssegError:
        refused += 1
print(opened, refused, file=sys.stderr)
"""


@pytest.mark.parametrize(("mode", "seed"), [("truncated", 0), ("mutated", 1), ("mutated", 2)])
def test_nothing_that_is_opened_crashes(mode: str, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", CHILD, mode, str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""  # ONNX Runtime prints when it falls back to something
    opened, refused_count = map(int, done.stderr.split())
    assert refused_count > 100
    assert opened > 0 or mode == "truncated"  # the runtime saw some of them
