"""Graphs on arrays of a device: which can, and whose arrays they take."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .checks import check_process
from .graph import GraphSpec

if TYPE_CHECKING:
    from ..ops import DeviceContext

__all__ = ["OwnContext", "fits_device"]


def fits_device(spec: GraphSpec, number: int) -> bool:
    """Whether this build has kernels for the GPU and sees the one of that number, and the graph's
    tensors are float32 with shapes that are known but for the batch."""
    tensors = (*spec.inputs, *spec.outputs)
    if any(info.dtype != "float32" or -1 in info.shape[1:] for info in tensors):
        return False
    from ..ops.device import device_state

    return number < len(device_state()["devices"])


class OwnContext(threading.local):
    """A context on one device for each thread: what kernels report belongs to the query that made
    it. Made when it is first asked for; it goes when the thread ends."""

    def __init__(self, number: int, process: int, backend: str) -> None:
        """number: of the device; process: in which `backend` opened the graph."""
        self._number, self._process, self._backend = number, process, backend
        self._made: DeviceContext | None = None

    def get(self) -> DeviceContext:
        """BackendError in a process from after a fork."""
        check_process(self._process, self._backend)
        if self._made is None:
            from ..ops.device import DeviceContext

            self._made = DeviceContext(self._number, own_stream=True)
        return self._made
