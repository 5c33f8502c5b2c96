"""The calling thread's alternative signal stack, kept as it is while a runtime is called.

OpenVINO's compiled models put a signal stack of their own in its place, and bring back what they
found when they go. With two models that go in the order in which they came, a stack stays that
is freed, and the next signal, a Ctrl-C for example, ends the process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_signal_stack"]


class _Stack(ctypes.Structure):
    """Linux's stack_t, on x86-64 and aarch64."""

    _fields_ = (
        ("sp", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Afterwards the thread's signal stack is what it was before. Does nothing but on Linux."""
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _Stack()
    known = sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            sigaltstack(ctypes.byref(before), None)
