"""Queries that may be on a device: there they stay."""

from __future__ import annotations

from typing import Any

from .arrays import shape_remedy
from .errors import InputError
from .formats import check_size
from .image import Picture, read_image
from .ops import DeviceContext, places

__all__ = ["read_frame"]


def read_frame(source: object, argument: str, context: DeviceContext | None) -> Picture:
    """`read_image`, that takes arrays of the context's device, too: uint8 [H, W, 3] with DLPack or
    `__cuda_array_interface__`. Such a picture's pixels are an `ops.DeviceArray`."""
    pixels = None if context is None else _device_pixels(source, argument, context)
    if pixels is None:
        return read_image(source, argument)
    return Picture(pixels, 1, (int(pixels.shape[0]), int(pixels.shape[1])))


def _device_pixels(source: object, argument: str, context: DeviceContext) -> Any:
    """uint8 [H, W, 3] of the context's device as an `ops.DeviceArray`, its channels dense; None for
    a source that is not on a device."""
    if places.device_of(source) is None:
        return None
    array: Any = places.on(context).see(source, argument)
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            argument,
            expected="an array of shape [H, W, 3] (RGB)",
            got=f"shape {list(array.shape)}",
            remedy=shape_remedy(array.shape),
        )
    if array.dtype != "uint8":
        raise InputError(
            argument,
            expected="dtype uint8, values 0..255",
            got=f"dtype {array.dtype}",
            remedy="Convert it on the device, such as (image * 255).round() for values in 0..1.",
        )
    check_size(int(array.shape[0]), int(array.shape[1]), argument)
    return array if array.strides[2] == 1 else array.contiguous()
