"""Which file runs, on which backend, in which precision; nothing else in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from fsseg_sdk import backends
from fsseg_sdk.backends import (
    BackendStatus,
    GraphFile,
    GraphSpec,
    open_graph,
    open_graphs,
    probing,
    registry,
)
from fsseg_sdk.backends.choice import PRECISIONS, choose_files, find_file, held
from fsseg_sdk.backends.graph import Graph, NotedGraph
from fsseg_sdk.errors import BackendError, InputError
from tests.quantised import tiny_fp16, tiny_int8
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx

FULL = GraphFile("encoder.onnx")
HALF = GraphFile("encoder.fp16.onnx", "float16", "float16")
S8 = GraphFile("encoder.s8s8.onnx", "int8", "int8", "s8s8")
U8 = GraphFile("encoder.u8s8.onnx", "int8", "int8", "u8s8")
CONTENT = {
    FULL.file: tiny_onnx,
    HALF.file: tiny_fp16,
    S8.file: lambda: tiny_int8("s8s8"),
    U8.file: lambda: tiny_int8("u8s8"),
}


def spec(*files: GraphFile) -> GraphSpec:
    return replace(SPEC.only(files[0]), others=files[1:])


def read(file: str) -> bytes:
    return CONTENT[file]()


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "right"),
    [
        ([FULL], ("fp32",)),
        ([U8, FULL, HALF], ("fp32",)),
        ([U8], ("int8",)),
        ([S8, HALF, U8], ("fp16", "int8")),
        ([GraphFile("x.onnx", "bfloat16", "bfloat16"), S8], ("bf16", "int8")),
    ],
)
def test_what_auto_may_take(files: list[GraphFile], right: tuple[str, ...]) -> None:
    assert held(spec(*files)) == right


def test_the_best_file_for_a_backend() -> None:
    both = spec(FULL, S8, U8)
    assert find_file(both, (("int8", "u8s8"), ("int8", "s8s8"))) == U8
    assert find_file(both, (("int8", "s8s8"), ("int8", "u8s8"))) == S8
    assert find_file(spec(S8), (("int8", "u8s8"), ("int8", "s8s8"))) == S8
    assert find_file(spec(FULL), (("int8", ""),)) is None
    assert spec(FULL, S8).only(S8).files == (S8,)


KINDS = {"fp32": (("float32", ""),), "int8": (("int8", "s8s8"),)}


def test_a_head_without_the_precision_runs_in_fp32() -> None:
    specs = {"encoder": spec(S8, FULL), "head": spec(FULL), "other": spec(FULL, S8)}
    chosen = choose_files(specs, "int8", "b", KINDS)
    assert chosen == {"encoder": ("int8", S8), "head": ("fp32", FULL), "other": ("int8", S8)}
    with pytest.raises(BackendError, match=r"graph 'head': expected a file for int8.*float16"):
        choose_files({"encoder": spec(S8), "head": spec(HALF)}, "int8", "b", KINDS)


def test_the_error_says_which_backend_takes_the_file() -> None:
    known = {"b": KINDS, "c": {"int8": (("int8", "u8s8"),)}, "d": {"fp16": (("float16", ""),)}}
    with pytest.raises(BackendError, match=r"The backend 'c' takes what the bundle has\.$"):
        choose_files({"encoder": spec(U8)}, "int8", "b", KINDS, lambda: known)
    with pytest.raises(BackendError, match="Export the bundle with '--precision int8'"):
        choose_files({"encoder": spec(HALF)}, "int8", "b", KINDS, lambda: known)


def test_an_encoder_without_the_precision_is_an_error() -> None:
    specs = {"encoder": spec(FULL, U8), "head": spec(S8)}
    with pytest.raises(BackendError) as caught:
        choose_files(specs, "int8", "b", KINDS)
    for words in ("graph 'encoder'", "int8 s8s8", "int8 u8s8 (encoder.u8s8.onnx)", "--precision"):
        assert words in str(caught.value)
    with pytest.raises(BackendError, match="precision: expected 'fp32' or 'int8', got 'fp16'"):
        choose_files(specs, "fp16", "b", KINDS)


@pytest.mark.parametrize(
    ("backend", "precision", "file"),
    [
        ("onnxruntime", "auto", FULL),
        ("onnxruntime", "int8", U8),
        ("onnxruntime", "fp16", HALF),
        ("openvino", "int8", S8),
        ("openvino", "fp32", FULL),
    ],
)
def test_backends_take_their_own_file(backend: str, precision: str, file: GraphFile) -> None:
    pytest.importorskip(backend)
    seen: list[str] = []

    def reading(name: str) -> bytes:
        seen.append(name)
        return read(name)

    specs = {"encoder": spec(S8, HALF, U8, FULL), "head": spec(FULL)}
    graphs = open_graphs(specs, reading, backend=backend, precision=precision, threads=1)
    assert seen == [file.file, FULL.file]  # no other file is even read
    asked = "fp32" if precision == "auto" else precision
    assert [graph.precision for graph in graphs.values()] == [asked, "fp32"]


def test_one_file_of_several_is_the_first() -> None:
    """`open_graph` gets the bytes of the first file, so it never takes them for another's."""
    graph = open_graph(tiny_int8("u8s8"), spec(U8, FULL), backend="onnxruntime", threads=1)
    assert graph.precision == "int8"


