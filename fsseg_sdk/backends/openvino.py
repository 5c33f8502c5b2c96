"""OpenVINO on the CPU, in float32, bfloat16 and int8. Imported when a graph is opened.

By itself OpenVINO computes float32 graphs in bfloat16 where the processor has it, and in float32
elsewhere. Here the precision is the one that was asked for: it is set, and the compiled model is
asked what its matrix products really run in.

Telemetry: `import openvino` reports to Intel unless a file in the home folder says no, by the
package openvino-telemetry. That package is hidden from the import here. If your program imports
openvino first, run `opt_in_out --opt_out` once, or uninstall openvino-telemetry.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .checks import cannot, check_feeds, check_outputs, check_process, choose_threads, one_line
from .graph import BackendStatus, GraphSpec, TensorInfo
from .signal_stack import kept_signal_stack

__all__ = ["FILES", "OpenVinoGraph", "devices", "open_graph", "probe"]

NAME = "openvino"
INSTALL = "pip install fsseg_sdk[openvino]"
FILES = MappingProxyType(
    {
        "fp32": (("float32", ""),),
        "bf16": (("float32", ""),),  # rounded as it runs
        "int8": (("int8", "s8s8"),),  # u8s8: a ViT's comes out wrong (2026.4), without an error
    }
)
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: of what is not quantised
_RUNS = {"fp32": {"f32"}, "bf16": {"bf16"}, "int8": {"i8", "u8"}}
_PRODUCTS = {"Convolution", "GroupConvolution", "FullyConnected", "MatMul"}
_TELEMETRY = "openvino_telemetry"

# Of models that a fork copies into a child: their threads stay behind, so destroying one may hang.
_MODELS: weakref.WeakSet[OpenVinoGraph] = weakref.WeakSet()


class OpenVinoGraph:
    """A compiled model. Immutable; `run` may be called from many threads, each call with an
    inference request of its own."""

    backend = NAME
    device = "cpu"

    def __init__(self, runtime: ModuleType, model: Any, spec: GraphSpec, precision: str) -> None:
        self._tensor = runtime.Tensor
        self._model = model
        self._free: list[Any] = [model.create_infer_request()]  # pop and append are atomic
        self._process = os.getpid()
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.precision = precision

    def __del__(self) -> None:
        with kept_signal_stack():
            self.__dict__.clear()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name. Raises InputError for arrays that the graph does not take and
        BackendError for a failure inside OpenVINO or a graph from before a fork."""
        check_process(self._process, NAME)
        arrays = check_feeds(self.inputs, feeds)
        try:
            with kept_signal_stack():
                results = self._infer(arrays)
        except Exception as error:
            raise BackendError(
                NAME,
                expected="the graph to run",
                got=one_line(error),
                remedy="If memory ran out, use a smaller batch; else run 'fsseg doctor'.",
            ) from error
        return check_outputs(self.outputs, results, NAME)

    def _infer(self, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            request = self._free.pop()
        except IndexError:
            request = self._model.create_infer_request()
        for name, array in arrays.items():
            # shared: read where it is. A read-only array can only be copied.
            request.set_tensor(name, self._tensor(array, shared_memory=array.flags.writeable))
        request.infer()
        results = [np.array(request.get_tensor(info.name).data) for info in self.outputs]
        self._free.append(request)  # after a failure it is dropped instead
        return results


def devices() -> tuple[str, ...]:
    return ("cpu",)


@kept_signal_stack()
def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> OpenVinoGraph:
    """Compiles the checked ONNX file `data`. Raises BackendError for what it cannot do."""
    if device != "cpu":
        raise cannot(NAME, "device", "'cpu'", repr(device))
    runtime = _import()
    count = choose_threads(threads)
    core = runtime.Core()
    if precision == "bf16" and not _has_bf16(core):
        raise cannot(NAME, "precision 'bf16'", "a processor with bfloat16", "one without")
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "EXECUTION_MODE_HINT": "PERFORMANCE" if precision == "bf16" else "ACCURACY",
        "INFERENCE_NUM_THREADS": count,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_HYPER_THREADING": True,  # else it may take fewer threads than it was given
        "ENABLE_CPU_PINNING": False,  # other processes of the machine would pin to the same cores
    }
    try:
        model = core.compile_model(core.read_model(data), "CPU", settings)
    except Exception as error:
        raise BackendError(
            f"{NAME}, {spec.file}",
            expected="a graph that OpenVINO can open",
            got=one_line(error),
            remedy="Export the bundle again, or update OpenVINO.",
        ) from error
    _compare(model, spec)
    _check_precision(model, spec, precision)
    graph = OpenVinoGraph(runtime, model, spec, precision)
    _MODELS.add(graph)
    return graph


