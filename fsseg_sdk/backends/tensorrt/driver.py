"""Is there an NVIDIA driver, and which devices? Asked of the driver itself, before TensorRT.

Without a driver TensorRT is not even imported: its lean runtime ends the process there.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import BackendError
from ..checks import cannot, printable

__all__ = ["Device", "Driver", "choose_device", "no_device", "probe_driver", "system_name"]

LIBRARIES = ("libcuda.so.1",)
_VERSION_FILES = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
_NUMBER = re.compile(r"\b\d{3,4}\.\d+(?:\.\d+)*\b")

# CUdevice_attribute
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76

_WORDS = {
    2: "out of memory",
    3: "CUDA was used before this process was forked: load in the worker",
    34: "a stub of the driver",
    35: "the driver is older than the library",
    100: "no device",
    101: "no such device",
    999: "the driver does not answer",
}


@dataclass(frozen=True)
class Device:
    """ordinal: as CUDA counts. integrated: the GPU shares the memory of the CPU (Jetson).
    driver: the driver's own version, "unknown" where the system does not say; cuda: the newest
    CUDA that it runs."""

    ordinal: int
    name: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    integrated: bool
    driver: str
    cuda: str


@dataclass(frozen=True, eq=False)
class Driver:
    """The driver's library, initialised. devices may be empty; `reason` says why."""

    library: Any
    devices: tuple[Device, ...]
    reason: str


def probe_driver() -> Driver:
    """What the driver says; asked once in a process. Raises nothing."""
    return _probe(os.getpid(), tuple(LIBRARIES))


def choose_device(name: str, backend: str) -> tuple[Driver, Device]:
    """ "auto" and "cuda" are the first device, "cuda:1" the second. BackendError without one."""
    matched = re.fullmatch(r"auto|cuda(?::(\d{1,3}))?", name)
    if matched is None:
        raise cannot(backend, "device", "'cuda', or 'cuda:1' and so on", repr(name))
    driver = probe_driver()
    ordinal = int(matched[1] or 0)
    if ordinal >= len(driver.devices):
        raise BackendError(
            f"backend {backend!r}",
            expected="an NVIDIA driver and a GPU",
            got=driver.reason or f"{len(driver.devices)} devices, none with the number {ordinal}",
            remedy="Install the driver; in a container start with '--gpus all' (Jetson: "
            "'--runtime nvidia'). Without a GPU choose another backend.",
        )
    return driver, driver.devices[ordinal]


def no_device() -> Device:
    """For engines that are built where no GPU is (TensorRT-RTX can do that)."""
    return Device(-1, "none", "none", 0, 0, False, "none", "none")


def system_name() -> str:
    """ "linux-aarch64" and the like."""
    return f"{platform.system()}-{platform.machine()}".lower()


@cache
def _probe(process: int, names: Sequence[str]) -> Driver:
    """process: the answer of another process (before fork) is none."""
    library = None
    for name in names:
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    if library is None:
        return Driver(None, (), "no NVIDIA driver here (libcuda.so.1 is missing)")
    try:
        failed = library.cuInit(0)
        if failed:
            return Driver(library, (), f"the driver says: {words_of(failed)}")
        return Driver(library, tuple(_devices(library)), "")
    except _CallError as error:
        return Driver(library, (), str(error))
    except AttributeError as error:
        return Driver(library, (), f"the driver's library is incomplete ({error})")


def words_of(code: int) -> str:
    """A CUresult in words."""
    return f"{_WORDS[code]} (CUDA error {code})" if code in _WORDS else f"CUDA error {code}"


class _CallError(Exception):
    pass


def _devices(library: Any) -> list[Device]:
    def call(name: str, *arguments: Any) -> None:
        failed = getattr(library, name)(*arguments)
        if failed:
            raise _CallError(f"{name}: {words_of(failed)}")

    count, version = ctypes.c_int(), ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGetCount", ctypes.byref(count))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    driver = _driver_version()
    devices = []
    for ordinal in range(count.value):
        handle, name, total = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        call("cuDeviceGet", ctypes.byref(handle), ordinal)
        call("cuDeviceGetName", name, 256, handle)
        call("cuDeviceTotalMem_v2", ctypes.byref(total), handle)
        values = []
        for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED):
            value = ctypes.c_int()
            call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
            values.append(value.value)
        major, minor, multiprocessors, integrated = values
        devices.append(
            Device(
                ordinal,
                printable(name.value.decode("utf-8", "replace")),
                f"{major}.{minor}",
                multiprocessors,
                total.value,
                bool(integrated),
                driver,
                cuda,
            )
        )
    return devices


def _driver_version() -> str:
    for path in _VERSION_FILES:
        try:
            found = _NUMBER.search(path.read_text(encoding="ascii", errors="replace")[:500])
        except OSError:
            continue
        if found:
            return found[0]
    return "unknown"
