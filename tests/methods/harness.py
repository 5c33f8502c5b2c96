"""Drawn scenes on the grid for the tests of methods: known classes, known features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import methods
from fsseg_sdk.methods import AuxiliaryMethod, Fitted, Match, Method, NamedGraph, Shots, State
from fsseg_sdk.methods.paia_settings import PaiaThreshold
from fsseg_sdk.methods.panet import PanetSettings

from .standins import as_image, oslsm_graphs, siamese_graphs, smcp_graphs

CHANNELS, GRID = 24, (9, 11)

GRAPHS: dict[str, Callable[[], Mapping[str, NamedGraph]]] = {
    "smcp": smcp_graphs,
    "oslsm": lambda: oslsm_graphs(GRID),
    "siamese": siamese_graphs,
}
"""Stand-in graphs of methods that need some beside the encoder: method name -> factory."""


def draw_threshold(hidden: int = 20, bias: float = 0.9) -> PaiaThreshold:
    """A network as training might leave it: its thresholds lie around `bias`."""
    rng = np.random.default_rng(hidden)
    shapes = ((hidden, 5), 0.2), (hidden, 0.2), (hidden, 0.1 * hidden**-0.5)
    weights = (rng.normal(size=shape) * spread for shape, spread in shapes)
    first, second, third = (array.astype(np.float32).tolist() for array in weights)
    return PaiaThreshold(tuple(map(tuple, first)), tuple(second), tuple(third), bias)


VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "panet": ({"background_parts": 3},),
    "paia": (
        {"panet": PanetSettings(background_parts=3), "distilled": False, "query_steps": 1},
        {"threshold": draw_threshold(), "steps": 3, "query_steps": 3},
        {"query_steps": 0, "radius": 0.5},
    ),
    "smcp": (
        {"panet": PanetSettings(background_parts=3), "guide": "pseudo"},
        {"passes": 1},
        {"fusion": "shots", "pixels_per_cell": 3},
    ),
    "nearest": (
        {"share": 0.4, "seed": 3},
        {"panet": PanetSettings(background_parts=3), "precision": "bf16", "scale": 8.0},
    ),
    "siamese": ({"share": 0.5},),
    "logreg": (
        {"balanced": False, "length": 16.0, "steps": 60, "l2": 1e-3},
        {"momentum": 0.0, "l2": 0.0, "rate": 1.5, "steps": 40},
    ),
    "srofb": (
        {"panet": PanetSettings(background_parts=3), "fallback": "top_k"},
        {
            "balance": "cell",
            "length": 0.0,
            "momentum": 0.9,
            "iterations": 40,
            "iterations_of_five": 40,
        },
        {"warm_start": True, "support_cells": 20, "query_cells": 24, "iterations": 2},
    ),
}
"""Settings beside the defaults under which the suite runs, too: method name -> settings."""


@dataclass(frozen=True)
class Auxiliary:
    """Pictures of which only the class is known: features [U, C, h, w], ways [U], and how many
    cells each covers."""

    features: NDArray[np.float32]
    ways: NDArray[np.int64]
    extents: list[tuple[float, float]] | None = None


@dataclass(frozen=True)
class Case:
    """A method with the settings to test it under."""

    method: Method
    settings: Any

    @property
    def graphs(self) -> Mapping[str, NamedGraph]:
        if not self.method.graphs:
            return {}
        return GRAPHS[self.method.name]()  # a new method brings its stand-ins along

    def quick(self) -> Case:
        """The same with few steps of learning, for what does not depend on what is learned."""
        names = ("steps", "iterations", "iterations_of_five")
        fewer = {name: 3 for name in names if getattr(self.settings, name, 0) > 3}
        return replace(self, settings=replace(self.settings, **fewer))

    def summarise(self, shots: Shots, threads: int | None = None) -> State:
        if "masked_images" in self.method.properties:
            own = as_image(shots.features[shots.picture], shots.possible)
            shots = replace(shots, masked=own)
        return self.method.summarise(shots, self.settings, self.graphs, threads=threads)

    def summarise_auxiliary(
        self, pictures: Auxiliary, rows: slice | None = None, threads: int | None = None
    ) -> State:
        """Of these rows, in one call; all of them if None."""
        method, chosen = cast(AuxiliaryMethod, self.method), rows or slice(None)
        extents = None if pictures.extents is None else pictures.extents[chosen]
        given = pictures.features[chosen], pictures.ways[chosen], extents
        return method.summarise_auxiliary(*given, self.settings, self.graphs, threads=threads)

    def with_auxiliary(self, shots: Shots, pictures: Auxiliary) -> State:
        return self.summarise(shots).with_auxiliary(self.summarise_auxiliary(pictures))

    def fit(self, shots: Shots | State) -> Fitted:
        state = shots if isinstance(shots, State) else self.summarise(shots)
        ways = int(state.way.max()) + 1
        return self.method.fit(state, ways, self.settings, self.graphs)

    def logits(self, shots: Shots | State, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, N+1, h, w]"""
        return matched(self.fit(shots), query)


