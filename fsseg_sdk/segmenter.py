"""The way in: a bundle, opened on a backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .assemble import assemble, choose_method
from .backends import Graph, open_graphs
from .bundle import Bundle
from .classes import pair_up
from .core import Core
from .description import describe_manifest, read_description
from .errors import BundleError, InputError, TaskError
from .result import Result
from .support import read_support
from .task import Task
from .taskfile import read_task
from .tiling import Tile

__all__ = ["Segmenter", "find_bundle", "shipped"]

_ASSETS = Path(__file__).resolve().parent / "assets"
_SUFFIX = ".fsseg"


def shipped() -> tuple[str, ...]:
    """Names of the bundles inside the package."""
    return tuple(sorted(path.stem for path in _ASSETS.glob(f"*{_SUFFIX}")))


class Segmenter:
    """A bundle on a backend. Immutable; any number of threads may share one.

    Load it in the process that uses it: a process forked afterwards gets a BackendError.
    """

    __slots__ = ("_core",)
    _core: Core

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        settings: Mapping[str, Any],
        *,
        method: str | None = None,
        threads: int | None = None,
    ) -> None:
        """From graphs of your own instead of a bundle: anything that follows the Graph protocol.

        graphs: "encoder" and whatever the method needs. settings: what a bundle's manifest says::

            {"name": "mine",                                           # optional
             "method": {"name": "panet", "settings": {"scale": 20}},   # settings are optional
             "input": {"size": [448, 448], "geometry": "squash", "mean": [...], "std": [...]},
             "features": {"channels": 576, "grid": [28, 28]}}

        Raises InputError naming the field, BackendError for graphs that do not fit.
        """
        description = read_description(settings)
        self._core = assemble(graphs, description, method, {}, None, threads)

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str] = "default",
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        method: str | None = None,
        settings: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> Segmenter:
        """Open a bundle: a path, or the name of one that is shipped.

        backend, device, precision: "auto", or what `fsseg doctor` lists; what cannot be had is a
        BackendError, never something else in silence. precision "auto" is fp32 if the bundle has
        that, else what it has. method: another than the bundle's own, if
        the bundle has the graphs for it; it starts from what carries over of the bundle's settings,
        and from its own defaults. settings: of the method, where they differ, such as
        ``{"hidden": 64, "panet": {"background_parts": 1}}``. threads: for the encoder and
        everything else; by default FSSEG_NUM_THREADS or all cores.
        Raises BundleError for a bundle that is unknown, damaged or made for another version,
        InputError for settings that are unknown or out of range.
        """
        bundle = Bundle.open(find_bundle(path_or_name))
        manifest = bundle.manifest
        description = describe_manifest(manifest)
        needed = ("encoder", *choose_method(description, method, tuple(manifest.graphs)).graphs)
        graphs = open_graphs(
            {name: manifest.graphs[name] for name in needed},
            bundle.member,
            backend=backend,
            device=device,
            precision=precision,
            threads=threads,
            checked=True,
        )
        segmenter = cls.__new__(cls)
        segmenter._core = assemble(
            graphs, description, method, settings or {}, bundle.digest, threads
        )
        return segmenter

    def segment(
        self,
        support: object,
        mask: object,
        query: object,
        *,
        auxiliary: object = None,
        tile: Tile = None,
    ) -> Result:
        """Find in `query` what `mask` marks in `support`; the class is called "object".

        support, query: a path, bytes, a Pillow image, uint8 [H, W, 3], anything with DLPack.
        mask: [H, W] of the support's size, a `Box` or a `Scribble`. Lists of supports and masks are
        several shots. auxiliary: a picture or a list of them, which show the object and are not
        labelled. tile: as in `Task.segment`. For more than one query use `prepare`.
        """
        shots = pair_up(support, mask)
        unlabelled = None if auxiliary is None else dict.fromkeys(shots, auxiliary)
        return self.prepare(shots, unlabelled).segment(query, tile=tile)

    def prepare(self, support: object, auxiliary: object = None) -> Task:
        """Encode labelled pictures once, for any number of queries.

        support: ``{"bolt": [(image, mask), (image, Box(...))], "nut": (image, Scribble(...))}``;
        the order of the names is the order of the labels 1..N.
        auxiliary: ``{"bolt": [image, ...]}``, more pictures that show a class and are not labelled,
        for methods that learn from such ("paia"); the same picture twice counts once.
        Raises InputError naming class and shot.
        """
        return Task.of_support(self._core, read_support(support, auxiliary))

    def load_task(self, path: str | os.PathLike[str]) -> Task:
        """A task written by `Task.save` with this bundle, method and precision; else TaskError."""
        stored = read_task(path, self._core)
        try:
            return Task.fit(self._core, *stored)
        except InputError as error:
            raise TaskError(
                f"task {Path(path).name!r}, {error.argument}",
                expected=error.expected,
                got=error.got,
                remedy="Prepare it again with this bundle.",
            ) from error

    @property
    def method(self) -> str:
        """The method in use."""
        return self._core.method.name

    @property
    def settings(self) -> Any:
        """Its settings, a frozen dataclass."""
        return self._core.settings

    @property
    def bundle(self) -> str:
        """The bundle's name."""
        return self._core.bundle

    @property
    def backend(self) -> str:
        """What runs the encoder."""
        return self._core.encoder.graph.backend

    @property
    def device(self) -> str:
        """Where."""
        return self._core.encoder.graph.device

    @property
    def precision(self) -> str:
        """In what precision it computes."""
        return self._core.encoder.graph.precision

    @property
    def precisions(self) -> Mapping[str, str]:
        """In what precision each graph computes: the encoder's first, then those of the method,
        which run in fp32 where the bundle has them in no other."""
        heads = {name: graph.precision for name, graph in self._core.graphs.items()}
        return MappingProxyType({"encoder": self.precision, **heads})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about how the graphs run here, such as a slow file. Every Result says it."""
        return self._core.warnings

    @property
    def input_size(self) -> tuple[int, int]:
        """(S_h, S_w) of the encoder's input."""
        return self._core.encoder.input_size

    def __repr__(self) -> str:
        return (
            f"Segmenter({self.bundle!r}, method={self.method!r}, backend={self.backend!r}, "
            f"device={self.device!r}, precision={self.precision!r})"
        )


def find_bundle(path_or_name: str | os.PathLike[str]) -> Path:
    """The file of a bundle: a path as it is, or that of a shipped bundle by its name. BundleError
    for a plain name that is neither."""
    path = Path(path_or_name)
    if isinstance(path_or_name, str) and path.name == path_or_name and path.suffix != _SUFFIX:
        if path_or_name in shipped():
            return _ASSETS / f"{path_or_name}{_SUFFIX}"
        if not path.exists():
            raise BundleError(
                "bundle",
                expected=f"a path or a shipped bundle ({', '.join(shipped()) or 'none'})",
                got=repr(path_or_name),
                remedy=f"Check the name, or pass the path of a {_SUFFIX} file.",
            )
    return path
