"""The arguments of ``fsseg engine``; see `parser`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .values import positive

__all__ = ["add_engine"]

_BUILD = """Build the TensorRT engines of a bundle now, so that loading it later takes no minutes.
They are kept in a private folder and found by Segmenter.load(..., backend="tensorrt").

  fsseg engine build default --precision fp16
  fsseg engine build parts.fsseg --batch 1 --workspace 512"""

_CLEAR = "Remove the engines; they are built again when they are needed."


def add_engine(parser: argparse.ArgumentParser, command: Callable[..., Any]) -> None:
    """command: makes the parser of an action, as `parser._command` does."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    build = command(actions, "build", "build the engines of a bundle", _BUILD)
    build.add_argument("bundle", nargs="?", default="default", metavar="PATH")
    build.add_argument(
        "--backend", default="tensorrt", choices=("tensorrt", "tensorrt-rtx"), help="which TensorRT"
    )
    build.add_argument("--precision", default="auto", metavar="NAME", help="default: auto")
    build.add_argument(
        "--device", default="auto", metavar="NAME", help="cuda, cuda:1; none (tensorrt-rtx alone)"
    )
    build.add_argument("--batch", type=positive, metavar="N", help="most pictures in one call")
    build.add_argument("--workspace", type=positive, metavar="MIB", help="most memory for a layer")
    build.add_argument("--dla", type=int, metavar="CORE", help="deep learning accelerator (Orin)")
    build.add_argument("--force", action="store_true", help="also where one is there")
    listing = command(actions, "list", "what has been built", "The engines on this machine.")
    clear = command(actions, "clear", "remove engines", _CLEAR)
    clear.add_argument("--damaged", action="store_true", help="those alone that are of no use")
    for name, action in (("build", build), ("list", listing), ("clear", clear)):
        action.set_defaults(module="engine", action=name)
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
