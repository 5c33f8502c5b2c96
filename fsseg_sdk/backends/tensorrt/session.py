"""Runs an engine on the host's arrays: plainly at first, then as one CUDA graph."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..graph import TensorInfo
from .buffers import Buffer, Resources
from .execution import Execution

__all__ = ["Capture", "Session"]


class Capture:
    """count: CUDA graphs that were recorded; failure: why one could not be, "" if none failed."""

    def __init__(self) -> None:
        self.count = 0
        self.failure = ""


class Session:
    """An execution with a stream and memory of its own, on host and device. Used by one thread."""

    pinned = False  # the CUDA graph that is recorded of it ends with it

    def __init__(self, execution: Execution, capture: Capture, capturable: bool) -> None:
        """Called inside `cuda.current()`, as is `run`."""
        self._execution, self._notes, self._capturable = execution, capture, capturable
        self._cuda = execution.cuda
        self._executable: int | None = None
        self._calls = 0
        self._resources = Resources(self._cuda)
        self._finalizer = weakref.finalize(self, self._resources.release)
        try:
            self._stream = self._resources.stream()
            self._inputs = {info.name: self._bind(info, shape) for info, shape in execution.inputs}
            self._outputs = [self._bind(info, shape) for info, shape in execution.outputs]
        except BaseException:
            self._finalizer()  # what was allocated before the failure
            raise

    def _bind(self, info: TensorInfo, shape: tuple[int, ...]) -> Buffer:
        buffer = self._resources.buffer(info.dtype, shape)
        self._execution.bind(info.name, buffer.address)
        return buffer

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, arrays[name])
        self._calls += 1
        # The first call lets TensorRT load what it loads lazily.
        if self._calls == 2 and self._capturable:
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
        self._execution.enqueue(self._stream)
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
