"""One context of an engine with its memory and stream: run plainly, then as one CUDA graph."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..graph import TensorInfo
from .api import ICudaEngine, Module
from .buffers import Buffer, Resources
from .cuda import Cuda
from .module import Log, make_logger
from .options import BuildOptions

__all__ = ["Capture", "LoadedEngine", "Session", "load_engine"]

# Python objects that hold TensorRT's. A forked child must never destroy them: CUDA is gone there.
_ALIVE: weakref.WeakSet[Any] = weakref.WeakSet()


class LoadedEngine:
    """An engine with what must live as long as it does, the device's context last."""

    def __init__(
        self, runtime: Any, logger: Any, engine: ICudaEngine, log: Log, cuda: Cuda
    ) -> None:
        self.engine, self.runtime, self.logger, self.log = engine, runtime, logger, log
        self.lock = threading.Lock()
        self.cuda = cuda
        _ALIVE.add(self)


def load_engine(
    trt: Module, plan: bytes | memoryview, cuda: Cuda, options: BuildOptions
) -> LoadedEngine | str:
    """The engine, or why TensorRT does not take the plan."""
    log = Log()
    logger = make_logger(trt, log)
    with cuda.current():
        try:
            runtime = trt.Runtime(logger)
            if options.dla >= 0:
                runtime.DLA_core = options.dla
            engine = runtime.deserialize_cuda_engine(plan)
        except (TypeError, RuntimeError, ValueError) as error:
            return " ".join(str(error).split())[:200]
    return log.worst() if engine is None else LoadedEngine(runtime, logger, engine, log, cuda)


class Capture:
    """count: CUDA graphs that were recorded; failure: why one could not be, "" if none failed."""

    def __init__(self) -> None:
        self.count = 0
        self.failure = ""


class Session:
    """One context for one set of shapes; used by one thread. A context of which a CUDA graph was
    recorded must not get other shapes, so another shape has another session."""

    def __init__(
        self,
        loaded: LoadedEngine,
        cuda: Cuda,
        capture: Capture,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        shapes: Sequence[tuple[int, ...]],
        backend: str,
    ) -> None:
        """shapes: of the inputs, in their order. Called inside `cuda.current()`, as is `run`."""
        self._backend, self._notes = backend, capture
        self._cuda, self._loaded = cuda, loaded
        self._executable: int | None = None
        self._calls = 0
        self._resources = Resources(self._cuda)
        self._finalizer = weakref.finalize(self, self._resources.release)
        try:
            self._prepare(inputs, outputs, shapes)
        except BaseException:
            self._finalizer()  # what was allocated before the failure
            raise
        _ALIVE.add(self)

    def _prepare(
        self,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        with self._loaded.lock:
            context = self._loaded.engine.create_execution_context()
        if context is None:
            raise self._failed("no execution context")
        self._context = context
        self._stream = self._resources.stream()
        self._inputs: dict[str, Buffer] = {}
        for info, shape in zip(inputs, shapes, strict=True):
            if not context.set_input_shape(info.name, shape):
                raise self._failed(f"the shape {list(shape)} of {info.name!r} refused")
            self._inputs[info.name] = self._bind(info, shape)
        missing = list(context.infer_shapes())
        if missing:
            raise self._failed(f"no shapes for {', '.join(missing)}")
        self._outputs = [
            self._bind(info, tuple(context.get_tensor_shape(info.name))) for info in outputs
        ]

    def _bind(self, info: TensorInfo, shape: tuple[int, ...]) -> Buffer:
        if min(shape, default=1) < 0:
            raise self._failed(f"no shape for {info.name!r}")
        buffer = self._resources.buffer(info.dtype, shape)
        if not self._context.set_tensor_address(info.name, buffer.address):
            raise self._failed(f"the memory of {info.name!r} refused")
        return buffer

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, arrays[name])
        self._calls += 1
        if self._calls == 2:  # the first call lets TensorRT load what it loads lazily
            self._capture()
        if self._executable is not None:
            self._cuda.launch(self._executable, self._stream)
        else:
            self._enqueue()
        self._cuda.synchronize(self._stream)
        return [buffer.host.copy() for buffer in self._outputs]

    def _enqueue(self) -> None:
        for buffer in self._inputs.values():
            if not buffer.shared:
                self._cuda.copy_to_device(
                    buffer.address, buffer.pointer, buffer.bytes, self._stream
                )
        if not self._context.execute_async_v3(self._stream):
            raise self._failed("the execution refused")
        for buffer in self._outputs:
            if not buffer.shared:
                self._cuda.copy_to_host(buffer.pointer, buffer.address, buffer.bytes, self._stream)

    def _capture(self) -> None:
        """Records a call; where that cannot be done, calls go on one by one, and it is said why."""
        failure: BackendError | None = None
        try:
            self._cuda.begin_capture(self._stream)
            try:
                self._enqueue()
            except BackendError as error:
                failure = error
            self._executable = self._cuda.end_capture(self._stream)
        except BackendError as error:
            failure = failure or error
        if self._executable is not None:
            self._resources.keep_executable(self._executable)
        if failure is not None:
            self._executable = None
            self._notes.failure = failure.got
            if not self._cuda.alive:
                raise failure
        else:
            self._notes.count += 1

    def _failed(self, got: str) -> BackendError:
        return BackendError(
            f"backend {self._backend!r}",
            expected="TensorRT to run the engine",
            got=f"{got}: {self._loaded.log.worst()}",
            remedy="If memory ran out, use a smaller batch or fewer threads; else run 'fsseg "
            "doctor'.",
        )


def _keep_alive() -> None:
    """In a forked child: one reference more than anything ever gives back."""
    for held in list(_ALIVE):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_alive)
