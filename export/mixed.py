"""Which layers stay in float32: as few as it takes to lose less than so many points of mean-IoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from export.accuracy import Cost


@dataclass(frozen=True)
class Step:
    """One try of the search: so many layers kept, and what was lost then."""

    kept: int
    cost: Cost


@dataclass(frozen=True)
class Search:
    """kept: names of the layers that stay in float32. enough: the loss is within the limit."""

    kept: tuple[str, ...]
    steps: tuple[Step, ...]
    enough: bool

    @property
    def cost(self) -> Cost:
        return next(s.cost for s in self.steps if s.kept == len(self.kept))


def search(
    ranked: Sequence[str],
    measure: Callable[[Sequence[str]], Cost],
    most_loss: float,
    say: Callable[[str], None] = lambda text: None,
) -> Search:
    """Keep none, then the first 1/16, 1/8, 1/4, 1/2, 3/4 of the layers, until the loss is below
    ``most_loss``; then half as many of the last addition, if that is enough, too.

    Args:
        ranked: all layers, the one with the largest error by itself first.
        measure: the cost with these layers kept.
    """
    steps: list[Step] = []

    def lost(count: int) -> bool:
        cost = measure(ranked[:count])
        steps.append(Step(count, cost))
        say(f"  {count:3} of {len(ranked)} layers kept in float32: {cost.against(most_loss)}")
        return not cost.loss < most_loss  # NaN is too much

    shares = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
    tried = dict.fromkeys(-int(-len(ranked) * share // 1) for share in shares)
    counts = [count for count in tried if count == 0 or count < len(ranked)]
    before = 0
    for count in counts:
        if not lost(count):
            between = (before + count) // 2
            if before < between < count and not lost(between):
                count = between
            return Search(tuple(ranked[:count]), tuple(steps), True)
        before = count
    return Search(tuple(ranked[:before]), tuple(steps), False)
