"""One fold of an evaluation: its lists, its model, its rows."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from fsseg_sdk.doctor import machine
from fsseg_sdk.segmenter import find_bundle
from training.datasets import DataError, Dataset
from training.evaluation.auxiliary import NOTHING, Given, given_of, mean_number
from training.evaluation.engine import FoldCounts, measure
from training.evaluation.episodes import draw
from training.evaluation.lists import FewShot, facts_of, file_name, folder_of, load, write
from training.evaluation.options import given_by
from training.evaluation.pool import Pool
from training.evaluation.predictor import How, Predictor, digest_of, of_bundle
from training.evaluation.protocols import Protocol
from training.evaluation.provenance import unfit
from training.evaluation.rows import list_facts, list_name, rows_of
from training.tables import changes_of

DRAWN = 1000  # episodes of a list that is drawn, unless more are asked for
MACHINE = ("processor", "cores", "usable_cores", "load")
SHOWN = 5  # broken pictures that a note names
Kind = tuple[int, int]
"""shots, ways"""


def part_of(
    options: argparse.Namespace, data: Dataset, protocol: Protocol, fold: int
) -> dict[str, Any]:
    """One fold's part of the result. options: those of `training.evaluate`.

    Raises:
        ValueError, FileNotFoundError: the model has seen the fold's classes, a list is of
            something else, or a file cannot be used; the message says what to do.
    """
    began = perf_counter()
    pool = Pool.of(data, protocol, fold, options.fewest, options.pool)
    lists, notes = _lists(options, pool)
    notes += pool.lines(data.class_names)
    part: dict[str, Any] = {"fold": fold, "notes": notes, "rows": [], "lists": {}, "model": {}}
    predictor = _predictor(options, protocol, fold)
    part["model"] = predictor.facts
    if not lists:
        return part
    given = given_by(options)
    if given != [NOTHING] and not predictor.takes_auxiliary:
        raise ValueError(
            f"--auxiliary: method {predictor.facts['method']} learns from labelled pictures only. "
            "Leave it out, or take another method, such as --method paia."
        )
    if doubt := unfit(predictor.facts, data.name, pool.fold.split, fold, pool.which):
        if doubt.refused:
            raise ValueError(f"fold {fold}: {doubt.text}.")
        notes.append(f"fold {fold}: {doubt.text}.")
    print(f"fold {fold}: {predictor.facts['name']}, input {predictor.facts['input']}")
    part["machine"] = {name: machine()[name] for name in MACHINE} | {"threads": options.threads}
    counts = measure(
        predictor,
        pool,
        {kind: [e for each in runs for e in each] for kind, runs in lists.items()},
        options.annotation,
        options.skip_broken,
        given,
    )
    if counts.broken:
        lists, more = _left(lists, counts, fold)
        notes += more
    part["lists"] = {list_name(fold, *kind): list_facts(runs) for kind, runs in lists.items()}
    part["rows"] = rows_of(fold, counts, part["lists"], data.class_names)
    notes += _auxiliary(pool, lists, part["rows"], counts.broken)
    part["seconds"] = perf_counter() - began
    ms = "" if counts.ms_per_query is None else f", {counts.ms_per_query:.0f} ms a query"
    print(f"fold {fold}: {part['seconds']:.0f} s, {counts.encoded} pictures encoded{ms}")
    return part


def _lists(
    options: argparse.Namespace, pool: Pool
) -> tuple[dict[Kind, list[list[FewShot]]], list[str]]:
    """(shots, ways) -> the episodes of each run; and a sentence for each that cannot be had."""
    folder = options.lists or folder_of(pool)
    lists: dict[Kind, list[list[FewShot]]] = {}
    notes = []
    for ways in options.ways:
        for shots in options.shots:
            runs = []
            for seed in range(options.runs):
                path = folder / file_name(pool.protocol, pool.fold.number, shots, ways, seed)
                if not path.is_file():
                    try:
                        drawn = draw(pool, shots, ways, seed, max(DRAWN, options.episodes))
                    except ValueError as error:
                        notes.append(str(error))
                        break
                    write(path, drawn, facts_of(pool, shots, ways, seed, len(drawn)))
                    print(f"drawn: {path.name}")
                episodes = load(path, pool, shots, ways, seed)
                if len(episodes) < options.episodes:
                    raise ValueError(
                        f"{path}: expected {options.episodes} episodes, got {len(episodes)}. Ask "
                        "for fewer with --episodes, or name another folder with --lists: longer "
                        "ones are drawn there."
                    )
                runs.append(episodes[: options.episodes])
            if len(runs) == options.runs:
                lists[shots, ways] = runs
    return lists, notes


def _left(
    lists: dict[Kind, list[list[FewShot]]], counts: FoldCounts, fold: int
) -> tuple[dict[Kind, list[list[FewShot]]], list[str]]:
    """The episodes that were run, and a sentence for each list that is shorter now.

    Raises:
        DataError: nothing is left of a run.
    """
    named = "; ".join(list(counts.broken.values())[:SHOWN])
    more = f"; and {len(counts.broken) - SHOWN} more" if len(counts.broken) > SHOWN else ""
    left: dict[Kind, list[list[FewShot]]] = {}
    notes = []
    for kind, runs in lists.items():
        own, first = set(counts.kept[kind]), 0
        left[kind] = []
        for episodes in runs:
            left[kind].append([e for n, e in enumerate(episodes, first) if n in own])
            first += len(episodes)
        if not all(left[kind]):
            raise DataError(f"every episode of a run meets a picture that cannot be used: {named}")
        if len(own) < first:
            notes.append(
                f"fold {fold}, {kind[1]}-way {kind[0]}-shot: {first - len(own)} of {first} "
                f"episodes are left out, since pictures cannot be used: {named}{more}"
            )
    return left, notes


def _auxiliary(
    pool: Pool,
    lists: Mapping[Kind, list[list[FewShot]]],
    rows: Sequence[dict[str, Any]],
    broken: Mapping[str, str],
) -> list[str]:
    """Give each row the mean number of auxiliary pictures of a class, and a sentence for each
    setting in which some class has too few."""
    notes = []
    means: dict[tuple[Kind, Given], float] = {}
    for row in rows:
        kind, given = (row["shots"], row["ways"]), given_of(row)
        if (kind, given) not in means:
            episodes = [episode for run in lists[kind] for episode in run]
            means[kind, given] = mean_number(pool, episodes, given, broken)
            if means[kind, given] < sum(given):
                notes.append(
                    f"fold {pool.fold.number}, {kind[1]}-way {kind[0]}-shot, {given}: not all "
                    f"classes have so many; {means[kind, given]:.1f} on average."
                )
        row["auxiliary_mean"] = means[kind, given]
    return notes


def digest_now(options: argparse.Namespace, fold: int) -> str:
    """SHA-256 of the fold's model as it lies on disk."""
    if options.bundle is not None:
        path = find_bundle(_path(options.bundle, fold))
    else:
        path = Path(options.weights if options.torch is None else _path(options.torch, fold))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected the model of fold {fold}, got no file. "
            "Put it there, or name another."
        )
    return digest_of(path)


def _path(text: str, fold: int) -> str:
    return text.replace("{fold}", str(fold))


def _predictor(options: argparse.Namespace, protocol: Protocol, fold: int) -> Predictor:
    how = How(
        bfloat16=options.bfloat16,
        most_bytes=round(options.cache_gb * 2**30),
        threads=options.threads,
        method=options.method,
        changes=changes_of(options.setting),
        backend=options.backend,
        precision=options.precision,
    )
    if options.bundle is not None:
        return of_bundle(_path(options.bundle, fold), how)
    import torch

    from training.evaluation.models import of_checkpoint, of_weights

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.torch is not None:
        return of_checkpoint(_path(options.torch, fold), protocol, how)
    return of_weights(options.raw, options.weights, protocol, how)


def name_of_all(parts: Sequence[dict[str, Any]]) -> str:
    """What the models of all folds are called, without the number of one."""
    last = parts[-1]
    name = str(last["model"]["name"])
    return name.replace(f"-fold{last['fold']}", "") if len(parts) > 1 else name
