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
from typing import Any

from fsseg_sdk.errors import FssegError
from training.annotations import KINDS
from training.evaluation import results
from training.evaluation.auxiliary import NOTHING
from training.evaluation.fold import digest_now, name_of_all, part_of
from training.evaluation.options import (
    add_auxiliary,
    add_data,
    add_episodes,
    check_auxiliary,
    check_episodes,
    given_by,
    kinds,
    open_data,
)
from training.evaluation.pictures import marked_as
from training.evaluation.protocols import fold_for, protocol_of
from training.evaluation.rows import mean_rows

POOLS = {
    "all": "all pictures, train and val,",
    "val": "the pictures that are not split train",
}


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
    add("--method", metavar="NAME", help="another than the model's own: srofb, for example")
    add(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the method; may be repeated",
    )
    add("--name", help="of the model, in tables; default: what the file says")
    add_data(parser)
    add_episodes(parser, "the first so many of each list")
    add_auxiliary(parser)
    add("--annotation", type=kinds, default=["dense"], help=", ".join(KINDS))
    add("--lists", type=Path, metavar="FOLDER", help="of the lists; missing ones are drawn there")
    add("--backend", default="auto", help="of a bundle; `fsseg doctor` lists them")
    add("--precision", default="auto", help="of a bundle: fp32, bf16, fp16 or int8")
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
    if options.bundle is None and {options.backend, options.precision} != {"auto"}:
        parser.error("--backend and --precision are for bundles; torch has --bfloat16")
    if options.cache_gb < 0:
        parser.error("--cache-gb takes 0 or more")
    if options.json is not None and options.json.is_dir():
        parser.error(f"--json: expected a file to write, got the folder {options.json}")
    check_episodes(parser, options)
    check_auxiliary(parser, options)
    try:
        run(options)
    except (OSError, ValueError, ModuleNotFoundError, FssegError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, write and print; the result as written."""
    data, protocol = open_data(options), protocol_of(options.protocol)
    folds = [fold_for(data, protocol, number) for number in options.folds]
    tested = [s for s in data.samples if options.pool == "all" or s.split != "train"]
    options.annotation = marked_as(options.annotation, tested)
    asked = {
        "protocol": protocol.name,
        "data": data.name,
        "pictures": len(data.samples),
        "model": options.bundle or options.torch or f"{options.raw} {options.weights}",
        **{k: getattr(options, k) for k in ("shots", "ways", "annotation", "runs", "episodes")},
        "fewest": options.fewest,
        "pool": options.pool,
        "lists": None if options.lists is None else str(options.lists),
        "bfloat16": options.bfloat16,
        "method": [options.method, *options.setting],
        "cache": options.cache_gb > 0,  # features are rounded then
    }
    if (given := given_by(options)) != [NOTHING]:
        asked["auxiliary"] = given
    if (ran := [options.backend, options.precision]) != ["auto", "auto"]:
        asked["backend"] = ran
    partial = results.Partial(options.json, asked)
    caveat = results.caveat(data.name, folds[0].split, len(data.samples))
    native = f"native: {data.name}'s pictures as they are on disk."
    for line in (*protocol.lines(POOLS[options.pool]), native, caveat):
        print(fill(line, 100))
    for fold in options.folds:
        if fold in partial.folds:
            known = partial.folds[fold]["model"].get("digest")
            if digest_now(options, fold) != known:
                raise ValueError(
                    f"{partial.path}: fold {fold} was measured with another model (SHA-256 "
                    f"{str(known)[:12]}...). Put that one back, remove the file, or write to "
                    "another --json."
                )
            print(f"fold {fold}: done before")
        else:
            partial.add(part_of(options, data, protocol, fold))
    parts = [partial.folds[fold] for fold in options.folds]
    rows = [row for part in parts for row in part["rows"]]
    if not rows:
        notes = " ".join(note for part in parts for note in part["notes"])
        raise ValueError(f"nothing was measured: no fold has what was asked for. {notes}")
    lists = {name: each for part in parts for name, each in part["lists"].items()}
    left_out = [problem for problem in data.problems if problem.kind != "split"]
    result = {
        "protocol": protocol.name,
        "data": {
            "name": data.name,
            "pictures": len(data.samples),
            "pool": options.pool,
            "fewest": options.fewest,
            "caveat": caveat,
        },
        "model": {
            "name": options.name or name_of_all(parts),
            **{k: v for k, v in parts[-1]["model"].items() if k != "name"},
        },
        "models": {str(part["fold"]): part["model"] for part in parts},
        "seconds": {str(part["fold"]): part.get("seconds") for part in parts},
        "machine": {str(part["fold"]): part.get("machine") for part in parts},
        "notes": [
            *(
                [f"{len(left_out)} pictures of {data.name} are left out: {left_out[0]}"]
                if left_out
                else []
            ),
            *dict.fromkeys(note for part in parts for note in part["notes"]),
        ],
        "rows": rows,
        "means": mean_rows(rows, lists),
        "lists": lists,
    }
    if options.json is not None:
        results.write_result(options.json, result)
        partial.remove()
    report(result)
    return result


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
