"""Which backends there are, and in which order `auto` tries them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .choice import Kinds, find_file
from .graph import GraphFile, GraphSpec

__all__ = ["NAMES", "ORDER", "all_kinds", "file_for", "kinds", "module_of", "names", "order"]

NAMES = ("tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt", "openvino")
"""All backends. Each is a module of this package, with '_' for '-'."""

ORDER = ("tensorrt", "tensorrt-rtx", "onnxruntime", "openvino")
"""What `auto` tries. ONNX Runtime's TensorRT provider is not among them: it builds an engine each
time that it loads, which takes minutes."""


def names() -> tuple[str, ...]:
    """The backends that this version knows."""
    return NAMES


def order(precision: str = "fp32") -> tuple[str, ...]:
    """The backends that `auto` tries for a precision, first to last. On a CPU OpenVINO alone has
    bf16, and it runs the s8s8 that is slow in ONNX Runtime, which goes last for these two."""
    last = "onnxruntime" if precision in ("bf16", "int8") else ""
    return tuple(sorted(ORDER, key=lambda name: name == last))


def module_of(name: str) -> ModuleType:
    """The backend's module; its runtime is not imported by that."""
    return import_module(f"{__package__}.{name.replace('-', '_')}")


def kinds(name: str) -> Kinds:
    """What the backend declares as FILES."""
    found: Kinds = module_of(name).FILES
    return found


def all_kinds() -> dict[str, Kinds]:
    """Of every backend, for errors that say which one would do."""
    return {name: kinds(name) for name in NAMES}


def file_for(spec: GraphSpec, backend: str, precision: str) -> GraphFile | None:
    """The file of a graph that a backend takes for a precision; None where there is none."""
    return find_file(spec, kinds(backend).get(precision, ()))
