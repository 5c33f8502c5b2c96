"""The methods, one file each. Adding one is a file here and a line in `_METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import InputError
from .base import (
    AuxiliaryMethod,
    Fitted,
    Match,
    Method,
    NamedGraph,
    Presence,
    Shots,
    State,
    combine,
)
from .logreg import Logreg
from .nearest import Nearest
from .oslsm import Oslsm
from .paia import Paia
from .panet import Panet
from .siamese import Siamese
from .smcp import Smcp
from .srofb import Srofb

__all__ = [
    "AuxiliaryMethod",
    "Fitted",
    "Match",
    "Method",
    "NamedGraph",
    "Presence",
    "Shots",
    "State",
    "combine",
    "get",
    "names",
]

_METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Panet(),
            Paia(),
            Smcp(),
            Srofb(),
            Srofb.fast(),
            Oslsm(),
            Nearest(),
            Logreg(),
            Siamese(),
        )
    }
)


def names() -> tuple[str, ...]:
    """All methods of this build, sorted."""
    return tuple(sorted(_METHODS))


def get(name: str) -> Method:
    """The method of that name. InputError lists the names there are."""
    method = _METHODS.get(name)
    if method is None:
        raise InputError(
            "method",
            expected=f"one of {', '.join(names())}",
            got=repr(name),
            remedy="Choose one of these, or update fsseg_sdk if the bundle is newer than it.",
        )
    return method
