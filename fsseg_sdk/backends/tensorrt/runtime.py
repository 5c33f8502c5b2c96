"""An engine that runs: a session for each thread and shape, on the host's arrays or a device's."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..checks import cannot, check_feeds, check_outputs, check_process, check_shapes
from ..graph import GraphSpec, NotPrepared, TensorInfo
from ..own_context import OwnContext
from .api import ICudaEngine, Module
from .device_session import DeviceSession, copy
from .execution import Execution, LoadedEngine
from .options import free_axes
from .session import Capture, Session

if TYPE_CHECKING:
    from ...ops import DeviceArray, DeviceContext

__all__ = ["TensorRtGraph"]

_SHAPES = 4  # sessions that a thread keeps; each has memory of its own on the device

Shapes = tuple[tuple[int, ...], ...]
S = TypeVar("S", Session, DeviceSession)


class _Sessions(threading.local, Generic[S]):
    """Those of each thread, the one used last at the end; they go when the thread ends."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Shapes, S] = OrderedDict()

    def find(self, key: Shapes) -> S | None:
        session = self._kept.get(key)
        if session is not None:
            self._kept.move_to_end(key)
        return session

    def add(self, key: Shapes, make: Callable[[], S]) -> S:
        loose = [known for known, session in self._kept.items() if not session.pinned]
        for known in loose[: max(len(loose) - _SHAPES + 1, 0)]:
            del self._kept[known]
        session = self._kept[key] = make()
        return session


class TensorRtGraph:
    """A graph in a TensorRT engine. Immutable; `run` may be called from many threads.

    Each thread has its own context, stream and memory; they go when the thread ends. Of `run` the
    second call of a shape is recorded as a CUDA graph, if the graph is `capturable`, and later ones
    replay it; see `capture`.
    """

    def __init__(
        self,
        trt: Module,
        loaded: LoadedEngine,
        spec: GraphSpec,
        *,
        backend: str,
        device: str,
        precision: str,
        batch: int,
        on_device: bool,
    ) -> None:
        """on_device: it also takes arrays of the device that the engine was loaded for."""
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.backend, self.device, self.precision = backend, device, precision
        self.capture = Capture()
        self._loaded, self._cuda, self._batch = loaded, loaded.cuda, batch
        self._process = os.getpid()
        self._on_host: _Sessions[Session] = _Sessions()
        self._on_device: _Sessions[DeviceSession] = _Sessions()
        number = loaded.cuda.device.ordinal
        self._own = OwnContext(number, self._process, backend) if on_device else None
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
        pieces = self._pieces(arrays)
        if not pieces:
            return self._run(arrays)
        parts = [
            self._run({name: array[rows] for name, array in arrays.items()}) for rows in pieces
        ]
        return {info.name: np.concatenate([p[info.name] for p in parts]) for info in self.outputs}

    def _pieces(self, arrays: Mapping[str, Any]) -> list[slice]:
        """The rows of each run where there are more than the engine takes at once, else nothing."""
        rows = {arrays[i.name].shape[0] for i in self.inputs if i.shape[:1] == (-1,)}
        most = max(rows, default=0)
        if most <= self._batch:
            return []
        if len(rows) != 1 or not free_axes((*self.inputs, *self.outputs)):
            raise BackendError(
                f"backend {self.backend!r}",
                expected=f"at most {self._batch} rows in each array",
                got=f"{most}",
                remedy=f"Set FSSEG_TENSORRT=batch={most} and build the engine again.",
            )
        return [slice(at, min(at + self._batch, most)) for at in range(0, most, self._batch)]

    def _run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        key = self._key(arrays)
        with self._cuda.current():
            session = self._on_host.find(key) or self._on_host.add(
                key, lambda: Session(self._execution(key), self.capture, self.capturable)
            )
            results = session.run(arrays)
        return check_outputs(self.outputs, results, self.backend)

    @property
    def context(self) -> DeviceContext | None:
        """This thread's, with a stream of its own. BackendError in a process from after a fork."""
        return None if self._own is None else self._own.get()

    @property
    def capturable(self) -> bool:
        """TensorRT-RTX goes on to other kernels when it has compiled them for a shape, in the
        background: what was recorded before would be the slow ones, or none that are left."""
        return self.backend == "tensorrt"

    def run_on_device(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """As `run`, on arrays of `context`, read and written where they are; nothing waits.
        NotPrepared while the stream is captured and it has not run twice with these shapes, or
        so long ago that others have taken their place."""
        context = self.context
        if context is None:
            raise cannot(
                self.backend, "arrays on a device", "a graph that has a context", "one without"
            )
        check_shapes(self.inputs, feeds)
        arrays = {name: context._from_context(array, name) for name, array in feeds.items()}
        pieces = self._pieces(arrays)
        with self._cuda.current():
            captured = self._cuda.captures(context.stream)
            if not pieces:
                return self._enqueue(arrays, context, captured)
            rows = pieces[-1].stop
            whole = {i.name: context.empty((rows, *i.shape[1:]), i.dtype) for i in self.outputs}
            for piece in pieces:
                part = {name: array[piece] for name, array in arrays.items()}
                for name, made in self._enqueue(part, context, captured).items():
                    copy(self._cuda, made, whole[name][piece])
        return whole

    def _enqueue(
        self, arrays: Mapping[str, DeviceArray], context: DeviceContext, captured: bool
    ) -> dict[str, DeviceArray]:
        key = self._key(arrays)
        session = self._on_device.find(key)
        if captured:
            if session is None or session.calls < 2:
                raise NotPrepared(
                    f"backend {self.backend!r}",
                    expected="two runs with these shapes before one is recorded as a CUDA graph",
                    got="a stream that is being captured",
                    remedy=f"Run it twice, then capture; a thread keeps the last {_SHAPES} shapes.",
                )
            session.pinned = True
        elif session is None:
            session = self._on_device.add(key, lambda: DeviceSession(self._execution(key), context))
        return session.run(arrays)

    def _key(self, arrays: Mapping[str, Any]) -> Shapes:
        return tuple(arrays[info.name].shape for info in self.inputs)

    def _execution(self, shapes: Shapes) -> Execution:
        return Execution(self._loaded, self.inputs, self.outputs, shapes, self.backend)


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
