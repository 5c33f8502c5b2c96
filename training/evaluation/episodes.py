"""Episodes as files, drawn once: two methods then meet the same pictures.

    python -m training.evaluation.episodes --data ../data/voc2012 --protocol panet-417 --shots 1,5

writes ``episodes/<protocol>-fold<k>-<shots>shot-seed<s>.jsonl`` (for N > 1 classes
``-<N>way-<shots>shot-``). The first line says what the list was drawn from; every other one is an
episode, with the classes in the order of the labels 1..N::

    {"query": "2008_000123", "support": {"12": ["2009_001234"]}}

A list depends on the names of the pictures, the classes that they show, and the seed: not on the
machine, the version of Python, or the order of files. The K-shot list of one seed is the 1-shot
list with more supports, where both use the same classes and one class is asked for. A longer list
begins with the shorter one, but not under hsnet-400 and pfenet-473: there a run goes on in the list
of pictures where the last one stopped, so seed 1 begins elsewhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.evaluation.lists import FewShot, facts_of, file_name, folder_of, write
from training.evaluation.lots import Lot
from training.evaluation.options import (
    MOST_SHOTS,
    MOST_WAYS,
    add_data,
    add_episodes,
    check_episodes,
    open_data,
)
from training.evaluation.pool import Pool
from training.evaluation.protocols import fold_for, protocol_of


def draw(pool: Pool, shots: int, ways: int, seed: int, count: int = 1000) -> list[FewShot]:
    """A list of ``count`` episodes.

    Raises:
        ValueError: shots or ways are out of range, or the fold has too few classes for them.
    """
    for name, value, most in (("shots", shots, MOST_SHOTS), ("ways", ways, MOST_WAYS)):
        if not 1 <= value <= most:
            raise ValueError(f"{name}: expected 1 to {most}, got {value}")
    classes = pool.classes(shots, ways)
    if len(classes) < ways:
        raise ValueError(
            f"fold {pool.fold.number} of {pool.data}: {ways} classes with more than "
            f"{shots * ways} pictures are needed for {ways}-way {shots}-shot episodes, "
            f"{len(classes)} have them. Ask for fewer shots or ways, or leave the fold out."
        )
    return list(_episodes(pool, classes, shots, ways, seed, count))


def _episodes(
    pool: Pool, classes: list[int], shots: int, ways: int, seed: int, count: int
) -> Iterator[FewShot]:
    protocol, shown = pool.protocol, dict[str, list[int]]()
    for identity in classes:
        for key in pool.queries[identity]:
            shown.setdefault(key, []).append(identity)
    pictures = sorted(shown)
    pairs = [(key, identity) for key in pictures for identity in sorted(shown[key])]
    for index in range(count):
        name = (protocol.name, pool.fold.split, pool.fold.number, seed, index)
        lot, number = Lot(*name), seed * count + index
        if protocol.sampling == "class":
            first = lot.choose(classes)
            query = lot.choose(pool.queries[first])
        elif protocol.sampling == "pairs":
            query, first = pairs[number % len(pairs)]
        else:
            in_order = protocol.sampling == "pictures"
            query = pictures[number % len(pictures)] if in_order else lot.choose(pictures)
            first = lot.choose(shown[query])
        others = lot.some([c for c in classes if c != first], ways - 1)
        taken, support = {query}, []
        for identity in lot.some([first, *others], ways):
            left = [key for key in pool.supports[identity] if key not in taken]
            keys = tuple(Lot(*name, "support", identity).some(left, shots))
            taken.update(keys)
            support.append((identity, keys))
        yield FewShot(query, tuple(support))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.episodes", description=__doc__.split("\n")[0]
    )
    add_data(parser)
    add_episodes(parser, "of each list")
    parser.add_argument(
        "--out", type=Path, help="folder; default: episodes/, or a folder in it for other sets"
    )
    options = parser.parse_args(arguments)
    check_episodes(parser, options)
    try:
        return _draw_all(options)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"episodes: {error}", file=sys.stderr)
        return 2


def _draw_all(options: argparse.Namespace) -> int:
    data, protocol = open_data(options), protocol_of(options.protocol)
    for fold in options.folds:
        fold_for(data, protocol, fold)  # all of them, before the first is drawn
    for fold in options.folds:
        pool = Pool.of(data, protocol, fold, options.fewest, options.pool)
        out = options.out or folder_of(pool)
        print("\n".join(pool.lines(data.class_names)))
        for ways in options.ways:
            for shots in options.shots:
                for seed in range(options.runs):
                    try:
                        episodes = draw(pool, shots, ways, seed, options.episodes)
                    except ValueError as error:
                        print(f"not drawn: {error}")
                        break
                    path = out / file_name(protocol, fold, shots, ways, seed)
                    write(path, episodes, facts_of(pool, shots, ways, seed, len(episodes)))
                    print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
