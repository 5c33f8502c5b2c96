"""Frames for `Task.stream`: in order, or only the newest while the segmenter is busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Protocol

from .errors import FssegError
from .image import Picture, read_image
from .result import Result

__all__ = ["FrameSource", "InOrder", "Latest", "results_of"]

_JOIN_SECONDS = 2.0


class FrameSource(Protocol):
    """Where a stream takes its frames from. Holds at most one batch."""

    def take(self) -> tuple[list[object], int]:
        """The next frames (none: the end) and how many were dropped just before them."""

    def close(self) -> None:
        """No further frames are wanted; called once, whatever happened."""


class InOrder:
    """Every frame, `batch` at a time; the next is read when it is asked for."""

    def __init__(self, frames: Iterable[object], batch: int) -> None:
        self._frames: Iterator[object] = iter(frames)
        self._batch = batch

    def take(self) -> tuple[list[object], int]:
        return list(islice(self._frames, self._batch)), 0

    def close(self) -> None:
        pass


class Latest:
    """Reads in a thread of its own and keeps the newest `batch` frames; older ones are dropped.

    An error of the iterator reaches the caller of `take` after the frames read before it.
    `close` ends the thread when the read in progress returns (it is a daemon: a camera that
    never returns does not keep the process alive).
    """

    def __init__(self, frames: Iterable[object], batch: int) -> None:
        self._waiting: deque[object] = deque()
        self._batch = batch
        self._dropped = 0
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._read, args=(iter(frames),), name="fsseg-stream", daemon=True
        )
        self._thread.start()

    def _read(self, frames: Iterator[object]) -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with self._changed:
                    if self._closed:
                        return
                    if len(self._waiting) == self._batch:
                        self._waiting.popleft()
                        self._dropped += 1
                    self._waiting.append(frame)
                    self._changed.notify()
        except BaseException as caught:  # noqa: BLE001  raised again in the consumer's thread
            error = caught
        finally:
            with self._changed:
                self._error = error
                self._ended = True
                self._changed.notify()

    def take(self) -> tuple[list[object], int]:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if not self._waiting and self._error is not None:
                raise self._error
            frames, dropped = list(self._waiting), self._dropped
            self._waiting.clear()
            self._dropped = 0
            return frames, dropped

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._waiting.clear()
        self._thread.join(_JOIN_SECONDS)


def results_of(
    opened: Callable[[], FrameSource],
    segment: Callable[[list[tuple[Picture, str]]], list[Result]],
    *,
    skip: bool,
) -> Iterator[Result]:
    """The results of a stream of frames; the source is opened with the first and closed after the
    last. segment: one result for each named picture. skip: leave out frames that cannot be read,
    and tell the next result; otherwise their error ends the stream."""
    source = opened()
    count = lost = 0
    notes: tuple[str, ...] = ()
    try:
        while True:
            frames, dropped = source.take()
            if not frames:
                return
            lost += dropped
            named: list[tuple[Picture, str]] = []
            while frames:
                name = f"frame {count}"
                count += 1
                try:
                    named.append((read_image(frames.pop(0), name), name))
                except FssegError as error:
                    if not skip:
                        raise
                    lost += 1
                    notes = (f"skipped: {error}",)
            for result in segment(named) if named else ():
                if lost or notes:
                    result = replace(result, dropped=lost, warnings=result.warnings + notes)
                lost, notes = 0, ()
                yield result
    finally:
        source.close()
