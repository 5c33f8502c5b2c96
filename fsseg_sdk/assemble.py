"""From a description and graphs to what a Segmenter and its Tasks share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from . import methods
from .backends import Graph
from .core import Core
from .description import Description
from .encoder import Encoder
from .errors import BundleError, InputError
from .fields import thaw
from .methods.settings import merged, settings_from_json

__all__ = ["assemble", "choose_method"]


def choose_method(
    description: Description, override: str | None, graphs: tuple[str, ...]
) -> methods.Method:
    """The method to use; every graph that it needs is there."""
    method = methods.get(override or description.method)
    missing = [name for name in ("encoder", *method.graphs) if name not in graphs]
    if missing:
        raise BundleError(
            f"method {method.name!r}",
            expected=f"a bundle with the graphs {', '.join(('encoder', *method.graphs))}",
            got=f"{description.name!r}, which lacks {', '.join(missing)}",
            remedy=f"Use a bundle made for {method.name}, or another method.",
        )
    return method


def assemble(
    graphs: Mapping[str, Graph],
    description: Description,
    override: str | None,
    changes: Mapping[str, Any],
    digest: str | None,
    threads: int | None,
) -> Core:
    """override: another method than the description's. changes: settings that differ. digest: of
    the bundle, None for graphs that were handed in."""
    method = choose_method(description, override, tuple(graphs))
    own = description.method_settings
    if method.name != description.method:
        own = method.settings_from(description.method, own)
    try:
        settings = settings_from_json(method.settings_type, own, "method.settings")
    except InputError as error:
        if digest is None:
            raise
        raise BundleError(
            f"bundle {description.name!r}, {error.argument}",
            expected=error.expected,
            got=error.got,
            remedy="Export the bundle again, or use the fsseg_sdk that it was made for.",
        ) from error
    if changes:
        changed = merged(own, changes, "settings")
        settings = settings_from_json(method.settings_type, changed, "settings")
    encoder = Encoder(
        graph=graphs["encoder"],
        input_size=description.input_size,
        geometry=description.geometry,
        mean=description.mean,
        std=description.std,
        channels=description.channels,
        grid=description.grid,
        threads=threads,
    )
    heads = MappingProxyType({name: graphs[name] for name in method.graphs})
    stored = cast(Mapping[str, Any], thaw(changes))
    return Core(encoder, method, settings, heads, description.name, digest, threads, stored)
