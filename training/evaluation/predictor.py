"""What is evaluated, behind one small protocol; and bundles, through the SDK that users run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Segmenter, ops
from fsseg_sdk.backends import Graph, open_graphs
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.image import Picture
from fsseg_sdk.methods import get as get_method
from fsseg_sdk.methods.settings import merged, settings_to_json
from fsseg_sdk.segmenter import find_bundle
from training.evaluation.provenance import trained
from training.evaluation.shots import Row, joined
from training.remembering import RememberingGraph


class Predictor(Protocol):
    """Supports become rows, one each; a query is matched with rows alone."""

    @property
    def facts(self) -> dict[str, Any]:
        """What is written beside the figures: name, digest, method, encoder, ..."""

    @property
    def times(self) -> Sequence[float]:
        """Seconds of each picture that the encoder has really run on."""

    def summarise(self, pixels: NDArray[np.uint8], marks: Sequence[object]) -> list[Any]:
        """A row for each annotation (mask, `Box`, `Scribble`) of one picture [H, W, 3]."""

    @property
    def takes_auxiliary(self) -> bool:
        """Whether it learns from pictures of which only the class is known."""

    def summarise_auxiliary(self, pixels: NDArray[np.uint8]) -> Any:
        """A row of such a picture [H, W, 3]."""

    def segment(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        sizes: Sequence[tuple[int, int]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> list[NDArray[np.uint8]]:
        """Labels 0..N at each of ``sizes`` (H, W). ways: the rows of each class's shots; unmarked:
        those of its auxiliary pictures."""

    def timed(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> float:
        """Seconds of one query as a user's: from a decoded picture to its labels at its own size,
        by a task that is ready; without the encoder, whose runs are in `times`."""


class SdkPredictor:
    """`Segmenter.prepare` for supports and `Task.segment` for queries, as users call them.

    Args:
        graph: the segmenter's encoder.
    """

    def __init__(
        self, segmenter: Segmenter, graph: RememberingGraph, facts: Mapping[str, Any]
    ) -> None:
        self.segmenter, self.graph = segmenter, graph
        self.facts: dict[str, Any] = {
            **facts,
            "method": segmenter.method,
            "backend": segmenter.backend,
            "precision": segmenter.precision,
        }

    @property
    def times(self) -> Sequence[float]:
        return self.graph.times

    def summarise(self, pixels: NDArray[np.uint8], marks: Sequence[object]) -> list[Any]:
        return [Row.of(self.segmenter.prepare({"class": (pixels, mark)})) for mark in marks]

    @property
    def takes_auxiliary(self) -> bool:
        return "auxiliary" in get_method(self.segmenter.method).properties

    def summarise_auxiliary(self, pixels: NDArray[np.uint8]) -> Row:
        core = self.segmenter._core
        picture = Picture(pixels, 1, (pixels.shape[0], pixels.shape[1]))
        return Row(core, core.summarise_auxiliary([(0, picture)]).arrays)

    def segment(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        sizes: Sequence[tuple[int, int]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> list[NDArray[np.uint8]]:
        result = joined(ways, unmarked).segment(pixels)
        grid = (result.logits.shape[1], result.logits.shape[2])
        extent = result.geometry.extent(grid)
        return [
            result.raw_labels
            if size == result.size
            else ops.upsample_argmax(result.logits[None], size, extent, result.planes, threads=1)[0]
            for size in sizes
        ]

    def timed(
        self,
        pixels: NDArray[np.uint8],
        ways: Sequence[Sequence[Any]],
        unmarked: Sequence[Sequence[Any]] = (),
    ) -> float:
        task, before = joined(ways, unmarked), self.graph.seconds
        begin = perf_counter()
        task.segment(pixels)
        return perf_counter() - begin - (self.graph.seconds - before)


@dataclass(frozen=True)
class How:
    """How a model is run.

    bfloat16: torch's encoders under autocast. most_bytes: of features that are kept, in float16.
    threads: all cores if None. method: another than the model's own. changes: settings of the
    method that differ, as nested tables. backend, precision: of a bundle, as in `Segmenter.load`.
    """

    bfloat16: bool = False
    most_bytes: int = 0
    threads: int | None = None
    method: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "auto"
    precision: str = "auto"


def of_bundle(path: str, how: How | None = None) -> SdkPredictor:
    """A bundle, by path or shipped name."""
    how = how or How()
    kept: list[RememberingGraph] = []

    def remembering(graph: Graph) -> Graph:
        kept.append(RememberingGraph(graph, how.most_bytes, half=how.most_bytes > 0))
        return kept[0]

    segmenter = open_bundle(
        path, how.threads, remembering, how.method, how.changes, how.backend, how.precision
    )
    manifest = Bundle.open(find_bundle(path)).manifest
    height, width = segmenter.input_size
    facts = {
        "kind": "bundle",
        "name": segmenter.bundle,
        "digest": digest_of(find_bundle(path)),
        "settings": settings_in_full(segmenter),
        "encoder": manifest.provenance.get("encoder"),
        "trained": trained(manifest.provenance),
        "input": f"the bundle's own {height} x {width}, {manifest.input.geometry}",
    }
    return SdkPredictor(segmenter, kept[0], facts)


def method_of(
    stored: Mapping[str, Any], name: str | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """A manifest's ``method`` entry with another method, which starts from what carries over, or
    with other settings."""
    settings = stored["settings"]
    if name is not None and name != stored["name"]:
        settings = get_method(name).settings_from(stored["name"], settings)
    return {"name": name or stored["name"], "settings": merged(settings, changes, "settings")}


def settings_in_full(segmenter: Segmenter) -> dict[str, Any]:
    """For a table: every setting, without the coefficients of presence."""

    def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: plain(value) if isinstance(value, Mapping) else value
            for name, value in settings.items()
            if name != "presence"
        }

    return plain(settings_to_json(segmenter.settings))


def open_bundle(
    name: str,
    threads: int | None,
    wrap: Callable[[Graph], Graph] | None = None,
    method: str | None = None,
    changes: Mapping[str, Any] | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> Segmenter:
    """A bundle whose encoder may be wrapped, in a `RememberingGraph` for example. method, changes:
    see `method_of`. backend, precision: as in `Segmenter.load`."""
    bundle = Bundle.open(find_bundle(name))
    manifest = bundle.manifest
    graphs: dict[str, Graph] = open_graphs(
        {"encoder": manifest.graphs["encoder"], **manifest.graphs},
        bundle.member,
        backend=backend,
        precision=precision,
        threads=threads,
    )
    if wrap is not None:
        graphs["encoder"] = wrap(graphs["encoder"])
    entry = {
        "size": list(manifest.input.size),
        "geometry": manifest.input.geometry,
        "mean": list(manifest.input.mean),
        "std": list(manifest.input.std),
    }
    own = {"name": manifest.method.name, "settings": manifest.method.settings}
    chosen = method_of(own, method, changes or {})
    return segmenter_on(graphs, manifest.name, chosen, entry, threads)


def segmenter_on(
    graphs: Mapping[str, Graph],
    name: str,
    method: Mapping[str, Any],
    entry: Mapping[str, Any],
    threads: int | None,
) -> Segmenter:
    """A segmenter on these graphs; the shape of the features is the encoder's own."""
    channels, *grid = graphs["encoder"].outputs[0].shape[1:]
    settings = {
        "name": name,
        "method": method,
        "input": entry,
        "features": {"channels": channels, "grid": grid},
    }
    return Segmenter(graphs=graphs, settings=settings, threads=threads)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
