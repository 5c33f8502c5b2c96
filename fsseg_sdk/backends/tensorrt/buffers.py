"""Memory of one session: where inputs and outputs lie on the host and on the device."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from .cuda import Cuda

__all__ = ["Buffer", "Resources"]


class Buffer:
    """One tensor. host: an array over pinned memory; address: what the engine reads or writes."""

    def __init__(self, host: NDArray[Any], pointer: int, address: int, shared: bool) -> None:
        self.host = host
        self.pointer = pointer
        self.address = address
        self.shared = shared

    @property
    def bytes(self) -> int:
        return self.host.nbytes


class Resources:
    """All that must be given back, in the order in which it was taken. Give back once."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._device: list[int] = []
        self._host: list[int] = []
        self._streams: list[int] = []
        self._executables: list[int] = []

    def stream(self) -> int:
        stream = self._cuda.create_stream()
        self._streams.append(stream)
        return stream

    def keep_executable(self, executable: int) -> None:
        self._executables.append(executable)

    def buffer(self, dtype: str, shape: Sequence[int]) -> Buffer:
        """Where CPU and GPU share the memory, the engine uses the host's own pages: no copy."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        pointer, mapped = self._cuda.allocate_host(max(size, 1))
        self._host.append(pointer)
        memory: Any = (ctypes.c_uint8 * size).from_address(pointer)
        host = np.frombuffer(memory, kind).reshape(tuple(shape))
        if self._cuda.device.integrated:
            return Buffer(host, pointer, mapped, True)
        address = self._cuda.allocate(max(size, 1))
        self._device.append(address)
        return Buffer(host, pointer, address, False)

    def release(self) -> None:
        """Gives all back; does nothing in a forked process, or when the device is lost."""
        if not self._cuda.alive:
            return
        cuda = self._cuda
        with suppress(BackendError), cuda.current():
            for taken, give_back in (
                (self._executables, cuda.destroy_executable),
                (self._streams, cuda.destroy_stream),
                (self._device, cuda.free),
                (self._host, cuda.free_host),
            ):
                for one in taken:
                    with suppress(BackendError):  # one that fails keeps no other
                        give_back(one)
        for taken in (self._executables, self._streams, self._device, self._host):
            taken.clear()
