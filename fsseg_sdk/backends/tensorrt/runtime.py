"""An engine that runs: a session for each thread and shape, replayed as one CUDA graph."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..checks import check_feeds, check_outputs, check_process
from ..graph import GraphSpec, TensorInfo
from .api import ICudaEngine, Module
from .cuda import Cuda
from .options import free_axes
from .session import Capture, LoadedEngine, Session

__all__ = ["TensorRtGraph"]

_SHAPES = 4  # sessions that a thread keeps; each has memory of its own on the device


class TensorRtGraph:
    """A graph in a TensorRT engine. Immutable; `run` may be called from many threads.

    Each thread has its own context, stream and memory; they go when the thread ends. The second
    call of a shape is recorded as a CUDA graph, and later ones replay it; see `capture`.
    """

    def __init__(
        self,
        trt: Module,
        loaded: LoadedEngine,
        cuda: Cuda,
        spec: GraphSpec,
        *,
        backend: str,
        device: str,
        precision: str,
        batch: int,
    ) -> None:
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.backend, self.device, self.precision = backend, device, precision
        self.capture = Capture()
        self._loaded, self._cuda, self._batch = loaded, cuda, batch
        self._process = os.getpid()
        self._local = threading.local()
        _compare(trt, loaded.engine, spec, backend)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What costs time here."""
        if not self.capture.failure:
            return ()
        return (f"no CUDA graph could be recorded ({self.capture.failure}); calls take longer",)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in memory of their own. More rows than the engine takes at once are
        run in several calls. Raises InputError for arrays that the graph does not take and
        BackendError for a failure of TensorRT or CUDA, or a graph from before a fork."""
        check_process(self._process, self.backend)
        arrays = check_feeds(self.inputs, feeds)
        rows = {len(arrays[i.name]) for i in self.inputs if i.shape[:1] == (-1,)}
        if max(rows, default=0) <= self._batch:
            return self._run(arrays)
        if len(rows) != 1 or not free_axes((*self.inputs, *self.outputs)):
            raise BackendError(
                f"backend {self.backend!r}",
                expected=f"at most {self._batch} rows in each array",
                got=f"{max(rows)}",
                remedy=f"Set FSSEG_TENSORRT=batch={max(rows)} and build the engine again.",
            )
        parts = [
            self._run({name: array[at : at + self._batch] for name, array in arrays.items()})
            for at in range(0, max(rows), self._batch)
        ]
        return {info.name: np.concatenate([p[info.name] for p in parts]) for info in self.outputs}

    def _run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._cuda.current():
            results = self._session(arrays).run(arrays)
        return check_outputs(self.outputs, results, self.backend)

    def _session(self, arrays: Mapping[str, NDArray[Any]]) -> Session:
        sessions: OrderedDict[Any, Session] | None = getattr(self._local, "sessions", None)
        if sessions is None:
            sessions = self._local.sessions = OrderedDict()
        key = tuple(arrays[info.name].shape for info in self.inputs)
        session = sessions.pop(key, None)
        if session is None:
            while len(sessions) >= _SHAPES:
                sessions.popitem(last=False)
            session = Session(
                self._loaded,
                self._cuda,
                self.capture,
                self.inputs,
                self.outputs,
                key,
                self.backend,
            )
        sessions[key] = session
        return session


_KINDS = {
    "float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64",
    "bool": "BOOL", "uint8": "UINT8",
}  # fmt: skip


def _compare(trt: Module, engine: ICudaEngine, spec: GraphSpec, backend: str) -> None:
    """The engine's tensors against what the manifest says."""
    found = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dims = ", ".join("any" if d == -1 else str(d) for d in engine.get_tensor_shape(name))
        mode = engine.get_tensor_mode(name)
        device = engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        way = "in" if mode == trt.TensorIOMode.INPUT else "out"
        found[name] = (way, engine.get_tensor_dtype(name), dims, device)
    wanted = {}
    for way, infos in (("in", spec.inputs), ("out", spec.outputs)):
        for info in infos:
            kind = getattr(trt.DataType, _KINDS.get(info.dtype, ""), None)
            dims = ", ".join("any" if d == -1 else str(d) for d in info.shape)
            wanted[info.name] = (way, kind, dims, True)
    if found != wanted:
        raise BackendError(
            f"backend {backend!r}, {spec.file}",
            expected="an engine with the tensors that the manifest names",
            got=", ".join(
                f"{name} {value[0]} {value[1]} [{value[2]}]" for name, value in found.items()
            ),
            remedy="The bundle's manifest does not describe its graph; export it again.",
        )
