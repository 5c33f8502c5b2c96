"""Backends: what runs a graph. One module per runtime behind the Graph protocol.

A module is listed in `NAMES` and has

- FILES: the files that it can run for each precision (see `choice`);
- devices(): what `device="auto"` tries, best first; no error, and nothing slow where there is none;
- open_graph(data, spec, *, device, precision, threads): a Graph of one checked file, or
  BackendError; device and precision are what was asked or chosen, never "auto";
- probe(data, spec, feeds, device): a BackendStatus, after running a small graph for real.

`auto` tries the backends of `order`, each on its devices, passes over what a probe (once in a
process) finds not to work here, and takes the first that can do what was asked. What it passed
over although it is installed and its device is there stands in the graph's `warnings`. A backend
that was named is used, or an error says why it cannot be: nothing falls back in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np

from ..errors import BackendError, FssegError, InputError
from ..fields import Refusal
from .choice import PRECISIONS, Kinds, choose_files, find_file, held, shown
from .graph import BackendStatus, DeviceGraph, Graph, GraphFile, GraphSpec, NotedGraph, TensorInfo
from .onnx_check import check_onnx

__all__ = [
    "BackendStatus",
    "DeviceGraph",
    "Graph",
    "GraphFile",
    "GraphSpec",
    "TensorInfo",
    "file_for",
    "names",
    "open_graph",
    "open_graphs",
    "order",
    "probe",
]

NAMES = ("tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt", "openvino")
"""All backends. Each is a module of this package, with '_' for '-'."""

ORDER = ("tensorrt", "tensorrt-rtx", "onnxruntime", "openvino")
"""What `auto` tries. ONNX Runtime's TensorRT provider is not among them: it builds an engine each
time that it loads, which takes minutes."""

# features = image + 1 on [batch, 3, 2, 2]: small, and every runtime must get it right.
_PROBE = bytes.fromhex(
    "080712003a82010a1b0a05696d6167650a036f6e65120866656174757265732203416464120570726f62652a"
    "0d100142036f6e654a040000803f5a240a05696d616765121b0a19080112150a07120562617463680a020803"
    "0a0208020a02080262270a086665617475726573121b0a19080112150a07120562617463680a0208030a0208"
    "020a02080242040a00100d"
)
_PROBE_SPEC = GraphSpec(
    "probe.onnx",
    (TensorInfo("image", "float32", (-1, 3, 2, 2)),),
    (TensorInfo("features", "float32", (-1, 3, 2, 2)),),
)
_REMEDY = "Export the graph again with 'python -m export'."


def names() -> tuple[str, ...]:
    """The backends that this version knows."""
    return NAMES


def order(precision: str = "fp32") -> tuple[str, ...]:
    """The backends that `auto` tries for a precision, first to last. On a CPU OpenVINO alone has
    bf16, and it runs the s8s8 that is slow in ONNX Runtime, which goes last for these two."""
    last = "onnxruntime" if precision in ("bf16", "int8") else ""
    return tuple(sorted(ORDER, key=lambda name: name == last))


def file_for(spec: GraphSpec, backend: str, precision: str) -> GraphFile | None:
    """The file of a graph that a backend takes for a precision; None where there is none."""
    kinds: Kinds = _module(backend).FILES
    return find_file(spec, kinds.get(precision, ()))


def open_graph(
    data: bytes | memoryview,
    spec: GraphSpec,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Graph:
    """Opens the ONNX file `data`, the first file of `spec`, on a backend; see `open_graphs`."""
    graphs = open_graphs(
        {"": spec.only(spec.files[0])},
        lambda file: data,
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
    )
    return graphs[""]


def open_graphs(
    specs: Mapping[str, GraphSpec],
    read: Callable[[str], bytes | memoryview],
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> dict[str, Graph]:
    """Opens graphs that work together, all on one backend and device.

    specs: the encoder first. read: a file's name to its content. backend: a name of `names()` or
    "auto"; device: "auto", "cpu", "cuda"; precision: of the encoder, of `choice.PRECISIONS`, or
    "auto" (fp32 if there is such a file, else what there is); a graph without a file for it runs
    in fp32. threads: None is FSSEG_NUM_THREADS or all usable cores. A file is checked (see
    `onnx_check`) before any runtime sees it. Raises BackendError, which says what to install
    where that would help, and InputError for an environment variable that is out of range.
    """
    _check_asked(backend, precision)
    first = next(iter(specs.values()))
    data = _checked(specs, read)
    failures: list[FssegError] = []
    idle: list[str] = []  # why those do not work here that were passed over
    notes: list[str] = []  # on what was passed over although it is installed and has its device

    def known() -> dict[str, Kinds]:
        return {name: _module(name).FILES for name in NAMES}

    def failed(name: str, where: str, error: BackendError) -> None:
        failures.append(error)
        if _is_there(where):
            notes.append(_passed_over(name, where, str(error)))

    for kind in held(first) if precision == "auto" else (precision,):
        for name, where in _places(backend, device, kind):
            status = _probed(name, where) if backend == "auto" else None
            if status is not None and not status.available:
                reason = status.reason or f"{name} does not work on {where}"
                idle.append(reason)
                if status.version is not None and _is_there(where):  # installed
                    notes.append(_passed_over(name, where, reason))
                continue
            module = _module(name)
            try:
                chosen = choose_files(specs, kind, name, module.FILES, known)
            except BackendError as error:
                failed(name, where, error)
                continue
            files = {graph: data(graph, file) for graph, (_, file) in chosen.items()}
            try:
                graphs: dict[str, Graph] = {
                    graph: module.open_graph(
                        files[graph],
                        specs[graph].only(file),
                        device=where,
                        precision=own,
                        threads=threads,
                    )
                    for graph, (own, file) in chosen.items()
                }
            except BackendError as error:
                failed(name, where, error)
                continue
            if notes:
                encoder = next(iter(graphs))
                graphs[encoder] = NotedGraph(graphs[encoder], tuple(dict.fromkeys(notes)))
            return graphs
    reasons = dict.fromkeys([str(error) for error in failures] or idle)
    if len(failures) == 1 or (failures and len(reasons) == 1):
        raise failures[0]
    raise BackendError(
        "backend",
        expected="one that can open this graph here",
        got="; ".join(reasons),
        remedy="Install one of them, or name the one that you want fixed.",
    )


def _check_asked(backend: str, precision: str) -> None:
    if backend not in ("auto", *NAMES):
        raise BackendError(
            "backend",
            expected=" or ".join(("auto", *NAMES)),
            got=repr(backend),
            remedy="Choose one of these ('pip install fsseg_sdk[cpu]' brings onnxruntime); "
            "'fsseg doctor' says which of them work here.",
        )
    if precision not in ("auto", *PRECISIONS):
        raise BackendError(
            "precision",
            expected=" or ".join(("auto", *PRECISIONS)),
            got=repr(precision),
            remedy="Leave it at 'auto' for what suits the bundle.",
        )


def _places(backend: str, device: str, precision: str) -> Iterator[tuple[str, str]]:
    """(backend, device) to try."""
    for name in order(precision) if backend == "auto" else (backend,):
        for where in _module(name).devices() if device == "auto" else (device,):
            yield name, where


def _checked(
    specs: Mapping[str, GraphSpec], read: Callable[[str], bytes | memoryview]
) -> Callable[[str, GraphFile], bytes]:
    """Reads a graph's file and checks it, once. What is wrong with it is wrong on every backend,
    so it ends the search."""
    seen: dict[tuple[str, str], bytes] = {}

    def content(name: str, file: GraphFile) -> bytes:
        if (name, file.file) not in seen:
            raw = _whole(read(file.file))
            refuse = Refusal(BackendError, shown(name), _REMEDY)
            check_onnx(raw, specs[name].only(file), refuse)
            seen[name, file.file] = raw
        return seen[name, file.file]

    return content


def probe() -> list[BackendStatus]:
    """Runs a small graph on each backend and device, and says how that went; never raises for a
    broken one."""
    found = []
    for name in NAMES:
        for device in _module(name).devices():
            try:
                found.append(_probe(name, device))
            except InputError as error:  # of an environment variable; loading raises it
                found.append(BackendStatus(name, False, str(error), None, device, ()))
    return found


def _probe(name: str, device: str) -> BackendStatus:
    feeds = {"image": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}
    status: BackendStatus = _module(name).probe(_PROBE, _PROBE_SPEC, feeds, device)
    return status


_probed = cache(_probe)


def _is_there(device: str) -> bool:
    """Whether the machine has that device: without a driver nobody waits for a GPU."""
    from .tensorrt.driver import probe_driver

    return device == "cpu" or bool(probe_driver().devices)


def _passed_over(name: str, device: str, reason: str) -> str:
    return f"the backend {name!r} on {device!r} was passed over: {reason}"


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def _whole(data: bytes | memoryview) -> bytes:
    """`data` as bytes, without a copy where it is a view of exactly that."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if isinstance(view.obj, bytes) and view.nbytes == len(view.obj) and view.c_contiguous:
        return view.obj
    return view.tobytes()