@kept_signal_stack()
def probe(
    data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """Runs the graph features = image + 1 for real and says how that went."""
    version: str | None = None
    precisions = tuple(FILES)
    try:
        runtime = _import()
        version = str(runtime.__version__).split("-")[0]
        if not _has_bf16(runtime.Core()):
            precisions = tuple(name for name in FILES if name != "bf16")
        graph = open_graph(data, spec, device=device, precision="fp32", threads=1)
        right = np.array_equal(graph.run(feeds)["features"], feeds["image"] + 1)
    except BackendError as error:
        return BackendStatus(NAME, False, str(error), version, device, precisions)
    reason = "" if right else "it computes 1 + 1 wrongly on this machine"
    return BackendStatus(NAME, right, reason, version, device, precisions)


def _import() -> ModuleType:
    hidden = _TELEMETRY not in sys.modules and "openvino" not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = cast(ModuleType, None)  # what an import finds that finds nothing
    try:
        import openvino as runtime

        runtime.Core, runtime.__version__  # noqa: B018 (half an uninstall removes them)
    except (ImportError, AttributeError, OSError) as error:
        raise BackendError(
            f"backend {NAME!r}",
            expected="OpenVINO, which is not part of fsseg_sdk",
            got=one_line(error),
            remedy=INSTALL,
        ) from error
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)
    return cast(ModuleType, runtime)


def _has_bf16(core: Any, cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the processor multiplies bfloat16 by itself: emulated, it would be slower than
    float32."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return False
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            words = {word for line in file for word in line.split()}
    except OSError:
        return True  # no Linux: OpenVINO's word has to do
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & words)


def _compare(model: Any, spec: GraphSpec) -> None:
    """What OpenVINO understood against what the manifest says."""
    for declared, found in ((spec.inputs, model.inputs), (spec.outputs, model.outputs)):
        ports = {name: port for port in found for name in port.get_names()}
        for info in declared:
            port = ports.get(info.name)
            got = "nothing"
            if port is not None:
                dtype = np.dtype(port.get_element_type().to_dtype()).name
                shape = port.get_partial_shape()
                if dtype == info.dtype and len(shape) == len(info.shape):
                    continue
                got = f"{dtype} {shape}"
            raise BackendError(
                f"{NAME}, {spec.file}",
                expected=str(info),
                got=got,
                remedy="The bundle's manifest does not describe its graph; export it again.",
            )


def _check_precision(model: Any, spec: GraphSpec, precision: str) -> None:
    """What the compiled model's matrix products run in: all of them for fp32 and bf16, some for
    int8, where a bundle may keep layers in higher precision."""
    found = []
    for node in model.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) in _PRODUCTS:
            found.append(str(info["runtimePrecision"].astype(str)))
    right = [name for name in found if name in _RUNS[precision]]
    hint = str(model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    enough = bool(right) if precision == "int8" else len(right) == len(found)
    if (found and not enough) or hint != _HINTS[precision]:
        raise BackendError(
            f"{NAME}, {spec.file}, precision {precision!r}",
            expected=f"matrix products in {' or '.join(sorted(_RUNS[precision]))}",
            got=f"{', '.join(sorted(set(found)))}, hint {hint}",
            remedy="Choose another precision, or another backend for this one.",
        )


def _keep_models() -> None:
    """In a forked child: one reference more than anything ever gives back."""
    for graph in list(_MODELS):
        for kept in (graph._model, *graph._free):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_models)
