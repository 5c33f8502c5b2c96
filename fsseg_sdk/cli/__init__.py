"""The command line ``fsseg``. One module per command; each is imported only when it is called.

Exit codes: 0 done; 1 done, but not for everything (some pictures failed, a check said no); 2 a
wrong call or input, one message on stderr; 130 interrupted; 141 the reader of the output is gone.
Anything unexpected keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import FssegError

__all__ = ["main"]

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with `argv` (by default the process's own). Returns the exit code."""
    from .parser import build_parser

    try:
        try:
            arguments = build_parser().parse_args(argv)
            code: int = import_module(f"{__name__}.{arguments.module}").run(arguments)
        finally:  # also for --help, so that a reader who has gone is noticed here
            sys.stdout.flush()
        return code
    except FssegError as error:
        print(f"fsseg: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fsseg: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader: the interpreter must not try again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