def matched(
    fitted: Fitted, query: NDArray[np.float32], threads: int | None = None
) -> NDArray[np.float32]:
    """[B, N+1, h, w]: of each class the largest of its planes."""
    logits = fitted.match(query, threads=threads).logits
    if fitted.planes is None:
        return logits
    labels = range(fitted.n_ways + 1)
    return np.stack([logits[:, fitted.planes == n].max(axis=1) for n in labels], axis=1)


def judged(match: Match, index: int = 0) -> NDArray[np.float32]:
    """What presence is judged by, of one query."""
    evidence = match.logits if match.evidence is None else match.evidence
    return evidence[index]


def cases(needs: str | None = None) -> list[Any]:
    """pytest parameters: every registered method, or those that declare a property."""
    import pytest

    found = [methods.get(name) for name in methods.names()]
    return [
        pytest.param(
            Case(method, method.settings_type(**settings)),
            id="-".join([method.name, *(f"{k}={value}"[:80] for k, value in settings.items())]),
        )
        for method in found
        for settings in ({}, *VARIANTS.get(method.name, ()))
        if needs is None or needs in method.properties
    ]


def directions(count: int, seed: int = 5) -> NDArray[np.float32]:
    """[count, C]: one feature direction per class, 0 = background; far from parallel."""
    rng = np.random.default_rng(seed)
    square = np.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))[0]
    spread = square[:count] if count <= CHANNELS else rng.normal(size=(count, CHANNELS))
    common = rng.normal(size=CHANNELS) * 0.1
    return (spread * 2.0 + common).astype(np.float32)


def scene(
    labels: NDArray[np.int64], rng: np.random.Generator, noise: float = 0.08, classes: int = 4
) -> NDArray[np.float32]:
    """[1, C, h, w] features of a picture whose cells show `labels`."""
    vectors = directions(max(classes, int(labels.max()) + 1))[labels]
    vectors = vectors + rng.normal(size=vectors.shape) * noise
    return np.ascontiguousarray(vectors.transpose(2, 0, 1)[None], dtype=np.float32)


def draw_labels(
    rng: np.random.Generator, way: int, grid: tuple[int, int] = GRID
) -> NDArray[np.int64]:
    """Background and one rectangle of class way + 1, in different places and sizes."""
    labels = np.zeros(grid, np.int64)
    height, width = rng.integers(2, 5, 2)
    top, left = rng.integers(0, grid[0] - height), rng.integers(0, grid[1] - width)
    labels[top : top + height, left : left + width] = way + 1
    return labels


def draw_shots(
    ways: list[int], seed: int = 1, noise: float = 0.08
) -> tuple[Shots, NDArray[np.int64]]:
    """One picture per shot; also the label maps [S, h, w]."""
    rng = np.random.default_rng(seed)
    labels = [draw_labels(rng, way) for way in ways]
    features = np.concatenate([scene(item, rng, noise, max(ways) + 2) for item in labels])
    foreground = np.stack([item > 0 for item in labels]).astype(np.float32)
    count = len(ways)
    return (
        Shots(
            features=features,
            picture=np.arange(count),
            foreground=foreground,
            background=1 - foreground,
            possible=foreground,
            way=np.array(ways, np.int64),
            weak=np.zeros(count, np.bool_),
        ),
        np.stack(labels),
    )


def draw_auxiliary(
    ways: list[int], seed: int = 31, noise: float = 0.3, classes: int = 4
) -> tuple[Auxiliary, NDArray[np.int64]]:
    """One picture for each, with a patch of its class; also the label maps [U, h, w]."""
    rng = np.random.default_rng(seed)
    labels = [draw_labels(rng, way) for way in ways]
    features = np.concatenate([scene(item, rng, noise, classes) for item in labels])
    return Auxiliary(features, np.array(ways, np.int64)), np.stack(labels)


def draw_query(
    ways: int, seed: int = 9, noise: float = 0.08
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A picture with a patch of every class: features [1, C, h, w] and labels [h, w]."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID, np.int64)
    for way in range(ways):
        labels[1 + way : 3 + way, 2 * way : 2 * way + 3] = way + 1
    return scene(labels, rng, noise, ways + 1), labels


def take(shots: Shots, order: list[int]) -> Shots:
    """These shots, in this order; pictures stay as they are."""
    index = np.array(order)
    names = ("picture", "foreground", "background", "possible", "way", "weak")
    return replace(shots, **{name: getattr(shots, name)[index] for name in names})


def flip(shots: Shots) -> Shots:
    """Everything mirrored left to right."""
    names = ("features", "foreground", "background", "possible")
    return replace(shots, **{n: np.ascontiguousarray(getattr(shots, n)[..., ::-1]) for n in names})
