"""What a Segmenter and its Tasks share: from pictures to score maps, from shots to a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from . import ops
from .backends import Graph
from .encoder import Encoded, Encoder
from .errors import InputError
from .image import Picture
from .methods import AuxiliaryMethod, Fitted, Match, Method, Shots, State, combine
from .preprocess import Geometry, masked, plan, preprocess
from .recording import Ran, Recordings
from .score_map import ScoreMap, covered
from .support import Shot, Support
from .tiling import Tile, Tiling, plan_tiles, stitch

__all__ = ["Core", "ScoreMap", "covered"]


_MATCHED_ON_CPU = (
    "features were copied from the GPU and matched on the CPU, as this method and tiles are"
)

_NOT_RECORDED = "queries of this thread are enqueued step by step, as no CUDA graph can be recorded"


@dataclass(frozen=True, eq=False)
class Core:
    """An opened bundle: encoder, method and its settings. bundle: its name; digest: its hash, or
    None for graphs that were handed in. changes: the settings that differ from the bundle's, as
    parsed JSON."""

    encoder: Encoder
    method: Method
    settings: Any
    graphs: Mapping[str, Graph]
    bundle: str
    digest: str | None
    threads: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about how the graphs run here: a slow file, a graph in another precision."""
        own = self.encoder.graph
        notes = [note for g in (own, *self.graphs.values()) for note in getattr(g, "warnings", ())]
        notes += [
            f"graph {name!r} runs in {graph.precision}: no {own.precision} file of it is there"
            for name, graph in self.graphs.items()
            if graph.precision != own.precision
        ]
        return tuple(dict.fromkeys(notes))

    def summarise(self, support: Support, ways: Sequence[int]) -> State:
        """Encode each different picture once, some at a time; rows in the order of the shots.
        ways: the number that each class of the support gets."""
        states: list[State] = []
        order: list[int] = []
        for some, rows in self._at_a_time([shot.picture for shot in support]):
            states.append(self._summarise(some, [support.shots[row] for row in rows], ways))
            order += rows
        return combine(states).select(np.argsort(order))

    def summarise_auxiliary(self, given: Sequence[tuple[int, Picture]]) -> State:
        """The same of pictures of which only the class (way, picture) is known. InputError for a
        method that takes none."""
        method = self.auxiliary_method(len(given))
        states: list[State] = []
        order: list[int] = []
        for some, rows in self._at_a_time([picture for _, picture in given]):
            encoded = self.encoder.encode(some)
            place = {id(picture): index for index, picture in enumerate(some)}
            index = [place[id(given[row][1])] for row in rows]
            same = index == list(range(len(some)))
            state = method.summarise_auxiliary(
                encoded.features if same else encoded.features[index],
                np.array([given[row][0] for row in rows], np.int64),
                [encoded.geometries[i].extent(self.encoder.grid) for i in index],
                self.settings,
                self.graphs,
                threads=self.threads,
            )
            states.append(state)
            order += rows
        return combine(states).select(np.argsort(order))

    def auxiliary_method(self, pictures: int) -> AuxiliaryMethod:
        """The method, as one that takes that many pictures; InputError if it takes none."""
        if "auxiliary" not in self.method.properties:
            raise InputError(
                "auxiliary",
                expected="nothing: this method learns from labelled pictures only",
                got=f"{pictures} pictures for the method {self.method.name!r}",
                remedy='Leave them out, or choose another method, such as "paia".',
            )
        return cast(AuxiliaryMethod, self.method)

    def _at_a_time(self, shown: Sequence[Picture]) -> Iterator[tuple[list[Picture], list[int]]]:
        """The different ones of these pictures, a batch at a time, and the rows that show them."""
        pictures = list({id(picture): picture for picture in shown}.values())
        step = self.encoder.choose_batch()
        for first in range(0, len(pictures), step):
            some = pictures[first : first + step]
            yield some, [i for i, p in enumerate(shown) if any(p is q for q in some)]

    def _summarise(
        self, pictures: Sequence[Picture], shots: Sequence[Shot], ways: Sequence[int]
    ) -> State:
        encoded = self.encoder.encode(pictures)
        place = {id(picture): index for index, picture in enumerate(pictures)}
        index = np.array([place[id(shot.picture)] for shot in shots], np.int64)
        planes = np.stack(
            [self._grid(s, encoded.geometries[i]) for s, i in zip(shots, index, strict=True)]
        )
        return self.method.summarise(
            Shots(
                features=encoded.features,
                picture=index,
                foreground=planes[:, 0],
                background=planes[:, 1],
                possible=planes[:, 2],
                way=np.array([ways[shot.way] for shot in shots], np.int64),
                weak=np.array([shot.kind != "mask" for shot in shots], np.bool_),
                masked=self._masked(shots, [encoded.geometries[i] for i in index]),
            ),
            self.settings,
            self.graphs,
            threads=self.threads,
        )

    def _masked(
        self, shots: Sequence[Shot], geometries: Sequence[Geometry]
    ) -> NDArray[np.float32] | None:
        """`Shots.masked`, if the method wants it."""
        if "masked_images" not in self.method.properties:
            return None
        own = self.encoder
        inputs = [
            preprocess(
                masked(shot.picture, shot.possible, own.mean),
                geometry,
                own.mean,
                own.std,
                threads=self.threads,
            )
            for shot, geometry in zip(shots, geometries, strict=True)
        ]
        return np.concatenate(inputs)

    def _grid(self, shot: Shot, geometry: Geometry) -> NDArray[np.float32]:
        """[3, h, w] foreground, background, possible; in cells, so big pictures weigh no more."""
        grid = self.encoder.grid
        extent = geometry.extent(grid)
        height, width = shot.picture.size
        masks = np.stack([shot.foreground, shot.unclaimed, shot.possible])
        weights = ops.grid_weights(masks, grid, extent, threads=self.threads)
        return weights * np.float32(extent[0] * extent[1] / (height * width))

    def match(
        self,
        fitted: Fitted,
        pictures: Sequence[Picture],
        tile: Tile,
        batch: int | None,
        recordings: Recordings,
    ) -> Iterator[ScoreMap]:
        """Scores of each picture, in order, `batch` encoded at a time. recordings: of `fitted`
        alone."""
        step = self.encoder.choose_batch(batch)
        encoder = self.encoder
        plans = [plan_tiles(p.size, encoder.input_size, encoder.grid, tile) for p in pictures]
        pairs = zip(pictures, plans, strict=True)
        for whole, members in groupby(pairs, lambda pair: pair[1] is None):
            if whole:
                alike = [picture for picture, _ in members]
                for first in range(0, len(alike), step):
                    yield from self._match_whole(fitted, alike[first : first + step], recordings)
                continue
            for picture, tiling in members:
                if tiling is not None:
                    yield self._match_tiles(fitted, picture, tiling, step)

    def _match_whole(
        self, fitted: Fitted, pictures: Sequence[Picture], recordings: Recordings
    ) -> Iterator[ScoreMap]:
        on_device = self.encoder.context is not None
        if on_device and "on_device" in self.method.properties:
            yield from self._match_on_device(fitted, pictures, recordings)
            return
        encoded = self.encoder.encode(pictures)
        begin = perf_counter()
        extents = [geometry.extent(self.encoder.grid) for geometry in encoded.geometries]
        match = fitted.match(encoded.features, extents, threads=self.threads)
        evidence = match.logits if match.evidence is None else match.evidence
        timings = _shared(encoded, perf_counter() - begin)
        for index, geometry in enumerate(encoded.geometries):
            yield ScoreMap(
                logits=match.logits[index],
                evidence=evidence[index],
                geometry=geometry,
                warnings=(match.warnings[index] if match.warnings else ())
                + ((_MATCHED_ON_CPU,) if on_device else ()),
                timings=dict(timings),
                places=self.places("cpu"),
            )

    def _match_on_device(
        self, fitted: Fitted, pictures: Sequence[Picture], recordings: Recordings
    ) -> Iterator[ScoreMap]:
        """All of a batch is enqueued before anything is waited for; the waiting is part of
        "match". Where the encoder allows it, what needs no look at a result is recorded."""
        begin = perf_counter()
        encoder, frames = self.encoder, [picture.pixels for picture in pictures]
        geometries = encoder.plans(pictures)
        whole = "capturable" in self.method.properties
        work = partial(self._enqueue, fitted, geometries, whole)
        context = encoder.context
        if context is not None and encoder.capturable:
            ran = recordings.run(context, frames, work)
        else:
            ran = Ran(work(frames))
        encoded, found = ran.made
        if ran.replayed:
            seconds = ran.written - begin, ran.enqueued - ran.written
            encoded = Encoded(encoded.features, geometries, *seconds)
        begin = perf_counter()
        match, labels = found or self._matched(fitted, encoded)
        shown = _copied(match.logits)
        judged = shown if match.evidence is None else _copied(match.evidence)
        if found and ran.replayed:  # the next replay overwrites them
            labels = [_duplicate(label) for label in labels]
        timings = _shared(encoded, perf_counter() - begin)
        places = self.places(encoder.graph.device)
        if ran.replayed:
            places["replayed"] = ", ".join([*places] if whole else [*places][:2])
        failed = (f"{_NOT_RECORDED}: {recordings.failed}",) if recordings.failed else ()
        for index, geometry in enumerate(geometries):
            yield ScoreMap(
                logits=shown[index],
                evidence=judged[index],
                geometry=geometry,
                warnings=(match.warnings[index] if match.warnings else ()) + failed,
                timings=dict(timings),
                labels=labels[index],
                places=places,
            )

    def _enqueue(
        self, fitted: Fitted, geometries: Sequence[Geometry], whole: bool, frames: Sequence[Any]
    ) -> tuple[Encoded, tuple[Match, list[Any]] | None]:
        """Features of these frames; if whole, their match and labels, too."""
        encoded = self.encoder.on_device(frames, geometries)
        return encoded, self._matched(fitted, encoded) if whole else None

    def _matched(self, fitted: Fitted, encoded: Encoded) -> tuple[Match, list[Any]]:
        """The match on a device, and the labels [1, H, W] of each picture."""
        extents = [geometry.extent(self.encoder.grid) for geometry in encoded.geometries]
        match = fitted.match(encoded.features, extents, threads=self.threads)
        labels = [
            ops.upsample_argmax(match.logits[i : i + 1], g.image_size, extents[i], fitted.planes)
            for i, g in enumerate(encoded.geometries)
        ]
        return match, labels

    def places(self, matched: str) -> dict[str, str]:
        """The device of each stage; matched: that of the method and of the labels."""
        device = self.encoder.graph.device
        first = "cpu" if self.encoder.context is None else device
        return {"preprocess": first, "encoder": device, "match": matched, "label": matched}

    def _match_tiles(self, fitted: Fitted, picture: Picture, tiling: Tiling, step: int) -> ScoreMap:
        picture = picture.on_host()
        pieces = [
            Picture(picture.pixels[w.top : w.bottom, w.left : w.right], 1, w.size)
            for w in tiling.windows
        ]
        timings = {"preprocess": 0.0, "encoder": 0.0, "match": 0.0}
        logits: list[NDArray[np.float32]] = []
        evidence: list[NDArray[np.float32]] = []
        warnings: list[str] = []
        for first in range(0, len(pieces), step):
            encoded = self.encoder.encode(pieces[first : first + step], "squash")
            begin = perf_counter()
            match = fitted.match(encoded.features, threads=self.threads)
            logits += list(match.logits)
            evidence += list(match.logits if match.evidence is None else match.evidence)
            warnings += [text for texts in match.warnings for text in texts]
            timings["preprocess"] += encoded.preprocess_seconds
            timings["encoder"] += encoded.encoder_seconds
            timings["match"] += perf_counter() - begin
        begin = perf_counter()
        stitched = stitch(tiling, logits)
        judged = stitch(tiling, evidence)
        timings["match"] += perf_counter() - begin
        geometry = plan("squash", picture.size, self.encoder.input_size)
        timings = {stage: 1000.0 * seconds for stage, seconds in timings.items()}
        if self.encoder.context is not None:
            warnings.append(_MATCHED_ON_CPU)
        notes = tuple(dict.fromkeys(warnings))
        places = self.places("cpu")
        return ScoreMap(stitched, judged, geometry, notes, timings, places=places)


def _shared(encoded: Encoded, match_seconds: float) -> dict[str, float]:
    """Milliseconds of one picture of a batch, by stage."""
    share = 1000.0 / len(encoded.geometries)
    return {
        "preprocess": encoded.preprocess_seconds * share,
        "encoder": encoded.encoder_seconds * share,
        "match": match_seconds * share,
    }


def _copied(array: Any) -> NDArray[np.float32]:
    """Of a device, with what its kernels have to say about their inputs."""
    return np.asarray(array.to_host(), np.float32)


def _duplicate(labels: Any) -> Any:
    copy = labels.context.empty(labels.shape, labels.dtype)
    copy.write(labels)
    return copy
