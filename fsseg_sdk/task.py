"""A support set, encoded once and ready for any number of queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import ops
from .auxiliary import read_auxiliary
from .core import Core, ScoreMap, covered
from .errors import BackendError, InputError
from .frame import read_frame
from .image import Picture
from .methods import Fitted, State, combine
from .recording import Recordings
from .result import Result
from .stream import FrameSource, InOrder, Latest, results_of
from .support import MAX_CLASSES, Support, read_support
from .tiling import Tile

__all__ = ["Task"]

_MAX_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Task:
    """Made by `Segmenter.prepare` or `Segmenter.load_task`. Immutable; many threads may use one.

    classes: names in the order of the labels 1..N. state: what the method keeps of the shots;
    fitted: the same, ready to be matched. notes: what the support's files gave reason to say,
    repeated in the warnings of every Result. recordings: its queries as CUDA graphs.
    """

    core: Core
    classes: tuple[str, ...]
    state: State
    fitted: Fitted
    notes: tuple[str, ...] = ()
    recordings: Recordings = field(default_factory=Recordings, init=False, repr=False)

    @classmethod
    def fit(
        cls, core: Core, classes: Sequence[str], state: State, notes: Sequence[str] = ()
    ) -> Task:
        """The task of these shots. Every class has one or more rows in `state`."""
        fitted = core.method.fit(
            state, len(classes), core.settings, core.graphs, threads=core.threads
        )
        return cls(core, tuple(classes), state, fitted, tuple(dict.fromkeys(notes)))

    @classmethod
    def of_support(cls, core: Core, support: Support) -> Task:
        """Encode the labelled pictures, each once."""
        if support.auxiliary:  # refused before anything is encoded
            core.auxiliary_method(len(support.auxiliary))
        state = core.summarise(support, range(len(support.classes)))
        if support.auxiliary:
            state = state.with_auxiliary(core.summarise_auxiliary(support.auxiliary))
        return cls.fit(core, support.classes, state, support.warnings)

    def segment(self, query: object, *, tile: Tile = None) -> Result:
        """Find the classes in one picture, at the cost of one encoder pass.

        query: a path, bytes, a Pillow image, uint8 [H, W, 3], or anything with DLPack.
        tile: for pictures much larger than the encoder's input. True: windows at native
        resolution; a number: windows of that many pixels; "auto": where the picture is more than
        twice as large as the input. One encoder pass per window.
        Raises InputError for what cannot be read, and is as good as new afterwards.
        """
        return self._segment([(query, "query")], tile, None)[0]

    def segment_batch(
        self,
        queries: Iterable[object],
        *,
        batch: int | None = None,
        tile: Tile = None,
        output: Literal["host", "device"] = "host",
    ) -> list[Result]:
        """One Result per picture, in order; sizes may differ.

        batch: pictures per encoder call, by default what suits the device (1 on a CPU).
        output: where labels are left. "device": `Result.raw_labels` is an `ops.DeviceArray`, which
            speaks DLPack; only where queries are matched on a device, else a BackendError.
        """
        _check_output(output, self.core)
        step = self.core.encoder.choose_batch(_check_batch(batch))
        named = [(query, f"queries[{index}]") for index, query in enumerate(queries)]
        results: list[Result] = []
        for first in range(0, len(named), step):
            results += self._segment(named[first : first + step], tile, batch, output == "device")
        return results

    def stream(
        self,
        frames: Iterable[object],
        *,
        batch: int = 1,
        latest: bool = False,
        tile: Tile = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Iterator[Result]:
        """Results of an endless or finite iterator of pictures, in memory that does not grow.

        latest: read in a thread of its own and drop frames while the segmenter is busy, so that
        the answer is about the newest; `Result.dropped` counts those left out just before.
        on_error: "raise" ends the stream at a frame that cannot be read; "skip" leaves it out,
        counts it as dropped and says so in the next Result's warnings. Errors of the iterator
        and of the backend always end the stream. Closing the generator ends the thread.
        """
        if on_error not in ("raise", "skip"):
            raise InputError(
                "on_error",
                expected="'raise' or 'skip'",
                got=repr(on_error),
                remedy="Choose one of these.",
            )
        size = _check_batch(batch) or 1
        if not isinstance(frames, Iterable):
            raise InputError(
                "frames",
                expected="an iterable of pictures",
                got=type(frames).__name__,
                remedy="Pass a list, a generator or a camera that can be iterated over.",
            )
        opened: Callable[[], FrameSource] = (
            (lambda: Latest(frames, size)) if latest else (lambda: InOrder(frames, size))
        )
        return results_of(
            opened, lambda named: self._segment(named, tile, batch), skip=on_error == "skip"
        )

    def add(self, support: object = None, shots: object = None, auxiliary: object = None) -> Task:
        """A new task with more classes, shots or auxiliary pictures; this one stays as it is.

        ``task.add({"nut": [(image, mask)]})`` or ``task.add("nut", [(image, mask)])``. A name that
        the task has gets more shots, another becomes the next label. Only the new pictures are
        encoded. Where an added picture was in the task before, what is now marked in it does not
        leave the older shots' background: prepare such shots together.

        auxiliary: as in `Segmenter.prepare`, of any class of the new task; alone, too:
        ``task.add(auxiliary={"nut": [image]})``. Equal pictures are found among the added ones.
        """
        more = None
        if support is not None or auxiliary is None:
            more = read_support({support: shots} if isinstance(support, str) else support)
        added = () if more is None else more.classes
        classes = tuple(dict.fromkeys(self.classes + added))
        if len(classes) > MAX_CLASSES:
            raise InputError(
                "support",
                expected=f"at most {MAX_CLASSES} classes in a task",
                got=f"{len(classes)}",
                remedy="Use several tasks.",
            )
        ways = [classes.index(name) for name in added]
        labelled = [(ways[shot.way], shot.picture) for shot in more or ()]
        given, notes = read_auxiliary(auxiliary, classes, labelled)
        extra = self.core.summarise_auxiliary(given) if given else None
        state, said = self.state, self.notes
        if more is not None:
            state = combine([state, self.core.summarise(more, ways)])
            said += more.warnings
        if extra is not None:
            state = state.with_auxiliary(extra)
        return Task.fit(self.core, classes, state, said + notes)

    def kept(self) -> NDArray[np.float32]:
        """[steps, U, h, w] in 0..1: how much each cell of each auxiliary picture gives to its
        class, step by step; pictures in the order of `state.auxiliary`. InputError for a method
        that takes none."""
        core = self.core
        if "auxiliary" not in core.method.properties:
            raise InputError(
                "kept",
                expected="a task of a method that takes auxiliary pictures",
                got=f"one of the method {core.method.name!r}",
                remedy='Prepare it with method="paia".',
            )
        method = core.auxiliary_method(0)
        return method.kept(self.state, len(self.classes), core.settings, threads=core.threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a task file (.task): what the method keeps, no pictures. Raises TaskError."""
        from .taskfile import write_task

        write_task(self, path)

    def info(self) -> dict[str, Any]:
        """Classes with their shots, the bundle it belongs to, and how much it holds."""
        from .taskfile import describe

        return describe(self)

    def describe(self, result: Result) -> NDArray[np.float32]:
        """[N, D]: what the presence scores of a result of this task were computed from.

        For fitting their coefficients; the columns are `fsseg_sdk.methods.presence.DESCRIPTORS`.
        """
        evidence = result.logits if result.evidence is None else result.evidence
        return self.fitted.describe(covered(evidence, result.geometry))

    def _segment(
        self,
        named: Sequence[tuple[object, str]],
        tile: Tile,
        batch: int | None,
        leave: bool = False,
    ) -> list[Result]:
        pictures: list[Picture] = []
        decode: list[float] = []
        for query, name in named:
            begin = perf_counter()
            pictures.append(read_frame(query, name, self.core.encoder.context))
            decode.append((perf_counter() - begin) * 1e3)
        maps = self.core.match(self.fitted, pictures, tile, batch, self.recordings)
        return [self._result(*item, leave) for item in zip(pictures, maps, decode, strict=True)]

    def _result(self, picture: Picture, scores: ScoreMap, decode: float, leave: bool) -> Result:
        """leave: labels on the device."""
        begin = perf_counter()
        labels = scores.labels
        if labels is None:
            if leave:
                raise _not_on_device("tiles" if scores.places["encoder"] != "cpu" else "the CPU")
            labels = ops.upsample_argmax(
                scores.logits[None],
                picture.size,
                scores.extent,
                self.fitted.planes,
                threads=self.core.threads,
            )
        elif not leave:
            labels = labels.to_host()
        presence = self.fitted.presence(covered(scores.evidence, scores.geometry))
        timings = {
            "decode": decode,
            **scores.timings,
            "label": (perf_counter() - begin) * 1e3,
        }
        timings["total"] = sum(timings.values())
        graph = self.core.encoder.graph
        return Result(
            classes=self.classes,
            raw_labels=labels[0],
            logits=scores.logits,
            evidence=scores.evidence,
            geometry=scores.geometry,
            present=dict(zip(self.classes, presence.scores.tolist(), strict=True)),
            threshold=presence.threshold,
            calibrated=presence.calibrated,
            activation=self.fitted.activation,
            planes=self.fitted.planes,
            timings=timings,
            warnings=(
                self.core.warnings
                + self.notes
                + self.fitted.warnings
                + scores.warnings
                + presence.warnings
            ),
            bundle=self.core.bundle,
            method=self.core.method.name,
            backend=graph.backend,
            device=graph.device,
            precision=graph.precision,
            picture=picture,
            places=scores.places,
        )


def _check_batch(batch: int | None) -> int | None:
    if batch is None:
        return None
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
        raise InputError(
            "batch",
            expected=f"a number of pictures from 1 to {_MAX_BATCH}",
            got=repr(batch),
            remedy="Leave it out for what suits the device.",
        )
    return batch


def _check_output(output: str, core: Core) -> None:
    if output not in ("host", "device"):
        raise InputError(
            "output", expected="'host' or 'device'", got=repr(output), remedy="Use 'host'."
        )
    if output == "device" and core.encoder.context is None:
        raise _not_on_device("the CPU")
    if output == "device" and "on_device" not in core.method.properties:
        raise _not_on_device(f"the CPU, by the method {core.method.name!r}")


def _not_on_device(got: str) -> BackendError:
    return BackendError(
        "output",
        expected="'host' where queries are not matched on a GPU",
        got=f"'device', for queries that are matched on {got}",
        remedy="Leave it out; or use a build with CUDA on a GPU, panet or srofb, and no tiles.",
    )
