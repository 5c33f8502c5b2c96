"""Arrays from elsewhere (numpy, DLPack, ``__array_interface__``) as numpy views."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .formats import check_size

_CPU_DEVICES = (1, 3)  # DLPack: kDLCPU, kDLCUDAHost


def as_array(source: object, argument: str) -> NDArray[Any]:
    """A plain numpy view of an array-like on the CPU; InputError for anything else."""
    if isinstance(source, np.ma.MaskedArray):
        raise _not_an_array(argument, "a masked array", "Pass .filled(...) of it.")
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    name = f"{type(source).__module__}.{type(source).__qualname__}"
    try:
        if hasattr(source, "__dlpack__"):
            device = source.__dlpack_device__() if hasattr(source, "__dlpack_device__") else (1, 0)
            if device[0] not in _CPU_DEVICES:
                raise _on_a_device(argument, f"{name} on DLPack device {int(device[0])}")
            return np.from_dlpack(source)
        if hasattr(source, "__cuda_array_interface__"):
            raise _on_a_device(argument, name)
        if hasattr(source, "__array_interface__"):
            return np.asarray(source)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a foreign object's protocol methods can fail in any way
        reason = f"{name} that cannot be viewed ({' '.join(str(error).split())[:120]})"
        raise _not_an_array(argument, reason, "Pass a uint8 numpy array.") from error
    remedy = "Pass np.asarray(..., dtype=np.uint8)."
    if hasattr(source, "read"):
        remedy = "Pass the bytes that its read() returns."
    raise _not_an_array(argument, "None" if source is None else name, remedy)


def as_pixels(source: object, argument: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], channels dense, strides positive: a view where it can be, else a copy."""
    array = as_array(source, argument)
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            argument,
            expected="an array of shape [H, W, 3] (RGB)",
            got=f"shape {list(array.shape)}",
            remedy=shape_remedy(array.shape),
        )
    if array.dtype != np.uint8:
        raise InputError(
            argument,
            expected="dtype uint8, values 0..255",
            got=f"dtype {array.dtype}" + _nonfinite(array),
            remedy=_dtype_remedy(array.dtype),
        )
    check_size(int(array.shape[0]), int(array.shape[1]), argument)
    rows, columns, channels = array.strides
    if channels == 1 and columns >= 3 and rows >= 3:
        return array
    return np.array(array, order="C")


def shape_remedy(shape: tuple[int, ...]) -> str:
    """What to do about an array of this shape that is no picture."""
    if len(shape) == 2:
        return "Pass np.stack([image] * 3, axis=-1) for a grey picture."
    if len(shape) == 4 and shape[0] == 1:
        return "Pass image[0]: one picture, no batch axis."
    if len(shape) == 3 and shape[2] == 4:
        return "Pass image[..., :3], or lay it over a background first."
    if len(shape) == 3 and shape[2] == 1:
        return "Pass np.repeat(image, 3, axis=2) for a grey picture."
    if len(shape) == 3 and shape[0] == 3:
        return "It looks like channels first: pass image.transpose(1, 2, 0)."
    return "Pass one picture with the colours as its last axis."


def _dtype_remedy(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "If its values are 0..1, pass (image * 255).round().astype(np.uint8)."
    if dtype == np.uint16:
        return "Pass (image >> 8).astype(np.uint8) if it uses all 16 bits."
    if dtype.kind == "O":
        return "Build one rectangular uint8 array; object arrays are often rows of unequal length."
    return "Pass image.astype(np.uint8) if its values are 0..255."


def _nonfinite(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        return " with NaN or infinite values"
    return ""


def _on_a_device(argument: str, got: str) -> InputError:
    return InputError(
        argument,
        expected="an array in the CPU's memory",
        got=got,
        remedy="Copy it to the CPU first (for torch: tensor.cpu()).",
    )


def _not_an_array(argument: str, got: str, remedy: str) -> InputError:
    return InputError(
        argument,
        expected="a path, encoded bytes, a Pillow image or an array",
        got=got,
        remedy=remedy,
    )
