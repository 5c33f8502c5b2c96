"""Mean-IoU by a named protocol: of a bundle through the SDK, or of a checkpoint in torch.

    python -m training.evaluate rn50-fold{fold}.fsseg --data voc2012 --protocol panet-417 \\
        --folds 1-3 --shots 1,5 --annotation dense,scribble --json out.json
    python -m training.evaluate --torch runs/rn50-fold{fold}/checkpoint.safetensors --bfloat16 ...
    python -m training.evaluate --raw resnet50 --weights resnet50.safetensors ...

``{fold}`` in a path stands for the fold: each fold needs a model that has not seen its classes.
A long evaluation writes each fold to FILE.part and goes on from there when it is started again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from time import perf_counter
from typing import Any

from fsseg_sdk.errors import FssegError
from training.annotations import KINDS
from training.datasets import Dataset, open_dataset
from training.evaluation import results
from training.evaluation.engine import measure
from training.evaluation.episodes import draw, numbers
from training.evaluation.lists import FewShot, facts_of, file_name, folder_of, load, write
from training.evaluation.pictures import marked_as
from training.evaluation.pool import Pool
from training.evaluation.predictor import Predictor, of_bundle
from training.evaluation.protocols import PROTOCOLS, Protocol, fold_for, protocol_of
from training.evaluation.provenance import unfit
from training.evaluation.rows import list_facts, list_name, mean_rows, rows_of


def kinds(text: str) -> list[str]:
    """``"dense,scribble"``; for argparse."""
    found = list(dict.fromkeys(text.split(",")))
    for kind in found:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(
                f"expected some of {', '.join(KINDS)}, got {kind!r}"
            )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundle", nargs="?", help="a path, or a shipped bundle's name")
    add("--torch", metavar="CHECKPOINT", help="a checkpoint, through torch")
    add("--raw", metavar="ENCODER", help="an encoder with the ImageNet weights of --weights")
    add("--weights", type=Path, metavar="FILE")
    add("--name", help="of the model, in tables; default: what the file says")
    add("--data", type=Path, required=True, help="folder of a labelled set")
    add("--protocol", choices=list(PROTOCOLS), default="panet-417")
    add("--folds", type=numbers, default=numbers("0-3"))
    add("--shots", type=numbers, default=[1, 5], help="1 to 15")
    add("--ways", type=numbers, default=[1], help="classes of an episode, 1 to 5")
    add("--annotation", type=kinds, default=["dense"], help=", ".join(KINDS))
    add("--runs", type=int, default=5, help="lists, of seeds 0 to RUNS - 1")
    add("--episodes", type=int, default=1000, help="the first so many of each list")
    add("--fewest", type=int, help="pictures that a class needs to be asked for")
    add("--lists", type=Path, metavar="FOLDER", help="of the lists; missing ones are drawn there")
    add("--bfloat16", action="store_true", help="--torch and --raw: the encoder under autocast")
    add("--cache-gb", type=float, default=2.0, help="features to keep, in float16; 0 keeps none")
    add("--threads", type=int, help="default: all cores")
    add("--json", type=Path, metavar="FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if sum(v is not None for v in (options.bundle, options.torch, options.raw)) != 1:
        parser.error("name one model: BUNDLE, --torch CHECKPOINT, or --raw ENCODER")
    if (options.raw is None) != (options.weights is None):
        parser.error("--raw and --weights belong together")
    if options.bundle is not None and options.bfloat16:
        parser.error("--bfloat16 is for --torch and --raw; a bundle has its own precision")
    if min(options.runs, options.episodes) < 1 or options.cache_gb < 0:
        parser.error("--runs and --episodes take 1 or more, --cache-gb 0 or more")
    try:
        run(options)
    except (FileNotFoundError, ValueError, FssegError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, write and print; the result as written."""
    data, protocol = open_dataset(options.data), protocol_of(options.protocol)
    options.annotation = marked_as(options.annotation, data.samples[:1])
    asked = {
        "protocol": protocol.name,
        "data": data.name,
        "pictures": len(data.samples),
        "model": options.bundle or options.torch or f"{options.raw} {options.weights.name}",
        **{k: getattr(options, k) for k in ("shots", "ways", "annotation", "runs", "episodes")},
        "fewest": options.fewest,
        "bfloat16": options.bfloat16,
    }
    partial = results.Partial(options.json, asked)
    caveat = results.caveat(fold_for(data, protocol, options.folds[0]).split, len(data.samples))
    for line in (*protocol.lines(), f"native: {data.name}'s pictures as they are on disk.", caveat):
        print(fill(line, 100))
    for fold in options.folds:
        if fold in partial.folds:
            print(f"fold {fold}: done before")
        else:
            partial.add(_fold(options, data, protocol, fold))
    parts = [partial.folds[fold] for fold in options.folds]
    rows = [row for part in parts for row in part["rows"]]
    if not rows:
        raise ValueError("nothing was measured: no fold has enough pictures for what was asked")
    lists = {name: each for part in parts for name, each in part["lists"].items()}
    result = {
        "protocol": protocol.name,
        "data": {"name": data.name, "pictures": len(data.samples), "caveat": caveat},
        "model": {
            "name": options.name or _name(parts),
            **{k: v for k, v in parts[-1]["model"].items() if k != "name"},
        },
        "models": {str(part["fold"]): part["model"] for part in parts},
        "seconds": {str(part["fold"]): part.get("seconds") for part in parts},
        "notes": list(dict.fromkeys(note for part in parts for note in part["notes"])),
        "rows": rows,
        "means": mean_rows(rows, lists),
        "lists": lists,
    }
    if options.json is not None:
        results.write_result(options.json, result)
        partial.remove()
    report(result)
    return result


