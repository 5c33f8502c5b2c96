"""``fsseg video``: a video file, a camera or a folder of frames."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import INTERRUPTED
from .console import Progress, WarnOnce, check_tile, json_line, load_segmenter, summary_of, warn
from .frames import Sink, Source, open_sink, open_source

if TYPE_CHECKING:
    from ..result import Result
    from ..task import Task

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    check_tile(arguments.tile)
    out = Path(arguments.out) if arguments.out else None
    source = open_source(arguments.source, out)
    task = load_segmenter(arguments).load_task(arguments.task)
    sink = open_sink(out, source, masks=arguments.masks)
    tally = _Tally(source, arguments.frames, json_lines=arguments.json)
    interrupted = False
    try:
        tally.follow(task, sink, arguments.tile)
    except KeyboardInterrupt:  # how a camera is stopped: what was written stays, and is whole
        interrupted = True
    finally:
        sink.close()
    if not tally.frames and not interrupted:
        raise InputError(
            "video",
            expected="at least one frame that can be read",
            got=f"none in {arguments.source!r}",
            remedy="Convert it to H.264 MP4, or to a folder of pictures.",
        )
    tally.print_summary(out, interrupted)
    if interrupted and not source.live:
        return INTERRUPTED
    return 1 if source.failures else 0


class _Tally:
    """Follows a stream and counts."""

    def __init__(self, source: Source, most: int | None, *, json_lines: bool) -> None:
        self._source = source
        self._most = most
        self._json_lines = json_lines
        self._dropped = 0
        self._found: Counter[str] = Counter()
        self._seconds = 0.0
        self.frames = 0

    def follow(self, task: Task, sink: Sink, tile: Any) -> None:
        """Segment and write until the frames end."""
        known = [count for count in (self._source.count, self._most) if count is not None]
        progress = Progress(min(known) if known else None)
        results = task.stream(self._source.frames, latest=self._source.live, tile=tile)
        begin = perf_counter()
        said = WarnOnce()
        number = -1
        try:
            for result in islice(results, self._most):
                numbers = self._source.numbers
                number = numbers.popleft() if numbers else number + 1 + result.dropped
                sink.write(number, result)
                self._count(number, result)
                said(result.warnings)
                progress.step(summary_of(result.to_dict()["classes"]))
        finally:
            progress.clear()
            self._seconds = perf_counter() - begin

    def _count(self, number: int, result: Result) -> None:
        self.frames += 1
        self._dropped += result.dropped
        self._found.update(result.found)
        if self._json_lines:
            print(json_line({"frame": number, **result.to_dict()}), flush=True)

    def print_summary(self, out: Path | None, interrupted: bool) -> None:
        source, fps = self._source, self.frames / max(self._seconds, 1e-9)
        expected = source.count
        if not (interrupted or self._most) and expected is not None:
            missing = expected - self.frames - len(source.failures)
            if missing > 0:
                warn(f"the video says that it has {expected} frames; {missing} could not be read")
        if self._json_lines:
            summary = {
                "frames": self.frames,
                "dropped": self._dropped,
                "failed": len(source.failures),
                "interrupted": interrupted,
                "seconds": round(self._seconds, 3),
                "fps": round(fps, 3),
                "found_in": dict(self._found),
                "out": str(out) if out else None,
            }
            print(json_line({"summary": summary}))
            return
        text = f"{self.frames} frames in {self._seconds:.1f} s, {fps:.1f} FPS"
        text += f"; {self._dropped} dropped to keep up" if source.live else ""
        text += f"; {len(source.failures)} could not be read" if source.failures else ""
        text += "; interrupted" if interrupted else ""
        print(text + (f"; {out}" if out else ""))
        for name, count in self._found.most_common():
            print(f"  {name}: in {count} frames")
