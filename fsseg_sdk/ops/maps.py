"""What methods do to arrays between ops, where those are: numpy, or on a device.

Together with the ops this is all that a method's match needs, so that it runs wherever its features
are. On a device nothing waits, but for ``seen`` and ``settled``.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .device import DeviceArray
from .learning import MlpFit
from .places import to_host
from .runtime import kernels

__all__ = ["Resident", "blend", "duplicate", "largest_of_first", "seen", "settled"]


MOST_CONTEXTS = 8
"""Threads have a context each, and end without a word."""


class Resident:
    """Parameters that meet features again and again, each copied to their context once.

    Arrays must not change. A copy lives as long as its array. May be used by several threads;
    pickled, it is empty.
    """

    def __init__(self) -> None:
        self._copies: dict[int, tuple[weakref.ref[Any], list[tuple[Any, Any]]]] = {}

    def beside(self, features: Any, array: NDArray[Any]) -> Any:
        """``array`` itself for features in numpy, else its copy in their context."""
        if not isinstance(features, DeviceArray):
            return array
        context = features.context
        number, own = id(array), self._copies
        whose, known = own.get(number, (None, []))
        if whose is None or whose() is not array:  # another had this number before
            whose, known = weakref.ref(array, lambda _: own.pop(number, None)), []
        for place, copy in known:
            if place is context:
                return copy
        copy = context.array(array)
        own[number] = (whose, [*known[1 - MOST_CONTEXTS :], (context, copy)])
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"_copies": {}}


def largest_of_first(planes: Any, parts: int) -> Any:
    """``[B, P, h, w] -> [B, 1 + P - parts, h, w]``: the first parts become one, their largest."""
    shape = (planes.shape[0], 1 + planes.shape[1] - parts, *planes.shape[2:])
    if isinstance(planes, DeviceArray):
        result = planes.context.empty(shape)
        kernels.cuda._first_largest(planes, parts, result)
        return result
    merged: NDArray[np.float32] = np.empty(shape, np.float32)
    np.maximum.reduce(planes[:, :parts], axis=1, out=merged[:, 0])
    merged[:, 1:] = planes[:, parts:]
    return merged


def duplicate(planes: Any) -> Any:
    """A copy of ``[B, P, h, w]`` float32, P above 1."""
    return largest_of_first(planes, 1) if isinstance(planes, DeviceArray) else planes.copy()


def blend(into: Any, factor: float, other: Any, other_factor: float) -> None:
    """``into = factor * into + other_factor * other``, float32 ``[B, P, h, w]`` both."""
    if isinstance(into, DeviceArray):
        kernels.cuda._blend(into, other, factor, other_factor)
        return
    into *= np.float32(factor)
    into += np.float32(other_factor) * other


def seen(array: Any) -> NDArray[Any]:
    """As numpy, to look at: the array itself, or a copy when the device has come so far."""
    return to_host(array)


def settled(fit: MlpFit) -> MlpFit:
    """With its losses in numpy and ``diverged`` known. Raises InputError for inputs that are not
    finite, as far as nobody has asked since they came."""
    if not isinstance(fit.losses, DeviceArray):
        return fit
    losses, report = fit.losses._with_report()
    if report & kernels.cuda.not_finite:
        raise InputError(
            "an array of the device",
            expected="finite values (and targets of 0 or more)",
            got="something else in an op since the last copy to the host",
            remedy="Copy the inputs to the host and look.",
        )
    return MlpFit(fit.mlp, losses, bool(report & kernels.cuda.diverged))
