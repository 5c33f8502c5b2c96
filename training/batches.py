"""What a run sees, step by step: draws of its sources that depend on seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from training.datasets import DataError, SkipLog
from training.learner import Share

Drawn = tuple[Tensor, Tensor]


def whole(drawn: Drawn | DataError) -> Drawn:
    """What a stream gave, if it is a draw.

    Raises:
        DataError: it is the error that ended the stream.
    """
    if isinstance(drawn, DataError):
        raise drawn
    return drawn


class StepStream(torch.utils.data.IterableDataset[Drawn | DataError]):
    """Endless ``(pixels [n, S, S, 3] uint8, labels [n, ..., S, S] uint8)``: the draws of a step,
    source by source, then those of the next step. ``n`` is what the source draws at once: two for
    episodes.

    Draw ``i`` of a source depends on seed, source and ``i`` alone, so a resumed run sees what an
    unbroken one would have seen, whatever the number of workers. A picture that cannot be read ends
    the stream with the error as its last value: raised in a worker, it would arrive as a page of
    traceback. See :func:`whole`.

    Args:
        shares: what a step takes of each source.
        iteration: the first step.
        rank, processes: takes every ``processes``-th draw of a step, from ``rank`` on.
        skips: draws again where a picture cannot be read.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        seed: int,
        iteration: int = 0,
        rank: int = 0,
        processes: int = 1,
        skips: SkipLog | None = None,
    ) -> None:
        super().__init__()
        self.shares, self.seed, self.iteration = tuple(shares), seed, iteration
        self.rank, self.processes, self.skips = rank, processes, skips
        self.counts = [share.count // processes for share in self.shares]

    def __iter__(self) -> Iterator[Drawn | DataError]:
        worker = torch.utils.data.get_worker_info()
        place, step = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(0)
        while True:
            try:
                views = self._draw(place)
            except DataError as error:
                yield error
                return
            yield tuple(torch.from_numpy(np.stack(part)) for part in zip(*views, strict=True))  # type: ignore[misc]
            place += step

    def _draw(self, place: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """Draw number ``place`` of this process."""
        steps, place = divmod(place, sum(self.counts))
        lane = 0
        while place >= self.counts[lane]:
            place -= self.counts[lane]
            lane += 1
        share = self.shares[lane]
        index = (self.iteration + steps) * share.count + place * self.processes + self.rank
        # the first source's draws do not depend on there being others
        key = (self.seed, index, lane) if lane else (self.seed, index)
        draw = partial(share.source.draw, np.random.default_rng(key))
        return draw() if self.skips is None else self.skips.draw(draw)


class Batches:
    """The batches of a run: ``next()`` is a step's ``[pixels, labels]`` of each source in turn.

    Batches are made here, not by torch's loader: a worker's batch would hold every other draw, and
    a resumed run would then not see what an unbroken one sees.
    """

    def __init__(self, stream: StepStream, workers: int) -> None:
        self.counts = stream.counts
        self._draws = iter(torch.utils.data.DataLoader(stream, None, num_workers=workers))

    def __next__(self) -> list[Tensor]:
        step: list[Tensor] = []
        for count in self.counts:
            drawn = [whole(next(self._draws)) for _ in range(count)]
            step += [torch.stack(part) for part in zip(*drawn, strict=True)]
        return step
