"""A few small cases of every op on the device, for tools under which everything is slow.

    python -m benchmarks.gpu_cases [MOST]       cases of an op at most (3); no torch is loaded

The conformance suite's smallest cases, spread over each op's; float32 and float16 features. The
exit status says whether all results were right.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np

from fsseg_sdk import ops
from fsseg_sdk.errors import FssegError
from fsseg_sdk.ops.device import device_state

# The suite itself is no part of what benchmarks are checked with.
_suite = {
    name: import_module(f"tests.ops.{name}") for name in ("cases", "compare", "device", "raw")
}
HALVES: dict[str, float] = _suite["device"].HALVES
Case = Any

LARGEST = 1 << 20  # bytes of all arguments of a case


def chosen(most: int) -> list[Case]:
    """Of each op ``most`` cases of different sizes, none large, none empty."""
    cases, mapped = _suite["cases"].all_cases(), _suite["raw"].mapped
    found: list[Case] = []
    for op in _suite["cases"].OPS:
        sized: list[tuple[int, Case]] = []
        for case in (c for c in cases if c.op == op):
            sizes: list[int] = []
            mapped(case.arguments(), lambda array, s=sizes: s.append(array.nbytes))
            if 0 not in sizes and sum(sizes) <= LARGEST:
                sized.append((sum(sizes), case))
        sized.sort(key=lambda pair: pair[0])
        places = np.unique(np.linspace(0, len(sized) - 1, most + 1).astype(int)[1:])
        found += [sized[place][1] for place in places]
    return found


def wrong(case: Case, dtype: str | None) -> str | None:
    """None if the device gives what the op must give; of float16 features if dtype says so."""
    raw, device = _suite["raw"], _suite["device"]
    arguments: dict[str, Any] = case.arguments()
    if dtype is not None:
        pairs = arguments.get("samples") or [(arguments["features"], None)]
        if any(float(np.abs(f).max(initial=0)) > HALVES[dtype] for f, _ in pairs):
            return None  # values that the dtype has not
        if "samples" in arguments:
            arguments["samples"] = [(device.rounded(f, dtype), t) for f, t in arguments["samples"]]
        else:
            arguments["features"] = device.rounded(arguments["features"], dtype)
    expected = raw.expected_of(case.op, arguments)
    result = raw.call(case.op, device.moved(arguments, ops.default_context(), dtype))
    said: str | None = _suite["compare"].difference(case.op, result, arguments, expected)
    return said


def main() -> int:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if not device_state()["devices"]:
        print(f"no device: {device_state()['reason']}")
        return 2
    count = failed = 0
    for case in chosen(most):
        halves = "features" in case.arguments() or "samples" in case.arguments()
        for dtype in (None, "float16") if halves else (None,):
            count += 1
            try:
                said = wrong(case, dtype)
            except (FssegError, RuntimeError, ValueError) as error:
                said = f"{type(error).__name__}: {error}"
            if said is not None:
                failed += 1
                print(f"WRONG {case} {dtype or ''}: {said}")
    print(f"{count} cases, {failed} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
