"""The calling thread's alternative signal stack, kept as it is while a runtime is called.

OpenVINO puts signal stacks of its own in its place (when it is asked what the processor can do, and
when it compiles a model) and brings back what it found when the model goes. With two models that
go in the order in which they came, a stack stays that is freed, and the next signal, a Ctrl-C for
example, ends the process.
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


_SIGALTSTACK = ctypes.CDLL(None).sigaltstack if sys.platform == "linux" else None


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Afterwards the thread's signal stack is what it was before. Does nothing but on Linux."""
    if _SIGALTSTACK is None:
        yield
        return
    before = _Stack()
    known = _SIGALTSTACK(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            _SIGALTSTACK(ctypes.byref(before), None)
