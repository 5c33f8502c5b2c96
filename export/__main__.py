"""`python -m export CHECKPOINT --out X.fsseg`: a checkpoint as a bundle that any machine loads.

`python -m export --from default --precision fp16,int8 --out X.fsseg`: a bundle in other precisions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from export.build import ExportError, ExportSettings, export_bundle
from export.derive import Derivation
from export.engine import BACKENDS, check_machine, engine_options, write_engines
from export.onnx_only import write_onnx_only
from export.quantize import FLAVOURS
from export.settings import PRECISIONS, PrecisionError, PrecisionSettings
from export.triton import models_of, write_repository
from export.written import check_name, write_derived
from fsseg_sdk import FssegError


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    try:
        settings = ExportSettings(
            name=options.name or (options.out.stem if options.out else "unnamed"),
            input_size=(options.input_size, options.input_size),
            geometry=options.geometry,
            storage=options.storage,
            card=options.card,
        )
        if options.source is None and options.precision == ("fp32",) and _only_a_bundle(options):
            print(export_bundle(options.checkpoint, options.out, settings))
        else:
            _derive(options, settings)
    except (ExportError, PrecisionError, FssegError, OSError, ValueError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def _derive(options: argparse.Namespace, settings: ExportSettings) -> None:
    if options.out is not None:
        check_name(options.out)
    engines = engine_options(options.batch)
    backend, device = options.engine_backend or BACKENDS[0], options.engine_device or "auto"
    if options.engine is not None:
        check_machine(backend, device)
    wanted = PrecisionSettings(
        precisions=options.precision,
        flavours=options.flavour,
        calibration=options.calibration,
        episodes=options.episodes,
        most_loss=options.most_loss,
        queries=options.queries,
        one=options.batch == 1,
        name=options.name,
    )
    with tempfile.TemporaryDirectory() as folder:
        source = options.source
        if source is None:
            source = Path(folder) / f"{settings.name}.fsseg"
            lines = str(export_bundle(options.checkpoint, source, settings)).splitlines()
            _say("\n".join(["the checkpoint in float32:", *lines[1:]]))
        made = Derivation(source, wanted, _say)
    if options.out is not None:
        print(write_derived(made, options.out))
    if options.onnx_only is not None:
        _list(write_onnx_only(options.onnx_only, made.manifest(), made.files))
    plans: dict[str, bytes] = {}
    if options.engine is not None:
        own = (backend, device, engines, _say)
        plans = write_engines(options.engine, made.specs, made.files, *own)
    if options.triton is not None:
        if plans and backend != "tensorrt":
            _say(f"Triton runs no plans of {backend}: the repository gets the ONNX files")
            plans = {}
        name = str(made.manifest()["name"])
        models = models_of(name, made.specs, made.files, plans, engines.batch)
        _list(write_repository(options.triton, models, made.manifest()["input"]))


def _only_a_bundle(options: argparse.Namespace) -> bool:
    others = (options.onnx_only, options.engine, options.triton)
    return all(folder is None for folder in others) and options.batch is None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(paths: list[Path]) -> None:
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path, nargs="?", help="safetensors written by `python -m training`")
    add("--from", dest="source", metavar="BUNDLE", help="a bundle instead: path, or shipped name")
    add("--out", type=Path, help="the bundle to write, X.fsseg")
    add("--name", help="the bundle's name; default: the file's, with --from the bundle's")
    add("--input-size", type=int, default=448, help="side of the encoder's input (448)")
    add("--geometry", choices=("squash", "fit"), default="squash")
    add("--storage", choices=("float16", "float32"), default="float16", help="of fp32's weights")
    add("--card", type=Path, help="JSON of provenance to add: terms, accuracy with its command")
    words = ",".join(PRECISIONS)
    add("--precision", type=_words, default=("fp32",), help=f"some of {words} (fp32)")
    add("--flavour", type=_words, default=FLAVOURS, help=f"of int8: some of {','.join(FLAVOURS)}")
    add("--calibration", type=Path, metavar="DIR", help="pictures for int8 (those of examples/)")
    add("--episodes", type=Path, metavar="DATA", help="labelled pictures that int8 is measured on")
    add("--queries", type=int, default=300, help="of each labelled set, at most (300)")
    add("--most-loss", type=float, default=0.5, help="points of mean-IoU that int8 may lose (0.5)")
    batch = "pictures a call; 1: exactly one (any number); of an engine the most (8)"
    add("--batch", type=int, choices=range(1, 9), help=batch)
    add("--onnx-only", type=Path, metavar="DIR", help="plain ONNX files and an example in numpy")
    add("--triton", type=Path, metavar="DIR", help="a model repository for Triton Inference Server")
    add("--engine", type=Path, metavar="DIR", help="TensorRT engines, for this machine's GPU")
    add("--engine-backend", choices=BACKENDS, help=f"({BACKENDS[0]})")
    add("--engine-device", help="cuda:N, or none: tensorrt-rtx without a GPU (the first GPU)")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where options do not go together."""
    if (options.checkpoint is None) == (options.source is None):
        parser.error("say what to export: a CHECKPOINT, or --from BUNDLE")
    if options.out is None and _only_a_bundle(options):
        parser.error("say what to write: --out X.fsseg, --onnx-only, --triton or --engine DIR")
    if options.batch not in (None, 1) and options.engine is None:
        parser.error(f"--batch {options.batch} is of engines: add --engine DIR, or leave it out")
    if (options.engine_backend or options.engine_device) and options.engine is None:
        parser.error("--engine-backend and --engine-device are of engines: add --engine DIR")


if __name__ == "__main__":
    sys.exit(main())
