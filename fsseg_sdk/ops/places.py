"""Where an op runs: where its first array is. The host's memory, or that of a device context."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .device import DeviceArray, DeviceContext, default_context
from .runtime import kernels

__all__ = ["HOST", "Place", "as_array", "device_of", "on", "place_of", "refuse", "to_host"]

_CPU = 1  # DLPack: kDLCPU
_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


class Place(Protocol):
    """What an op needs of where it runs. Arrays are numpy's, or a context's DeviceArrays."""

    @property
    def kernels(self) -> Any:
        """The compiled ops for arrays of this place."""

    @property
    def key(self) -> object:
        """The same for the same place."""

    def see(self, value: object, argument: str) -> Any:
        """An array whose dtype and shape can be looked at. InputError: it can never come here."""

    def ready(self, seen: Any, dense: bool) -> Any:
        """What ``see`` gave, in this place; a contiguous copy unless ``dense``."""

    def numbers(self, values: NDArray[np.int64], least: int, end: int) -> Any:
        """Numbers that are in ``least`` to below ``end``, in this place."""

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """A contiguous array whose values are anything."""


class _Host:
    kernels = kernels
    key = "host"

    def see(self, value: object, argument: str) -> NDArray[Any]:
        return as_array(value, argument)

    def ready(self, seen: NDArray[Any], dense: bool) -> NDArray[Any]:
        # Not ascontiguousarray, which leaves a misaligned array as it is.
        return seen if dense and seen.flags.aligned else seen.copy(order="C")

    def numbers(self, values: NDArray[np.int64], least: int, end: int) -> NDArray[np.int64]:
        return values

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> NDArray[Any]:
        return np.empty(shape, dtype)


class _OnDevice:
    """Arrays of the host are copied to the device: they are parameters, and small."""

    def __init__(self, context: DeviceContext) -> None:
        self.context = context

    @property
    def kernels(self) -> Any:
        return kernels.cuda

    @property
    def key(self) -> object:
        return self.context

    def see(self, value: object, argument: str) -> Any:
        if isinstance(value, DeviceArray):
            if value.device != self.context.device:
                refuse(
                    argument,
                    f"memory of CUDA device {self.context.device}, as the first array",
                    f"memory of CUDA device {value.device}",
                    "Copy all arrays to one device.",
                )
            return self.context._from_context(value, argument)
        if isinstance(value, np.ndarray) or device_of(value) is None:
            return as_array(value, argument)
        return _adopted(self.context, value, argument)

    def ready(self, seen: Any, dense: bool) -> DeviceArray:
        if isinstance(seen, np.ndarray):
            return self.context.array(seen)
        return seen if dense else seen.contiguous()

    def numbers(self, values: NDArray[np.int64], least: int, end: int) -> DeviceArray:
        return self.context._numbers(values, least, end)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> DeviceArray:
        return self.context.empty(shape, dtype)


HOST: Place = _Host()


def place_of(value: object, argument: str) -> Place:
    """The place of an op's first array. InputError: nothing that an op can read."""
    if isinstance(value, np.ndarray):
        return HOST
    if isinstance(value, DeviceArray):
        return _OnDevice(value.context)
    device = device_of(value) if kernels.cuda_built else None
    if device is None:
        return HOST  # whose as_array says what is wrong with the value
    return _OnDevice(default_context(device))


def on(context: DeviceContext) -> Place:
    """The place of a context's arrays."""
    return _OnDevice(context)


def as_array(value: object, argument: str) -> NDArray[Any]:
    """A numpy array, or a view of a CPU object that speaks DLPack (torch, cupy host, jax, ...)."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, DeviceArray):
        refuse(
            argument,
            "memory of the CPU, as the first array",
            f"memory of CUDA device {value.device}",
            "Copy it with .to_host(), or move the first array to the device.",
        )
    exchange = getattr(value, "__dlpack_device__", None)
    if exchange is None or not hasattr(value, "__dlpack__"):
        refuse(argument, "a numpy array or a DLPack object", type(value).__name__, "Pass one.")
    if int(exchange()[0]) != _CPU:
        refuse(argument, "memory of the CPU", f"DLPack device {exchange()}", "Move it to the CPU.")
    try:
        return np.from_dlpack(value)  # type: ignore[arg-type]
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        refuse(
            argument,
            "a DLPack object that numpy can view",
            f"{type(error).__name__}: {error}",
            "Pass a plain float32 array (detached, not sparse).",
        )


def to_host(array: Any) -> NDArray[Any]:
    """A copy to look at, whatever ops have to say about it."""
    return array._peek() if isinstance(array, DeviceArray) else np.asarray(array)


def refuse(argument: str, expected: str, got: str, remedy: str) -> NoReturn:
    """Raises InputError."""
    raise InputError(argument, expected=expected, got=got, remedy=remedy)


def device_of(value: object) -> int | None:
    """The number of the CUDA device where a foreign array is; None: it is not on one."""
    if isinstance(value, np.ndarray):
        return None
    exchange = getattr(value, "__dlpack_device__", None)
    if exchange is not None and hasattr(value, "__dlpack__"):
        kind, number = exchange()
        return int(number) if int(kind) in _CUDA else None
    fields = getattr(value, "__cuda_array_interface__", None)
    return None if fields is None else int(kernels.cuda._device_of(int(fields["data"][0])))


def _adopted(context: DeviceContext, value: object, argument: str) -> DeviceArray:
    """A foreign array of a device, seen where it is; our stream waits for its producer's."""
    try:
        if hasattr(value, "__dlpack__"):
            return context._from_dlpack(value, argument)
        return context._from_interface(value, argument)
    except InputError:
        raise
    except (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError) as error:
        got = f"{type(value).__name__} that cannot be viewed ({type(error).__name__}: {error})"
        refuse(argument, "an array of the device", got, "Pass a plain, detached array.")
