"""The few calls of the CUDA driver that running an engine needs, by ctypes.

The driver's library comes with every driver, on servers as on Jetson; so this needs no CUDA
toolkit and no package. TensorRT uses the device's primary context, and so does this.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import BackendError
from .driver import Device, words_of

__all__ = ["Cuda"]

_OUT_OF_MEMORY = 2
# After one of these nothing in this process works on the device any more.
_STICKY = {214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999}
_NON_BLOCKING, _MAPPED, _PORTABLE = 1, 2, 1
_CAPTURE_THREAD_LOCAL = 1  # what other threads do meanwhile does not end the capture

_POINTER, _SIZE, _ADDRESS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_POINTER), ctypes.c_int),
    "cuDevicePrimaryCtxRelease_v2": (ctypes.c_int,),
    "cuCtxPushCurrent_v2": (_POINTER,),
    "cuCtxPopCurrent_v2": (ctypes.POINTER(_POINTER),),
    "cuMemAlloc_v2": (ctypes.POINTER(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemHostAlloc": (ctypes.POINTER(_POINTER), _SIZE, ctypes.c_uint),
    "cuMemFreeHost": (_POINTER,),
    "cuMemHostGetDevicePointer_v2": (ctypes.POINTER(_ADDRESS), _POINTER, ctypes.c_uint),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _ADDRESS, _SIZE, _POINTER),
    "cuMemcpyDtoDAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _POINTER),
    "cuStreamCreate": (ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamSynchronize": (_POINTER,),
    "cuStreamIsCapturing": (_POINTER, ctypes.POINTER(ctypes.c_int)),
    "cuStreamBeginCapture_v2": (_POINTER, ctypes.c_int),
    "cuStreamEndCapture": (_POINTER, ctypes.POINTER(_POINTER)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_POINTER), _POINTER, ctypes.c_uint64),
    "cuGraphDestroy": (_POINTER,),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
}


class Cuda:
    """The primary context of one device. Methods are called inside `current()`, from any thread.

    Addresses and handles are plain integers. Every method raises BackendError when CUDA fails;
    after an error that CUDA cannot recover from, all of them do.
    """

    def __init__(self, library: Any, device: Device, backend: str) -> None:
        self.device = device
        self._backend = backend
        self._process = os.getpid()
        self._dead = ""
        self._functions: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            try:
                # A copy: the types stand on the function, and others may use this library, too.
                function = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)((name, library))
            except AttributeError as error:
                raise BackendError(
                    f"backend {backend!r}",
                    expected=f"a driver with {name} (CUDA 11.4 or newer)",
                    got=f"one for CUDA {device.cuda}",
                    remedy="Update the NVIDIA driver.",
                ) from error
            self._functions[name] = function
        context = _POINTER()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device.ordinal)
        self._context = context.value

    def __del__(self) -> None:
        """Gives the context back; a process that ends leaves that to the driver."""
        if hasattr(self, "_context") and self.alive and not sys.is_finalizing():
            self._functions["cuDevicePrimaryCtxRelease_v2"](self.device.ordinal)

    @property
    def alive(self) -> bool:
        """Whether this is the process that made it, and the device still answers."""
        return not self._dead and self._process == os.getpid()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device the calling thread's own for a while, and gives back what was there."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            popped = _POINTER()
            self._functions["cuCtxPopCurrent_v2"](ctypes.byref(popped))

    def allocate(self, size: int) -> int:
        """Memory of the device."""
        address = _ADDRESS()
        self._call("cuMemAlloc_v2", ctypes.byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)

    def allocate_host(self, size: int) -> tuple[int, int]:
        """Pinned memory of the host: its address here, and the one by which the device sees it."""
        pointer, address = _POINTER(), _ADDRESS()
        self._call("cuMemHostAlloc", ctypes.byref(pointer), size, _MAPPED | _PORTABLE)
        self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(address), pointer, 0)
        return int(pointer.value or 0), address.value

    def free_host(self, pointer: int) -> None:
        self._call("cuMemFreeHost", pointer)

    def copy_to_device(self, address: int, pointer: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync_v2", address, pointer, size, stream)

    def copy_to_host(self, pointer: int, address: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync_v2", pointer, address, size, stream)

    def copy_on_device(self, to: int, address: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoDAsync_v2", to, address, size, stream)

    def create_stream(self) -> int:
        stream = _POINTER()
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return int(stream.value or 0)

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", stream)

    def synchronize(self, stream: int) -> None:
        """Waits for the stream; what failed on the device is raised here."""
        self._call("cuStreamSynchronize", stream)

    def captures(self, stream: int) -> bool:
        """Whether a CUDA graph is being recorded of what is put on the stream."""
        status = ctypes.c_int()
        self._call("cuStreamIsCapturing", stream, ctypes.byref(status))
        return status.value != 0

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was put on the stream since `begin_capture`, ready to be launched as one."""
        graph, executable = _POINTER(), _POINTER()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._functions["cuGraphDestroy"](graph)
        return int(executable.value or 0)

    def launch(self, executable: int, stream: int) -> None:
        self._call("cuGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        self._call("cuGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> None:
        if self._dead:
            raise self._error(self._dead, "Restart the process.")
        code = self._functions[name](*arguments)
        if code == 0:
            return
        got = f"{name}: {words_of(code)}"
        if code in _STICKY:
            self._dead = f"an earlier failure of the device ({got})"
            raise self._error(
                got, "The device cannot be used by this process any more: restart it."
            )
        if code == _OUT_OF_MEMORY:
            raise self._error(
                got, "Use a smaller batch, fewer threads, or end what else runs there."
            )
        raise self._error(got, "Run 'fsseg doctor'.")

    def _error(self, got: str, remedy: str) -> BackendError:
        where = f"{self.device.name} (cuda:{self.device.ordinal})"
        return BackendError(
            f"backend {self._backend!r}", expected=f"{where} to work", got=got, remedy=remedy
        )
