"""Runs an engine on arrays of a device, where they are: it only enqueues."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import FssegError
from .cuda import Cuda
from .execution import Execution

if TYPE_CHECKING:
    from ...ops import DeviceArray, DeviceContext

__all__ = ["DeviceSession", "copy"]

_ALIGNMENT = 256  # bytes: what TensorRT wants of an address, and what all of a pool's memory has


class DeviceSession:
    """An execution on the stream of one context. Used by one thread.

    Inputs and outputs may be given back as soon as `run` returns: the context's pool hands their
    memory to later work of the same stream alone. The execution has memory of its own, so it ends
    after the stream's work.
    """

    def __init__(self, execution: Execution, context: DeviceContext) -> None:
        self.calls = 0
        self.pinned = False  # a CUDA graph holds it: it must live as long as the context
        self._execution, self._context = execution, context
        weakref.finalize(self, _finish, execution.cuda, context)

    def run(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Called inside `cuda.current()`."""
        execution, context = self._execution, self._context
        read = {info.name: self._aligned(feeds[info.name]) for info, _ in execution.inputs}
        written = {info.name: context.empty(shape, info.dtype) for info, shape in execution.outputs}
        for name, array in (*read.items(), *written.items()):
            execution.bind(name, array.pointer)
        execution.enqueue(context.stream)
        self.calls += 1
        return written

    def _aligned(self, array: DeviceArray) -> DeviceArray:
        if array.pointer % _ALIGNMENT == 0:
            return array
        moved = self._context.empty(array.shape, array.dtype)
        copy(self._execution.cuda, array, moved)
        return moved


def copy(cuda: Cuda, array: DeviceArray, to: DeviceArray) -> None:
    """Enqueues a copy of a contiguous array to another of the same context."""
    cuda.copy_on_device(to.pointer, array.pointer, array.nbytes, array.stream)


def _finish(cuda: Cuda, context: DeviceContext) -> None:
    if cuda.alive:
        with suppress(FssegError):  # a lost device has ended, too
            context._wait()
