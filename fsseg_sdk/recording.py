"""Queries on a device, recorded as CUDA graphs: the same work on other frames, by one call."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .backends import NotPrepared
from .backends.checks import one_line

if TYPE_CHECKING:
    from .ops import DeviceArray, DeviceContext

__all__ = ["Ran", "Recordings"]

T = TypeVar("T")

AT = 3
"""The query that is recorded: those before fill the pool, and show that the same comes again."""

MOST = 4
"""Recordings of a thread: each holds the memory of a query of its own."""


@dataclass(frozen=True)
class Ran(Generic[T]):
    """made: what the work gave. replayed: it was enqueued as a recorded graph; its arrays are the
    graph's then, and the next replay overwrites them. written, enqueued: when the frames were
    there, and when the graph was launched."""

    made: T
    replayed: bool = False
    written: float = 0.0
    enqueued: float = 0.0


@dataclass
class _Recorded:
    """graph: of what gave `made`, which reads `frames`; None where that has not come `AT` times."""

    count: int = 0
    graph: Any = None
    frames: list[DeviceArray] = field(default_factory=list)
    made: Any = None


class Recordings:
    """Of one task. Each thread has its own, on its own context; they end with it or the task."""

    def __init__(self) -> None:
        self._own = threading.local()

    @property
    def failed(self) -> str:
        """Why this thread's queries are not recorded, after a failure; else ""."""
        return getattr(self._own, "failed", "")

    def run(
        self,
        context: DeviceContext,
        frames: Sequence[Any],
        work: Callable[[Sequence[Any]], T],
    ) -> Ran[T]:
        """``work(frames)``, recorded the third time that frames of these shapes come, and replayed
        from then on.

        frames: uint8, of the host or of the device. work: the same for the same shapes; it enqueues
        on the context alone. A recording that fails is none: the work is done as before, `failed`
        says why, and there is no other attempt. NotPrepared is no failure: that query counts as
        the first of its shapes.
        """
        if self.failed:
            return Ran(work(frames))
        own = self._of_thread()
        key = (context.stream, *(tuple(frame.shape) for frame in frames))
        found = own.setdefault(key, _Recorded())
        own.move_to_end(key)
        while len(own) > MOST:
            own.popitem(last=False)
        if found.graph is None:
            found.count += 1
            if found.count < AT:
                return Ran(work(frames))
            try:
                _record(found, context, frames, work)
            except NotPrepared:
                found.count = 1
                return Ran(work(frames))
            except Exception as error:  # noqa: BLE001 - the work itself says what is wrong with it
                own.clear()
                self._own.failed = one_line(error)
                return Ran(work(frames))
        for array, frame in zip(found.frames, frames, strict=True):
            array.write(frame)
        written = perf_counter()
        found.graph.replay()
        return Ran(found.made, True, written, perf_counter())

    def _of_thread(self) -> OrderedDict[Any, _Recorded]:
        if not hasattr(self._own, "recorded"):
            self._own.recorded = OrderedDict()
        recorded: OrderedDict[Any, _Recorded] = self._own.recorded
        return recorded

    def __reduce__(self) -> tuple[Any, ...]:
        return Recordings, ()  # graphs are this process's


def _record(
    found: _Recorded,
    context: DeviceContext,
    frames: Sequence[Any],
    work: Callable[[Sequence[Any]], Any],
) -> None:
    written = [context.empty(frame.shape, "uint8") for frame in frames]
    with context.record() as graph:
        made = work(written)
    found.graph, found.frames, found.made = graph, written, made
