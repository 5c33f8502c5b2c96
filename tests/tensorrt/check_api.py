"""Holds `fsseg_sdk.backends.tensorrt.api` against real bindings: every name, every parameter.

    python -m tests.tensorrt.check_api MODULE

prints what differs, one line each, and fails if there is something.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fsseg_sdk.backends.tensorrt import api


def check(trt: Any) -> list[str]:
    """What of `api` the module does not have, in words."""
    problems = []
    for protocol in api.PROTOCOLS:
        name = protocol.__name__
        real = getattr(trt, name, None)
        if real is None:
            problems.append(f"{name} is missing")
            continue
        problems += [
            f"{name}.{attribute} is missing"
            for attribute in protocol.__annotations__
            if not hasattr(real, attribute)
        ]
        for method, function in inspect.getmembers(protocol, inspect.isfunction):
            if not method.startswith("_"):
                wanted = list(inspect.signature(function).parameters)[1:]
                problems += _signature(real, name, method, wanted)
    for name, parameters in api.CONSTRUCTORS.items():
        problems += _signature(getattr(trt, name), name, "__init__", list(parameters))
    for name, members in api.ENUMS.items():
        real = getattr(trt, name)
        problems += [f"{name}.{one} is missing" for one in members if not hasattr(real, one)]
    major = int(trt.__version__.split(".")[0])
    if (major == 10) != hasattr(trt.BuilderFlag, "FP16"):
        problems.append("weak typing: expected in 10.x alone")
    return sorted(problems)


def _signature(real: Any, name: str, method: str, wanted: list[str]) -> list[str]:
    found = getattr(real, method, None)
    if found is None:
        return [f"{name}.{method} is missing"]
    overloads = _overloads(found.__doc__ or "", method)
    for parameters in overloads:
        required = {parameter for parameter, default in parameters if not default}
        if required <= set(wanted) <= {parameter for parameter, _ in parameters}:
            return []
    return [f"{name}.{method}: expected ({', '.join(wanted)}), got {overloads}"]


def _overloads(doc: str, method: str) -> list[list[tuple[str, bool]]]:
    """(parameter, whether it has a default) of each signature that pybind11 wrote down."""
    overloads = []
    for line in doc.splitlines():
        matched = re.match(rf"\s*(?:\d+\. )?{re.escape(method)}\((self.*)\) -> ", line)
        if matched is None:
            continue
        depth, parts = 0, [""]
        for letter in matched[1]:
            depth += {"[": 1, "<": 1, "(": 1, "]": -1, ">": -1, ")": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += letter
        overloads.append([(p.split(":")[0].strip(), " = " in p) for p in parts[1:]])
    return overloads


def main() -> int:
    module = import_module(sys.argv[1])
    problems = check(module)
    print(f"{sys.argv[1]} {module.__version__}: {len(problems)} problems", *problems, sep="\n  ")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
