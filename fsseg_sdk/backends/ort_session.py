"""Sessions of ONNX Runtime, for the backends that are made of it. Imported when one is opened.

Telemetry: since 1.29 ONNX Runtime reports usage to Microsoft on Linux and macOS too, from a thread
that starts with the import. It is switched off here before the import (set ORT_DISABLE_TELEMETRY=0
yourself to keep it): pictures of a production line are nobody else's business, and its thread makes
a forked process hang on exit.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

from ..errors import BackendError
from .checks import one_line
from .graph import GraphSpec

__all__ = ["CPU", "Provider", "import_runtime", "installed_twice", "open_session"]

CPU = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64"}  # ONNX's words for numpy's; others agree

# Of sessions that a fork copies into a child: their threads stay behind, so destroying one hangs.
_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()

Provider = str | tuple[str, dict[str, str]]


def import_runtime(name: str, install: str) -> ModuleType:
    """The package onnxruntime; BackendError of the backend `name` where it is missing or broken."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as runtime

        runtime.InferenceSession, runtime.__version__  # noqa: B018 (half an uninstall removes them)
    except (ImportError, AttributeError, OSError) as error:
        raise BackendError(
            f"backend {name!r}",
            expected="ONNX Runtime, which is not part of fsseg_sdk",
            got=installed_twice() or one_line(error),
            remedy=install,
        ) from error
    return cast(ModuleType, runtime)


def open_session(
    runtime: ModuleType,
    data: bytes,
    spec: GraphSpec,
    providers: Sequence[Provider],
    threads: int,
    backend: str,
) -> Any:
    """A session of the ONNX file `data` whose first provider is the first of `providers`: ONNX
    Runtime by itself goes on with the next one, and only logs that. Raises BackendError."""
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if first not in runtime.get_available_providers():
        raise _unavailable(backend, first, "an ONNX Runtime that was built without it")
    options = _options(runtime, threads)
    try:
        session = runtime.InferenceSession(
            data, options, providers=list(providers), enable_fallback=0
        )
    except Exception as error:
        raise BackendError(
            f"{backend}, {spec.file}",
            expected=f"a graph that ONNX Runtime can open with the {first}",
            got=one_line(error),
            remedy="Export the bundle again, or update ONNX Runtime.",
        ) from error
    if session.get_providers()[0] != first:
        raise _unavailable(backend, first, repr(session.get_providers()[0]))
    _compare(session, spec, backend)
    session._model_bytes = None  # it keeps the file for a fallback that is off: as much as weights
    _SESSIONS.add(session)
    return session


def _unavailable(backend: str, provider: str, got: str) -> BackendError:
    gpu = provider != CPU
    return BackendError(
        f"backend {backend!r}, provider",
        expected=provider,
        got=got,
        remedy="It needs an NVIDIA GPU with its driver, 'pip install fsseg_sdk[gpu]' in place of "
        "[cpu], and the CUDA libraries that docs/deployment.md names."
        if gpu
        else "Install ONNX Runtime again.",
    )


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


def _compare(session: Any, spec: GraphSpec, backend: str) -> None:
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
                    f"{backend}, {spec.file}",
                    expected=str(info),
                    got=f"{inner} {shape}",
                    remedy="The bundle's manifest does not describe its graph; export it again.",
                )


def installed_twice() -> str:
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
