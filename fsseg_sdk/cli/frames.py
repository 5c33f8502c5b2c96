"""Frames of a video file, a camera or a folder, and where segmented ones go. OpenCV is an extra."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, InputError
from ..image import read_image
from ..palette import palette
from .console import unwritable, warn
from .queries import SUFFIXES, Query, expand

if TYPE_CHECKING:
    from ..result import Result

__all__ = ["FolderSink", "NoSink", "Sink", "Source", "VideoSink", "open_sink", "open_source"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi")
_DEFAULT_FPS = 25.0


@dataclass(frozen=True)
class Source:
    """frames: arrays uint8 [H, W, 3] or Pictures. live: a camera, whose newest frame counts.

    count, fps: None where nobody knows. Of a folder: stems, names for the frames; numbers, filled
    while it is read, of the frames that could be; failures, why the others could not.
    """

    frames: Iterator[object]
    live: bool
    count: int | None
    fps: float | None
    stems: tuple[str, ...] = ()
    numbers: deque[int] = field(default_factory=deque)
    failures: list[str] = field(default_factory=list)


def open_source(text: str, out: Path | None) -> Source:
    """A folder of pictures, a camera (a number, /dev/..., or a URL) or a video file.

    Raises InputError for what is not there or has no frames, BackendError without OpenCV.
    """
    if os.path.isdir(text):
        return _folder(text, out or Path(os.devnull))
    live = text.isdigit() or text.startswith("/dev/") or "://" in text
    if not live and not os.path.isfile(text):
        raise InputError(
            "video",
            expected="a video file, a camera or a folder of pictures",
            got=f"{text!r} (no such file)",
            remedy="Cameras are numbers (0), /dev/video0 or a URL such as rtsp://...",
        )
    cv2 = _opencv()
    capture = cv2.VideoCapture(int(text) if text.isdigit() else text)
    if not capture.isOpened():
        raise InputError(
            "video",
            expected="a camera that can be opened" if live else "a video that OpenCV can read",
            got=repr(text),
            remedy="Check that no other program uses it." if live else "Convert it to H.264 MP4.",
        )
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Source(
        frames=_captured(cv2, capture),
        live=live,
        count=count if not live and count > 0 else None,
        fps=fps if np.isfinite(fps) and 1 <= fps <= 1000 else None,
    )


def _folder(text: str, out: Path) -> Source:
    queries, _ = expand([text], out, recursive=False)
    numbers: deque[int] = deque()
    failures: list[str] = []
    return Source(
        frames=_read(queries, numbers, failures),
        live=False,
        count=len(queries),
        fps=None,
        stems=tuple(query.stem for query in queries),
        numbers=numbers,
        failures=failures,
    )


def _read(queries: Sequence[Query], numbers: deque[int], failures: list[str]) -> Iterator[object]:
    """What is wrong with one picture is reported; the rest go on."""
    for number, query in enumerate(queries):
        try:
            picture = read_image(query.path, str(query.path))
        except InputError as error:
            warn(str(error))
            failures.append(str(error))
            continue
        numbers.append(number)
        yield picture


def _captured(cv2: ModuleType, capture: Any) -> Iterator[object]:
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


class Sink(Protocol):
    """Takes results in order; `close` makes what was written complete."""

    def write(self, number: int, result: Result) -> None: ...

    def close(self) -> None: ...


class NoSink:
    """Nothing is written."""

    def write(self, number: int, result: Result) -> None:
        pass

    def close(self) -> None:
        pass


def open_sink(out: Path | None, source: Source, *, masks: bool) -> Sink:
    """A video for a name with the suffix of one, else a folder. Raises as they do."""
    if out is None:
        return NoSink()
    if out.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSink(out, source.fps or _DEFAULT_FPS, masks=masks, repeat=source.live)
    return FolderSink(out, source.stems, masks=masks)


class FolderSink:
    """Masks, overlays and JSON of every frame; with masks=True no overlays."""

    def __init__(self, folder: Path, stems: tuple[str, ...], *, masks: bool) -> None:
        if folder.suffix.lower() in SUFFIXES:
            raise InputError(
                "--out",
                expected=f"a folder or a video ({', '.join(VIDEO_SUFFIXES)})",
                got=repr(str(folder)),
                remedy="Name a folder for pictures of the frames.",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        self._folder = folder
        self._stems = stems
        self._masks = masks

    def write(self, number: int, result: Result) -> None:
        stem = self._stems[number] if self._stems else f"frame_{number:06d}"
        kept = replace(result, picture=None) if self._masks else result
        kept.save(self._folder, stem)

    def close(self) -> None:
        pass


class VideoSink:
    """A video of overlays or of masks in the colours of the classes.

    repeat: write a frame again for each one that a camera's stream dropped, so that the video runs
    as fast as what it shows. It is written beside its place and renamed by `close`: a video is
    there whole, or as it was before.
    """

    def __init__(self, path: Path, fps: float, *, masks: bool, repeat: bool) -> None:
        self._cv2 = _opencv()
        self._path = path
        self._temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
        self._fps = fps
        self._masks = masks
        self._repeat = repeat
        self._writer: Any = None
        self._size = (0, 0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except OSError as error:
            raise unwritable(path, error) from error

    def write(self, number: int, result: Result) -> None:
        frame = palette()[result.labels] if self._masks else result.overlay()
        height, width = frame.shape[:2]
        if self._writer is None:
            self._open(width, height)
        elif (width, height) != self._size:
            frame = self._fitted(frame)
        swapped = self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2BGR)
        for _ in range(1 + (result.dropped if self._repeat else 0)):
            self._writer.write(swapped)

    def _open(self, width: int, height: int) -> None:
        self._size = (width, height)
        codec = "MJPG" if self._path.suffix.lower() == ".avi" else "mp4v"
        fourcc = self._cv2.VideoWriter_fourcc(*codec)
        writer = self._cv2.VideoWriter(str(self._temporary), fourcc, self._fps, self._size)
        if not writer.isOpened():
            raise InputError(
                "--out",
                expected=f"a video that OpenCV can write ({codec} in {self._path.suffix})",
                got=repr(str(self._path)),
                remedy="Name an .mp4 or .avi file, or a folder for pictures of the frames.",
            )
        self._writer = writer

    def _fitted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames of a folder may differ in size; a video has one."""
        fitted: NDArray[np.uint8] = self._cv2.resize(frame, self._size)
        return fitted

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
                os.replace(self._temporary, self._path)
        except OSError as error:
            raise unwritable(self._path, error) from error
        finally:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise BackendError(
            "video",
            expected="OpenCV, which is not part of fsseg_sdk",
            got=f"ImportError: {error}",
            remedy="pip install 'fsseg_sdk[video]'; a folder of pictures needs no OpenCV.",
        ) from error
    module: ModuleType = cv2
    return module