# --- backends ------------------------------------------------------------------------------------


class Fake:
    """A backend that notes what it is asked."""

    def __init__(self, name: str, works: bool = True, files: Any = None, fails: str = "") -> None:
        self.name, self.works, self.fails = name, works, fails
        self.FILES = MappingProxyType(files or {"fp32": (("float32", ""),)})
        self.opened: list[tuple[str, str, str]] = []
        self.probed: list[str] = []
        self.where: tuple[str, ...] = ("cpu",)
        self.version: str | None = "1"
        self.refuses = ""

    def devices(self) -> tuple[str, ...]:
        return self.where

    def open_graph(self, data: bytes, spec: GraphSpec, **asked: Any) -> Any:
        if self.fails:
            raise BackendError(self.name, expected="luck", got=self.fails, remedy="Wait.")
        self.opened.append((asked["device"], asked["precision"], spec.file))
        borders = {"inputs": spec.inputs, "outputs": spec.outputs}
        return SimpleNamespace(backend=self.name, warnings=("slow",), **borders, **asked)

    def probe(self, data: Any, spec: Any, feeds: Mapping[str, Any], device: str) -> BackendStatus:
        self.probed.append(device)
        if self.refuses:
            raise InputError(self.refuses, expected="a list", got="'x'", remedy="Leave it out.")
        reason = "" if self.works else "no driver"
        return BackendStatus(self.name, self.works, reason, self.version, device, tuple(self.FILES))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Fake]]:
    listed = {name: Fake(name) for name in ("first", "second", "third")}
    monkeypatch.setattr(registry, "module_of", listed.__getitem__)
    monkeypatch.setattr(registry, "NAMES", tuple(listed))
    monkeypatch.setattr(registry, "ORDER", ("first", "second"))
    probing.probed.cache_clear()
    yield listed
    probing.probed.cache_clear()


def test_auto_takes_the_first_that_works(fakes: dict[str, Fake]) -> None:
    assert open_graph(tiny_onnx(), SPEC).backend == "first"
    assert fakes["second"].probed == []  # not even tried
    fakes["first"].works = False
    assert open_graph(tiny_onnx(), SPEC).backend == "first"  # the probe is once in a process
    assert fakes["first"].probed == ["cpu"]
    probing.probed.cache_clear()
    assert open_graph(tiny_onnx(), SPEC).backend == "second"
    assert len(fakes["first"].opened) == 2


def test_auto_goes_on_where_a_graph_cannot_be_opened(fakes: dict[str, Fake]) -> None:
    fakes["first"].fails = "too large"
    assert open_graph(tiny_onnx(), SPEC).backend == "second"
    fakes["second"].works = False
    probing.probed.cache_clear()
    with pytest.raises(BackendError, match="first: expected luck, got too large"):
        open_graph(tiny_onnx(), SPEC)
    fakes["second"].works, fakes["second"].fails = True, "a hole"
    probing.probed.cache_clear()
    with pytest.raises(BackendError, match=r"open this graph here, got first.*too large.*a hole"):
        open_graph(tiny_onnx(), SPEC)
    fakes["first"].works = fakes["second"].works = False
    probing.probed.cache_clear()
    with pytest.raises(BackendError, match=r"open this graph here, got no driver"):
        open_graph(tiny_onnx(), SPEC)
    assert fakes["third"].opened == []  # by name alone


