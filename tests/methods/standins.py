"""Graphs of heads in numpy: they find what has known features, without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[Any]]


@dataclass
class NumpyHeadGraph:
    """One output of its feeds. calls: what it was fed, in order."""

    output: str
    compute: Callable[[Feeds], NDArray[Any]]
    calls: list[Feeds] = field(default_factory=list)

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        self.calls.append(feeds)
        return {self.output: self.compute(feeds).astype(np.float32)}


def taps_inside(height: int, width: int) -> NDArray[np.float64]:
    """[9, h, w]: 1 where that neighbour of a cell is in the map."""
    padded = np.pad(np.ones((height, width)), 1)
    return np.stack([padded[r : r + height, c : c + width] for r in range(3) for c in range(3)])


def as_image(features: NDArray[Any], shown: NDArray[Any]) -> NDArray[np.float32]:
    """[S, 3, C / 3 * h, w]: a "picture" that is the features [S, C, h, w] themselves, 0 wherever
    `shown` [S, h, w] is not above 0. C is a multiple of 3."""
    count, channels, height, width = features.shape
    masked = np.where(shown[:, None] > 0, features, 0)
    return masked.reshape(count, 3, channels // 3 * height, width).astype(np.float32)


def oslsm_graphs(grid: tuple[int, int]) -> dict[str, NumpyHeadGraph]:
    """A conditioner of `as_image`: the direction of the mean of what is shown, and a bias that
    wants half of that mean's length."""

    def conditioner(feeds: Feeds) -> NDArray[Any]:
        image = feeds["image"].astype(np.float64)
        cells = image.reshape(len(image), -1, grid[0] * grid[1])
        shown = (cells != 0).any(axis=1).sum(axis=1)
        mean = cells.sum(axis=2) / np.maximum(shown, 1)[:, None]
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        unit = np.divide(mean, length, out=np.zeros_like(mean), where=length > 0)
        return 10 * np.concatenate([unit, -0.5 * np.maximum(length, 0.1)], axis=1)

    return {"oslsm_conditioner": NumpyHeadGraph("parameters", conditioner)}


def siamese_graphs() -> dict[str, NumpyHeadGraph]:
    """An embedding that turns features around and keeps what lies between them."""

    def embedding(feeds: Feeds) -> NDArray[Any]:
        features = feeds["features"]
        turn = np.linalg.qr(np.random.default_rng(8).normal(size=(features.shape[1],) * 2))[0]
        return np.einsum("dc,bchw->bdhw", turn, features.astype(np.float64))

    return {"siamese_embedding": NumpyHeadGraph("embedding", embedding)}


def smcp_graphs() -> dict[str, NumpyHeadGraph]:
    """A head whose first convolution leaves features and prototype side by side (the query's share
    is the features and zeros, the prototype's is zeros and a ninth of it at each tap); after that
    comes the cosine of the two, foreground from 0.6 on."""

    def query(feeds: Feeds) -> NDArray[Any]:
        features = feeds["features"]
        return np.concatenate([features, np.zeros_like(features)], axis=1)

    def prototype(feeds: Feeds) -> NDArray[Any]:
        given = feeds["prototypes"]
        both = np.concatenate([np.zeros_like(given), given], axis=1)
        return np.repeat(both[:, :, None] / 9, 9, axis=2)

    def head(feeds: Feeds) -> NDArray[Any]:
        shown, shares = feeds["query"].astype(np.float64), feeds["shares"].astype(np.float64)
        spread = np.einsum("nct,thw->nchw", shares, taps_inside(*shown.shape[2:]))
        features, prototypes = np.split(shown + spread, 2, axis=1)
        length = np.linalg.norm(features, axis=1) * np.linalg.norm(prototypes, axis=1)
        inner = (features * prototypes).sum(axis=1)
        cosine = np.divide(inner, length, out=np.zeros_like(inner), where=length > 0)
        return 10 * np.stack([np.full_like(cosine, 0.6), cosine], axis=1)

    return {
        "smcp_query": NumpyHeadGraph("query", query),
        "smcp_prototype": NumpyHeadGraph("shares", prototype),
        "smcp_head": NumpyHeadGraph("logits", head),
    }