def _name(parts: Sequence[Mapping[str, Any]]) -> str:
    """What the models of all folds are called, without the number of one."""
    last = parts[-1]
    name = str(last["model"]["name"])
    return name.replace(f"-fold{last['fold']}", "") if len(parts) > 1 else name


def _fold(
    options: argparse.Namespace, data: Dataset, protocol: Protocol, fold: int
) -> dict[str, Any]:
    """One fold's part of the result."""
    began = perf_counter()
    pool = Pool.of(data, protocol, fold, options.fewest)
    lists, notes = _lists(options, pool)
    notes += pool.lines(data.class_names)
    part: dict[str, Any] = {"fold": fold, "notes": notes, "rows": [], "lists": {}, "model": {}}
    predictor = _predictor(options, protocol, fold)
    part["model"] = predictor.facts
    if not lists:
        return part
    if reason := unfit(predictor.facts, data.name, pool.fold.split, fold):
        if (predictor.facts.get("trained") or {}).get("fold") is not None:
            raise ValueError(
                f"fold {fold}: {reason}. Give a model for each fold, with {{fold}} in the path."
            )
        notes.append(f"fold {fold}: {reason}: these are no figures on new classes.")
    print(f"fold {fold}: {predictor.facts['name']}, input {predictor.facts['input']}")
    counts = measure(
        predictor,
        pool,
        {kind: [e for each in runs for e in each] for kind, runs in lists.items()},
        options.annotation,
    )
    part["lists"] = {list_name(fold, *kind): list_facts(runs) for kind, runs in lists.items()}
    part["rows"] = rows_of(fold, counts, part["lists"], data.class_names)
    part["seconds"] = perf_counter() - began
    print(
        f"fold {fold}: {part['seconds']:.0f} s, {counts.encoded} pictures encoded, "
        f"{counts.ms_per_query:.0f} ms a query"
    )
    return part


def _lists(
    options: argparse.Namespace, pool: Pool
) -> tuple[dict[tuple[int, int], list[list[FewShot]]], list[str]]:
    """(shots, ways) -> the episodes of each run; and a sentence for each that cannot be had."""
    folder = options.lists or folder_of(pool.data)
    lists: dict[tuple[int, int], list[list[FewShot]]] = {}
    notes = []
    for ways in options.ways:
        for shots in options.shots:
            runs = []
            for seed in range(options.runs):
                path = folder / file_name(pool.protocol, pool.fold.number, shots, ways, seed)
                if not path.is_file():
                    try:
                        drawn = draw(pool, shots, ways, seed)
                    except ValueError as error:
                        notes.append(str(error))
                        break
                    write(path, drawn, facts_of(pool, shots, ways, seed, len(drawn)))
                    print(f"drawn: {path.name}")
                episodes = load(path, pool, shots, ways)
                if len(episodes) < options.episodes:
                    raise ValueError(
                        f"{path}: expected {options.episodes} episodes, got {len(episodes)}. Ask "
                        "for fewer with --episodes, or draw a longer list."
                    )
                runs.append(episodes[: options.episodes])
            if len(runs) == options.runs:
                lists[shots, ways] = runs
    return lists, notes


def _predictor(options: argparse.Namespace, protocol: Protocol, fold: int) -> Predictor:
    most_bytes = round(options.cache_gb * 2**30)
    if options.bundle is not None:
        path = options.bundle.replace("{fold}", str(fold))
        return of_bundle(path, options.threads, most_bytes)
    import torch

    from training.evaluation.models import of_checkpoint, of_weights

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    how = {"bfloat16": options.bfloat16, "most_bytes": most_bytes}
    if options.torch is not None:
        return of_checkpoint(options.torch.replace("{fold}", str(fold)), protocol, **how)
    return of_weights(options.raw, options.weights, protocol, **how)


def report(result: Mapping[str, Any]) -> None:
    """The table and what belongs under it."""
    name = result["model"]["name"]
    print(f"\nMean-IoU in %, {result['protocol']} on {result['data']['name']}: {name}")
    print(results.table(results.summary(result["rows"], result["means"])))
    print("std: between runs; interval: of the last mean, bootstrap over query pictures.")
    for line in (*result["notes"], result["data"]["caveat"]):
        print(fill(line, 100))


if __name__ == "__main__":
    sys.exit(main())
