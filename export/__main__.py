"""`python -m export CHECKPOINT --out X.fsseg`: a checkpoint as a bundle that any machine loads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.build import ExportError, ExportSettings, export_bundle
from fsseg_sdk import FssegError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="safetensors written by `python -m training`")
    parser.add_argument("--out", type=Path, required=True, help="the bundle to write, X.fsseg")
    parser.add_argument("--name", help="the bundle's name; default: the file's")
    parser.add_argument(
        "--input-size", type=int, default=448, help="side of the encoder's input (448)"
    )
    parser.add_argument("--geometry", choices=("squash", "fit"), default="squash")
    parser.add_argument(
        "--storage", choices=("float16", "float32"), default="float16", help="weights in the file"
    )
    parser.add_argument(
        "--card", type=Path, help="JSON of provenance to add: terms, accuracy with its command"
    )
    options = parser.parse_args(arguments)
    try:
        settings = ExportSettings(
            name=options.name or options.out.stem,
            input_size=(options.input_size, options.input_size),
            geometry=options.geometry,
            storage=options.storage,
            card=options.card,
        )
        report = export_bundle(options.checkpoint, options.out, settings)
    except (ExportError, FssegError, OSError, ValueError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
