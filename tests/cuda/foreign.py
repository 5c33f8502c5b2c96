"""Arrays of somebody else on a device, who speaks DLPack or ``__cuda_array_interface__``."""

from __future__ import annotations

import ctypes
from typing import Any

_NAME = b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object
_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)


class Tensor:
    """Speaks DLPack. streams: those it was asked for; ended: how often a loan ended."""

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        steps: tuple[int, ...] | None = None,
        kind: tuple[int, int] = (2, 32),
        device: tuple[int, int] = (2, 0),
    ) -> None:
        self.device, self.streams, self.ended = device, [], 0
        axes = ctypes.c_int64 * len(shape)
        self._shape = axes(*shape)
        self._steps = None if steps is None else axes(*steps)
        self._managed = _Managed()
        tensor = self._managed.tensor
        tensor.data, tensor.ndim, tensor.shape = pointer, len(shape), self._shape
        tensor.device = _Device(*device)
        tensor.dtype = _Type(*kind, 1)
        if self._steps is not None:
            tensor.strides = self._steps
        self._managed.deleter = _Deleter(self._end)

    def _end(self, _: Any) -> None:
        self.ended += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.streams.append(stream)
        return _capsule(ctypes.addressof(self._managed), _NAME, None)


class Interface:
    """Speaks ``__cuda_array_interface__``."""

    def __init__(self, **fields: Any) -> None:
        self.__cuda_array_interface__ = {"version": 3, **fields}


class Taken:
    """What a consumer sees of a capsule; ``end()`` says that it is done."""

    def __init__(self, capsule: Any) -> None:
        self.managed = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents
        _rename(capsule, b"used_dltensor")
        tensor = self.managed.tensor
        self.data = tensor.data
        self.shape = tuple(tensor.shape[: tensor.ndim])
        self.steps = tuple(tensor.strides[: tensor.ndim])
        self.device = (tensor.device.type, tensor.device.id)
        self.kind = (tensor.dtype.code, tensor.dtype.bits)

    def end(self) -> None:
        self.managed.deleter(ctypes.byref(self.managed))
