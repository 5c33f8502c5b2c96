"""The compiled kernels: which instructions they use here, and how many threads."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InputError, KernelError

try:
    from .. import _kernels as kernels
except ImportError as error:
    raise KernelError(
        "fsseg_sdk._kernels",
        expected="the compiled kernels beside the package",
        got=f"ImportError: {error}",
        remedy="Install fsseg_sdk with pip (from a checkout that needs a C++ compiler).",
    ) from error

__all__ = ["build_info", "choose_threads", "kernels", "simd_level", "simd_levels"]


def simd_level() -> str:
    """The instructions in use: ``"generic"``, ``"avx2"``, ``"avx512"`` or ``"neon"``."""
    return kernels._simd()


def simd_levels() -> tuple[str, ...]:
    """What was built and runs on this processor, ``"generic"`` first."""
    return tuple(kernels._levels_usable())


def build_info() -> dict[str, Any]:
    """``{simd, levels, bf16, cuda: {built, reason, devices}, threads}`` of this build here.

    bf16: what multiplies bfloat16: ``"amx"``, ``"avx512-bf16"``, or ``"rounding"``, which is
    float32 products of rounded numbers.
    """
    from .device import device_state

    return {
        "simd": simd_level(),
        "levels": list(simd_levels()),
        "cuda": device_state(),
        "bf16": kernels._bf16(),
        "threads": DEFAULT_THREADS,
    }


def choose_threads(threads: int | None) -> int:
    """``threads`` of a call, checked; None is FSSEG_NUM_THREADS or the number of usable cores."""
    if threads is None:
        return DEFAULT_THREADS
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(
            "threads",
            expected="None or a positive int",
            got=repr(threads),
            remedy="Leave it out to use FSSEG_NUM_THREADS or all usable cores.",
        )
    return min(threads, kernels.max_threads)


def _default_threads() -> int:
    setting = os.environ.get("FSSEG_NUM_THREADS", "")
    if setting:
        if not (setting.isascii() and setting.isdigit() and int(setting) >= 1):
            raise KernelError(
                "FSSEG_NUM_THREADS",
                expected="a positive number",
                got=repr(setting),
                remedy="Set it to a number of threads, or unset it to use all usable cores.",
            )
        return min(int(setting), kernels.max_threads)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), kernels.max_threads)
    return min(os.cpu_count() or 1, kernels.max_threads)


def _apply_simd_setting() -> None:
    setting = os.environ.get("FSSEG_SIMD", "")
    if setting and not kernels._set_simd(setting):
        raise KernelError(
            "FSSEG_SIMD",
            expected=f"one of {', '.join(simd_levels())}",
            got=repr(setting),
            remedy="Choose a level that this build has and this processor runs, or unset it.",
        )


DEFAULT_THREADS = _default_threads()
_apply_simd_setting()