def test_what_is_passed_over_is_told(fakes: dict[str, Fake], monkeypatch: Any) -> None:
    """What is installed and has its device; a machine without that device stays silent."""
    first = fakes["first"]

    def said() -> tuple[str, ...]:
        probing.probed.cache_clear()
        return tuple(getattr(open_graph(tiny_onnx(), SPEC), "warnings", ()))

    first.where = ("cuda", "cpu")
    first.works = False
    assert said() == ("the backend 'first' on 'cpu' was passed over: no driver", "slow")
    monkeypatch.setattr(probing, "has_device", lambda device: True)
    words = [f"the backend 'first' on '{d}' was passed over: no driver" for d in ("cuda", "cpu")]
    assert said() == (*words, "slow")
    first.version = None  # not installed
    assert said() == ("slow",)
    first.works, first.fails = True, "too large"
    assert len(said()) == 3 and "first: expected luck, got too large" in said()[0]
    graph = open_graph(tiny_onnx(), SPEC)
    assert isinstance(graph, NotedGraph) and isinstance(graph, Graph)
    assert (graph.backend, graph.device, graph.inputs) == ("second", "cpu", SPEC.inputs)


def test_a_wrong_variable_is_no_missing_backend(fakes: dict[str, Fake]) -> None:
    """`auto` does not go on to the CPU because of a misspelt setting; the doctor reports it."""
    fakes["first"].refuses = "FSSEG_TENSORRT"
    with pytest.raises(InputError, match=r"^FSSEG_TENSORRT"):
        open_graph(tiny_onnx(), SPEC)
    assert open_graph(tiny_onnx(), SPEC, backend="second").backend == "second"
    status = backends.probe()[0]
    assert not status.available and status.reason.startswith("FSSEG_TENSORRT")


def test_a_bad_file_ends_the_search(fakes: dict[str, Fake]) -> None:
    """It is bad on every backend; none gets it."""
    with pytest.raises(BackendError, match=r"^graph, member 'encoder\.onnx'"):
        open_graph(tiny_onnx()[:-9], SPEC)
    with pytest.raises(BackendError, match=r"^graph 'head', member"):
        open_graphs({"encoder": SPEC, "head": replace(SPEC, file="h.onnx")}, cut_head)
    assert fakes["first"].opened == []


def cut_head(file: str) -> bytes:
    return tiny_onnx()[:-9] if file == "h.onnx" else tiny_onnx()


def test_a_named_backend_is_that_or_an_error(fakes: dict[str, Fake]) -> None:
    assert open_graph(tiny_onnx(), SPEC, backend="third").backend == "third"
    assert fakes["third"].probed == []  # opening it tells as much
    fakes["third"].fails = "no"
    with pytest.raises(BackendError, match="third: expected luck, got no"):
        open_graph(tiny_onnx(), SPEC, backend="third")


def test_devices_of_one_backend(fakes: dict[str, Fake]) -> None:
    first = fakes["first"]
    first.where = ("cuda", "cpu")
    open_graph(tiny_onnx(), SPEC)
    open_graph(tiny_onnx(), SPEC, device="cpu")
    open_graph(tiny_onnx(), SPEC, device="cpu", backend="first")
    assert [device for device, _, _ in first.opened] == ["cuda", "cpu", "cpu"]


def test_auto_precision_does_not_leave_fp32(fakes: dict[str, Fake]) -> None:
    fakes["first"].FILES = fakes["second"].FILES = MappingProxyType(KINDS)
    several = {"encoder": spec(S8, FULL)}
    fakes["first"].fails = fakes["second"].fails = "no"
    with pytest.raises(BackendError):
        open_graphs(several, read)
    fakes["second"].fails = ""
    open_graphs(several, read)
    open_graphs({"encoder": spec(HALF, S8)}, read)  # no fp32; fp16 runs on neither
    assert fakes["second"].opened == [
        ("cpu", "fp32", FULL.file),
        ("cpu", "int8", S8.file),
    ]


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ORDER", ("tensorrt", "onnxruntime", "openvino"))
    assert backends.order() == ("tensorrt", "onnxruntime", "openvino")
    assert backends.order("fp16") == backends.order("fp32")
    for precision in ("bf16", "int8"):
        assert backends.order(precision) == ("tensorrt", "openvino", "onnxruntime")


def test_every_listed_backend_has_what_it_needs() -> None:
    assert set(registry.ORDER) <= set(registry.NAMES)
    for name in backends.names():
        module = registry.module_of(name)
        assert set(module.FILES) <= set(PRECISIONS)
        assert module.devices()
        for member in ("open_graph", "probe"):
            assert callable(getattr(module, member))
