"""Arguments of ops on a device: the same values in the same memory layouts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsseg_sdk import ops
from fsseg_sdk.ops.device import device_state

HALVES = {"float16": 65504.0, "bfloat16": 3.38e38}
"""The largest value that each holds."""


def has_device() -> bool:
    """Whether this build has CUDA and finds a device, a real one or the emulated."""
    return bool(device_state()["devices"])


def rounded(array: Any, dtype: str) -> Any:
    """The values of float32 features that the dtype holds, in the same memory where that can be."""
    if dtype == "float16":
        near = array.astype(np.float16).astype(np.float32)
    else:
        bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
        near = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    array = array if array.flags.writeable else array.copy()
    array[...] = near
    return array


def there(array: Any, context: Any, dtype: str | None = None) -> Any:
    """A device array with the strides of a numpy array, in a copy of all the memory they reach."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    item = array.itemsize
    if array.size == 0 or any(step % item for step in array.strides):
        return context.array(array, dtype)
    reach = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    first = array[tuple(slice(-1, None) if r < 0 else slice(0, 1) for r in reach)]
    memory = np.lib.stride_tricks.as_strided(first, ((high - low) // item + 1,), (item,))
    steps = [step // item for step in array.strides]
    return context.array(memory, dtype)._view(array.shape, steps, -low // item)


def moved(value: Any, context: Any, dtype: str | None = None) -> Any:
    """``value`` with all arrays in it, however deep, on the device.

    Whole numbers stay: ops look at them before. dtype: of features, the values of this key and the
    first of pairs.
    """
    if isinstance(value, np.ndarray):
        return value if value.dtype == np.int64 else there(value, context)
    if isinstance(value, dict):
        return {
            name: there(item, context, dtype)
            if name == "features"
            else [
                (there(features, context, dtype), there(targets, context))
                for features, targets in item
            ]
            if name == "samples"
            else moved(item, context)
            for name, item in value.items()
        }
    if isinstance(value, (ops.Mlp, ops.ThresholdMlp)):
        return type(value)(*(moved(item, context) for item in value))
    if isinstance(value, tuple):
        return tuple(moved(item, context) for item in value)
    return value


def brought(value: Any) -> Any:
    """``value`` with all device arrays in it, however deep, as numpy arrays."""
    if isinstance(value, ops.DeviceArray):
        return value.to_host()
    if isinstance(value, tuple):
        parts = [brought(item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class DeviceBuffer:
    """A copy of a numpy buffer on the device, and for each view of it the same view there."""

    def __init__(self, buffer: Any, context: Any) -> None:
        self.buffer, self.copy = buffer, context.array(buffer)

    def view(self, view: Any) -> Any:
        start = view.__array_interface__["data"][0] - self.buffer.__array_interface__["data"][0]
        if view.size == 0:
            return self.copy.context.empty(view.shape, str(view.dtype))
        steps = [step // view.itemsize for step in view.strides]
        return self.copy._view(view.shape, steps, start // view.itemsize)

    def fetch(self) -> None:
        """What the device wrote, into the buffer."""
        self.buffer[...] = self.copy.to_host()
