"""Arrays in the memory of a CUDA device: ``DeviceContext`` and ``DeviceArray``.

The classes themselves are compiled (csrc/bindings_cuda.cpp) and exist where the build has CUDA.
Ops on device arrays only enqueue work on their context's stream and return at once; what they find
out about their inputs is said by the next copy to the host (``DeviceArray.to_host``).

``with context.record() as graph:`` records what is enqueued in between as a CUDA graph, and does
none of it; ``graph.replay()`` enqueues it all, as often as it is called. It reads and writes the
same arrays each time: ``array.write(values)`` brings new values, of numpy or of a device.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import FssegError, KernelError
from .runtime import kernels

__all__ = ["DeviceArray", "DeviceContext", "default_context", "device_state"]

if TYPE_CHECKING or kernels.cuda_built:
    DeviceArray = kernels.cuda.DeviceArray
    DeviceContext = kernels.cuda.DeviceContext
else:

    class DeviceArray:
        """Exists so that isinstance can be asked; this build has no device arrays."""

    class DeviceContext:
        """A CUDA device and stream. This build has none: raises KernelError."""

        def __init__(
            self, device: int = 0, stream: int | None = None, *, own_stream: bool = False
        ) -> None:
            raise KernelError(
                "DeviceContext",
                expected="a build with CUDA",
                got=f"one without: {kernels.cuda_reason}",
                remedy="Install it with FSSEG_CUDA=1 where nvcc is, or stay on the CPU.",
            )


def default_context(device: int = 0) -> DeviceContext:
    """The context of ops whose first array is somebody else's: CUDA's legacy default stream.

    One for each device and process. Raises KernelError (no driver), InputError (no such device).
    """
    return _context_of(device)


@functools.cache
def _context_of(device: int) -> DeviceContext:
    return DeviceContext(device)


def device_state() -> dict[str, Any]:
    """``{built, reason, devices}``: whether this build has CUDA, and what it finds here."""
    state: dict[str, Any] = {"built": kernels.cuda_built, "reason": kernels.cuda_reason}
    state["devices"] = []
    if kernels.cuda_built:
        try:
            state["devices"] = kernels.cuda.devices()
        except FssegError as error:
            state["reason"] += f", but no device answers: {error.got}"
    return state
