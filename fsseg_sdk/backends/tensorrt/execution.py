"""An engine with what must live as long as it does, and one context of it for one set of shapes."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from ...errors import BackendError
from ..graph import TensorInfo
from .api import ICudaEngine, Module
from .cuda import Cuda
from .module import Log, make_logger
from .options import BuildOptions

__all__ = ["Execution", "LoadedEngine", "load_engine"]

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


class Execution:
    """One context for one set of shapes; used by one thread. A context of which a CUDA graph was
    recorded must not get other shapes, so another shape has another execution."""

    def __init__(
        self,
        loaded: LoadedEngine,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        shapes: Sequence[tuple[int, ...]],
        backend: str,
    ) -> None:
        """shapes: of the inputs, in their order. Called inside `cuda.current()`, as is all else."""
        self._context: Any = None  # the first of all: it goes before its engine does
        self._loaded, self._backend = loaded, backend
        self.cuda = loaded.cuda
        with loaded.lock:
            context = loaded.engine.create_execution_context()
        if context is None:
            raise self._failed("no execution context")
        self._context = context
        for info, shape in zip(inputs, shapes, strict=True):
            if not context.set_input_shape(info.name, shape):
                raise self._failed(f"the shape {list(shape)} of {info.name!r} refused")
        missing = list(context.infer_shapes())
        if missing:
            raise self._failed(f"no shapes for {', '.join(missing)}")
        self.inputs = [(info, tuple(shape)) for info, shape in zip(inputs, shapes, strict=True)]
        self.outputs = [(info, self._shape_of(info.name)) for info in outputs]
        _ALIVE.add(self)

    def _shape_of(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise self._failed(f"no shape for {name!r}")
        return shape

    def bind(self, name: str, address: int) -> None:
        """What the next run reads or writes there."""
        if not self._context.set_tensor_address(name, address):
            raise self._failed(f"the memory of {name!r} refused")

    def enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._failed("the execution refused")

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
