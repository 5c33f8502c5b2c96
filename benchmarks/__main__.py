"""``python -m benchmarks NAME [options]``: one module a name, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = {
    "kernels": "each op against published torch code, the numpy reference, memory bandwidth",
    "pipeline": "a query from picture to labels, by stage",
    "accuracy": "mean IoU on labelled sets, through the SDK",
    "memory": "peak resident memory of a query",
    "smcp": "two passes of a head that share, against plain ones; a query",
    "backends": "each backend in each precision: speed, mean IoU, size, parity",
    "online_mlp": "the online classifier against the training loop in torch",
    "gpu": "ops, classifier and pipeline on a CUDA device; see gpu_run.sh",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in NAMES:
        lines = [f"  {known:10} {what}" for known, what in NAMES.items()]
        print("usage: python -m benchmarks NAME [options]", *lines, sep="\n")
        print("Each takes --help, --json FILE and --plot FILE.")
        return 0 if name in ("-h", "--help") else 2
    result: int = import_module(f"benchmarks.{name}").main(sys.argv[2:])
    return result


if __name__ == "__main__":
    sys.exit(main())
