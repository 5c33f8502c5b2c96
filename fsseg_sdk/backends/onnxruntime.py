"""ONNX Runtime on the CPU, in float32. The package is imported when a graph is opened.

Telemetry: since 1.29 ONNX Runtime reports usage to Microsoft on Linux and macOS too, from a thread
that starts with the import. It is switched off here before the import (set ORT_DISABLE_TELEMETRY=0
yourself to keep it): pictures of a production line are nobody else's business, and its thread makes
a forked process hang on exit.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .checks import check_feeds, check_outputs, check_process, choose_threads, one_line
from .graph import BackendStatus, GraphSpec, TensorInfo

__all__ = ["OnnxRuntimeGraph", "open_graph", "probe"]

NAME = "onnxruntime"
INSTALL = "pip install fsseg_sdk[cpu]"
PRECISIONS = ("fp32",)
_PROVIDER = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}  # ONNX's words for numpy's; others agree

# Of sessions that a fork copies into a child: their threads stay behind, so destroying one hangs.
_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()


class OnnxRuntimeGraph:
    """A graph in an ONNX Runtime session. Immutable; `run` may be called from many threads."""

    backend = NAME
    device = "cpu"
    precision = "fp32"

    def __init__(self, session: Any, spec: GraphSpec) -> None:
        self._session = session
        self._names = [info.name for info in spec.outputs]
        self._process = os.getpid()
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name. Raises InputError for arrays that the graph does not take and
        BackendError for a failure inside ONNX Runtime or a graph from before a fork."""
        check_process(self._process, NAME)
        arrays = check_feeds(self.inputs, feeds)
        try:
            results = self._session.run(self._names, arrays)
        except Exception as error:
            raise BackendError(
                NAME,
                expected="the graph to run",
                got=one_line(error),
                remedy="If memory ran out, use a smaller batch; else run 'fsseg doctor'.",
            ) from error
        return check_outputs(self.outputs, results, NAME)


def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> OnnxRuntimeGraph:
    """A session for the checked ONNX file `data`. Raises BackendError for what it cannot do."""
    if device not in ("auto", "cpu"):
        raise _cannot("device", "'cpu'", device)
    if precision not in ("auto", *PRECISIONS):
        raise _cannot("precision", "'fp32'", precision)
    if spec.compute != "float32":
        raise _cannot("graph", "one that computes in float32", spec.compute)
    runtime = _import()
    options = _options(runtime, choose_threads(threads))
    try:
        session = runtime.InferenceSession(data, options, providers=[_PROVIDER], enable_fallback=0)
    except Exception as error:
        raise BackendError(
            f"{NAME}, {spec.file}",
            expected="a graph that ONNX Runtime can open",
            got=one_line(error),
            remedy="Export the bundle again, or update ONNX Runtime.",
        ) from error
    if session.get_providers()[0] != _PROVIDER:
        raise _cannot("provider", _PROVIDER, session.get_providers()[0])
    _compare(session, spec)
    session._model_bytes = None  # it keeps the file for a fallback that is off: as much as weights
    _SESSIONS.add(session)
    return OnnxRuntimeGraph(session, spec)


def probe(data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]]) -> BackendStatus:
    """Runs the graph features = image + 1 for real and says how that went."""
    version: str | None = None
    try:
        version = str(_import().__version__)
        graph = open_graph(data, spec, device="auto", precision="auto", threads=1)
        right = np.array_equal(graph.run(feeds)["features"], feeds["image"] + 1)
    except BackendError as error:
        return BackendStatus(NAME, False, str(error), version, "cpu", PRECISIONS)
    reason = _installed_twice() if right else "it computes 1 + 1 wrongly on this machine"
    return BackendStatus(NAME, right, reason, version, "cpu", PRECISIONS)


def _import() -> ModuleType:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as runtime

        runtime.InferenceSession, runtime.__version__  # noqa: B018 (half an uninstall removes them)
    except (ImportError, AttributeError, OSError) as error:
        raise BackendError(
            f"backend {NAME!r}",
            expected="ONNX Runtime, which is not part of fsseg_sdk",
            got=_installed_twice() or one_line(error),
            remedy=f"{INSTALL}",
        ) from error
    return cast(ModuleType, runtime)


def _options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Of the four combinations the one with the lowest peak (ViT-Ti at 448: 124 MB of the process;
    # with patterns 142 MB, without the arena 220 MB and slower).
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised, once
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never by its content
    return options


def _compare(session: Any, spec: GraphSpec) -> None:
    """What the runtime understood against what the manifest says."""
    for declared, found in (
        (spec.inputs, session.get_inputs()),
        (spec.outputs, session.get_outputs()),
    ):
        by_name = {node.name: node for node in found}
        for info in declared:
            node = by_name.get(info.name)
            inner = node.type.removeprefix("tensor(").removesuffix(")") if node else "nothing"
            shape = node.shape if node else []
            if _DTYPES.get(inner, inner) != info.dtype or len(shape) != len(info.shape):
                raise BackendError(
                    f"{NAME}, {spec.file}",
                    expected=str(info),
                    got=f"{inner} {shape}",
                    remedy="The bundle's manifest does not describe its graph; export it again.",
                )


def _cannot(what: str, can: str, asked: str) -> BackendError:
    return BackendError(
        f"backend {NAME!r}, {what}",
        expected=f"{can}: this backend runs float32 graphs on the CPU",
        got=repr(asked),
        remedy="Leave it at 'auto', or choose another backend ('fsseg doctor' lists them).",
    )


def _installed_twice() -> str:
    """A sentence where two wheels fight over one Python package; "" where they do not."""
    from importlib import metadata

    found = []
    for wheel in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{wheel} {metadata.version(wheel)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return ""
    return (
        f"both {' and '.join(found)} are installed over each other; "
        "uninstall both, then install the one you need"
    )


def _keep_sessions() -> None:
    """In a forked child: one reference more than anything ever gives back."""
    for session in list(_SESSIONS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)
