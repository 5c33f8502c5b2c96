"""What every backend checks in the same way: arrays in and out, threads, the process it runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, InputError
from .graph import TensorInfo

if TYPE_CHECKING:
    from ..ops import DeviceArray

__all__ = [
    "cannot",
    "check_feeds",
    "check_outputs",
    "check_process",
    "check_shapes",
    "choose_threads",
    "one_line",
    "printable",
]


def cannot(backend: str, what: str, can: str, asked: str) -> BackendError:
    """A backend was asked for what it has not: a device, a precision."""
    return BackendError(
        f"backend {backend!r}, {what}",
        expected=can,
        got=asked,
        remedy="Leave it at 'auto', or choose another backend ('fsseg doctor' lists them).",
    )


def check_feeds(
    inputs: Sequence[TensorInfo], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """`feeds` as C-contiguous arrays in native byte order; InputError names the one that is wrong.

    Types are not converted: a float64 image would cost a copy that nobody asked for.
    """
    _check_names(inputs, feeds)
    checked: dict[str, NDArray[Any]] = {}
    for info in inputs:
        array = feeds[info.name]
        if not isinstance(array, np.ndarray):
            raise _wrong(info, f"a {type(array).__name__}")
        if array.dtype.newbyteorder("=") != np.dtype(info.dtype) or not info.accepts(array.shape):
            raise _wrong(info, f"{array.dtype} {list(array.shape)}")
        checked[info.name] = np.ascontiguousarray(array, dtype=np.dtype(info.dtype))
    return checked


def check_shapes(inputs: Sequence[TensorInfo], feeds: Mapping[str, DeviceArray]) -> None:
    """InputError unless these are contiguous arrays of a device as the graph takes them."""
    _check_names(inputs, feeds)
    for info in inputs:
        array = feeds[info.name]
        if array.dtype != info.dtype or not info.accepts(array.shape) or not array.is_contiguous:
            raise _wrong(info, repr(array))


def _check_names(inputs: Sequence[TensorInfo], feeds: Mapping[str, object]) -> None:
    if set(feeds) != {info.name for info in inputs}:
        raise InputError(
            "feeds",
            expected=f"the inputs {', '.join(info.name for info in inputs)}",
            got=", ".join(map(str, feeds)) or "nothing",
            remedy="Pass one array for each of the graph's inputs, by name.",
        )


def _wrong(info: TensorInfo, got: str) -> InputError:
    return InputError(
        f"feeds[{info.name!r}]",
        expected=f"a numpy array {info}",
        got=got,
        remedy="Convert it, for instance with numpy.asarray(x, dtype) and reshape.",
    )


def check_outputs(
    outputs: Sequence[TensorInfo], arrays: Sequence[NDArray[Any]], backend: str
) -> dict[str, NDArray[Any]]:
    """What a runtime returned, by name; BackendError where it is not what the graph declares."""
    named: dict[str, NDArray[Any]] = {}
    for info, array in zip(outputs, arrays, strict=True):
        if array.dtype != np.dtype(info.dtype) or not info.accepts(array.shape):
            raise BackendError(
                f"{backend}, output {info.name!r}",
                expected=str(info),
                got=f"{array.dtype} {list(array.shape)}",
                remedy="The bundle's manifest does not describe its graph; export it again.",
            )
        named[info.name] = array
    return named


def check_process(process: int, backend: str) -> None:
    """A runtime's threads and locks do not survive fork: calling it in the child may hang."""
    if process != os.getpid():
        raise BackendError(
            backend,
            expected="a graph that this process has loaded",
            got="one that was loaded before fork; load in the worker",
            remedy="Call Segmenter.load in each worker process after it has started, or start "
            "workers with multiprocessing's 'spawn' method.",
        )


def choose_threads(threads: int | None) -> int:
    """Threads of a graph: `threads`, or FSSEG_NUM_THREADS, or the number of usable cores."""
    given: object = threads
    argument = "threads"
    if threads is None:
        setting = os.environ.get("FSSEG_NUM_THREADS", "")
        if not setting:
            usable = getattr(os, "sched_getaffinity", None)  # what taskset and containers leave
            return len(usable(0)) if usable is not None else os.cpu_count() or 1
        given = int(setting) if setting.isascii() and setting.isdigit() else setting
        argument = "FSSEG_NUM_THREADS"
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 1024:
        raise InputError(
            argument,
            expected="a number of threads from 1 to 1024",
            got=repr(given),
            remedy="Leave it out to use all usable cores.",
        )
    return given


def printable(text: str) -> str:
    """What a library said, without what would reach a terminal as a command, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def one_line(error: BaseException, most: int = 300) -> str:
    """A runtime's error message, fit for one of ours."""
    text = printable(str(error)) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"
