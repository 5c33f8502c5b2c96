"""A graph that keeps what it has computed: an episode list meets each picture many times."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk.backends import Graph


class RememberingGraph:
    """A graph that computes each input once, as long as it remembers: for evaluation only.

    Args:
        most_bytes: what its outputs may take; those not asked for the longest go first. The last
            one always stays. No limit if None.
        half: keep them in float16, and hand them out rounded to that, the first time, too.

    Attributes:
        times: seconds of each run of the graph.
        seconds: spent in `run` so far, with the hashing and copying that remembering takes.
    """

    def __init__(self, graph: Graph, most_bytes: int | None = None, *, half: bool = False) -> None:
        self.graph = graph
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.backend, self.device, self.precision = graph.backend, graph.device, graph.precision
        self.most_bytes, self.half, self._held = most_bytes, half, 0
        self.times: list[float] = []
        self.seconds = 0.0
        self._known: OrderedDict[bytes, dict[str, NDArray[Any]]] = OrderedDict()
        self._last: tuple[bytes, dict[str, NDArray[Any]]] = (b"", {})

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        begin, digest = perf_counter(), hashlib.sha256()
        for name in sorted(feeds):
            digest.update(name.encode() + np.ascontiguousarray(feeds[name]).tobytes())
        key = digest.digest()
        if key != self._last[0]:
            self._last = key, self._run(key, feeds)
        self.seconds += perf_counter() - begin
        return self._last[1]

    def _run(self, key: bytes, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        kept = self._known.get(key)
        if kept is None:
            begin = perf_counter()
            outputs = self.graph.run(feeds)
            self.times.append(perf_counter() - begin)
            kept = _as(np.float16, outputs) if self.half else outputs
            self._known[key] = kept
            self._held += _bytes_of(kept)
            while self.most_bytes is not None and self._held > self.most_bytes:
                _, oldest = self._known.popitem(last=False)
                self._held -= _bytes_of(oldest)
        else:
            self._known.move_to_end(key)
        return _as(np.float32, kept) if self.half else kept


def _as(dtype: type[Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array.astype(dtype) for name, array in arrays.items()}


def _bytes_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays.values())
