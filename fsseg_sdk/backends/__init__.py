"""Backends: what runs an encoder. One file per runtime behind the Graph protocol.

`auto` tries the backends of `ORDER` that are installed, first to last, and takes the first that can
do what was asked. A backend that was named is used, or an error says why it cannot be: nothing
falls back in silence. Adding one is a file with `open_graph` and `probe`, and a line in `ORDER`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np

from ..errors import BackendError, FssegError
from ..fields import Refusal
from .graph import BackendStatus, Graph, GraphSpec, TensorInfo
from .onnx_check import check_onnx

__all__ = [
    "BackendStatus",
    "Graph",
    "GraphSpec",
    "TensorInfo",
    "names",
    "open_graph",
    "probe",
]

ORDER = ("onnxruntime",)
"""What `auto` tries, fastest first. Each is a module of this package."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")

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


def names() -> tuple[str, ...]:
    """The backends that this version knows, in the order that `auto` tries."""
    return ORDER


def open_graph(
    data: bytes | memoryview,
    spec: GraphSpec,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Graph:
    """Opens the ONNX file `data`, which must be what `spec` says, on a backend.

    backend: a name of `names()` or "auto"; device: "auto", "cpu", ...; precision: what to compute
    in, one of `PRECISIONS`; threads: None is FSSEG_NUM_THREADS or all usable cores. The file is
    checked (see `onnx_check`) before any runtime sees it. Raises BackendError, which says what to
    install where that would help.
    """
    if backend not in ("auto", *ORDER):
        raise BackendError(
            "backend",
            expected=" or ".join(("auto", *ORDER)),
            got=repr(backend),
            remedy="Choose one of these ('pip install fsseg_sdk[cpu]' brings onnxruntime); "
            "'fsseg doctor' says which of them work here.",
        )
    if precision not in PRECISIONS:
        raise BackendError(
            "precision",
            expected=" or ".join(PRECISIONS),
            got=repr(precision),
            remedy="Leave it at 'auto' for what suits the backend.",
        )
    remedy = "Export the graph again with 'python -m export'."
    raw = _whole(data)
    check_onnx(raw, spec, Refusal(BackendError, "graph", remedy))
    failures: list[FssegError] = []
    for name in ORDER if backend == "auto" else (backend,):
        try:
            graph: Graph = _module(name).open_graph(
                raw, spec, device=device, precision=precision, threads=threads
            )
            return graph
        except BackendError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise BackendError(
        "backend",
        expected="one that can open this graph here",
        got="; ".join(str(error) for error in failures),
        remedy="Install one of them, or name the one that you want fixed.",
    )


def probe() -> list[BackendStatus]:
    """Runs a small graph on each backend, and says how that went; never raises for a broken one."""
    feeds = {"image": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}
    return [_module(name).probe(_PROBE, _PROBE_SPEC, feeds) for name in ORDER]


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _whole(data: bytes | memoryview) -> bytes:
    """`data` as bytes, without a copy where it is a view of exactly that."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if isinstance(view.obj, bytes) and view.nbytes == len(view.obj) and view.c_contiguous:
        return view.obj
    return view.tobytes()
