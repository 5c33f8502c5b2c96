"""`python -m training.encoders [NAME ...]`: parameters and GFLOP of the encoders."""

from __future__ import annotations

import argparse
import json
import sys

from training.encoders.registry import ENCODERS
from training.encoders.table import as_text, measure, rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.encoders", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all, and some variants")
    parser.add_argument(
        "--settings", metavar="JSON", help='of one NAME, as in \'{"stem": "deep"}\': that row alone'
    )
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[417, 473], help="of the input (417 473)"
    )
    parser.add_argument("--markdown", action="store_true", help="as in docs/encoders.md")
    options = parser.parse_args(arguments)
    try:
        if unknown := [name for name in options.names if name not in ENCODERS]:
            raise ValueError(f"NAME: expected one of {', '.join(ENCODERS)}, got {unknown[0]!r}")
        if min(options.sides) < 32:
            raise ValueError(f"--sides: expected 32 or more, got {min(options.sides)}")
        if options.settings is None:
            found = rows(options.names, options.sides)
        else:
            if len(options.names) != 1:
                raise ValueError("--settings: expected one NAME before them")
            changes = json.loads(options.settings)
            if not isinstance(changes, dict):
                raise ValueError("--settings: expected a JSON object")
            found = [measure(options.names[0], changes, options.sides)]
        print(as_text(found, options.sides, options.markdown))
    except ValueError as error:
        print(f"training.encoders: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
