"""ONNX Runtime: on the CPU in float32 and int8, on NVIDIA GPUs by its CUDA provider.

int8 on the CPU wants activations in uint8 (u8s8). The symmetric s8s8 flavour, which TensorRT needs,
takes a slow path there, so such a graph carries a warning. float16 is not faster on a
CPU, where ONNX Runtime converts to float32 around each operator; on a GPU it is.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, FssegError
from .checks import (
    cannot,
    check_feeds,
    check_outputs,
    check_process,
    check_shapes,
    choose_threads,
    one_line,
)
from .graph import BackendStatus, GraphSpec, TensorInfo
from .ort_session import CPU, import_runtime, installed_twice, open_session
from .own_context import OwnContext, fits_device

if TYPE_CHECKING:
    from ..ops import DeviceArray, DeviceContext

__all__ = ["FILES", "OnnxRuntimeGraph", "devices", "open_graph", "preload_cuda", "probe"]

NAME = "onnxruntime"
INSTALL = "pip install fsseg_sdk[cpu]"
FILES = MappingProxyType(
    {
        "fp32": (("float32", ""),),
        "fp16": (("float16", ""),),
        "int8": (("int8", "u8s8"), ("int8", "s8s8"), ("int8", "")),
    }
)
CUDA = "CUDAExecutionProvider"
_CUDA_PRECISIONS = ("fp32", "fp16")
_CUDA_OPTIONS = {
    "use_tf32": "0",  # else float32 has 11 bits of 24 on Ampere and newer
    "arena_extend_strategy": "kSameAsRequested",  # by default it takes powers of two
}
_WARNINGS = {
    ("int8", "s8s8"): "int8 in the flavour s8s8 is slow on ONNX Runtime's CPU: export u8s8, or use "
    "the backend 'openvino'",
    (
        "float16",
        "",
    ): "fp16 is slow on ONNX Runtime's CPU, which converts to float32 and back around "
    "each operator: use fp32",
}
_SATURATES = (
    "this processor multiplies int8 without VNNI, where ONNX Runtime's sums of two products may "
    "saturate: compare with 'fsseg bundle verify', or use fp32"
)
_X86 = ("x86_64", "amd64")
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8"}


class OnnxRuntimeGraph:
    """A graph in an ONNX Runtime session. Immutable; `run` may be called from many threads."""

    capturable = False  # the session works on a stream of its own, and is waited for

    def __init__(
        self,
        session: Any,
        spec: GraphSpec,
        *,
        backend: str = NAME,
        device: str = "cpu",
        precision: str = "fp32",
        warnings: tuple[str, ...] = (),
        on_device: bool = False,
    ) -> None:
        """on_device: it has a context on the first GPU, one for each thread."""
        self._session = session
        self._names = [info.name for info in spec.outputs]
        self._process = os.getpid()
        self._own = OwnContext(0, self._process, backend) if on_device else None
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.backend = backend
        self.device = device
        self.precision = precision
        self.warnings = warnings

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name. Raises InputError for arrays that the graph does not take and
        BackendError for a failure inside ONNX Runtime or a graph from before a fork."""
        check_process(self._process, self.backend)
        arrays = check_feeds(self.inputs, feeds)
        try:
            results = (
                self._session.run(self._names, arrays)
                if self.device == "cpu"
                else (self._run_bound(arrays))
            )
        except Exception as error:
            raise self._failed(error) from error
        return check_outputs(self.outputs, results, self.backend)

    def _failed(self, error: Exception) -> BackendError:
        return BackendError(
            self.backend,
            expected="the graph to run",
            got=one_line(error),
            remedy="If memory ran out, use a smaller batch; else run 'fsseg doctor'.",
        )

    def _run_bound(self, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """By an IO binding of this call's own: the arrays are read where they are, and each
        output is copied off the device once."""
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    @property
    def context(self) -> DeviceContext | None:
        """This thread's. BackendError in a process from after a fork."""
        return None if self._own is None else self._own.get()

    def run_on_device(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """As `run`, on arrays of `context`: read and written where they are."""
        context = self.context
        if context is None:
            raise cannot(NAME, "arrays on a device", "a graph that has a context", "one without")
        check_shapes(self.inputs, feeds)
        batch = next(iter(feeds.values())).shape[0]
        outputs = {
            info.name: context.empty([batch, *info.shape[1:]], info.dtype) for info in self.outputs
        }
        try:
            binding = self._session.io_binding()
            for bind, arrays in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
                for name, array in arrays.items():
                    kind = np.dtype(array.dtype).type
                    bind(name, "cuda", context.device, kind, list(array.shape), array.pointer)
            context._wait()  # the session has a stream of its own; it waits for that by itself
            self._session.run_with_iobinding(binding)
        except FssegError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        return outputs

    def warm_up(self) -> None:
        """Runs zeros once. A GPU that a wheel has no code for is only noticed there."""
        self.run(
            {
                info.name: np.zeros([max(length, 1) for length in info.shape], info.dtype)
                for info in self.inputs
            }
        )


def devices() -> tuple[str, ...]:
    """ "cuda" where the installed package has that provider (which needs no GPU), and "cpu"."""
    try:
        listed = import_runtime(NAME, INSTALL).get_available_providers()
    except BackendError:
        return ("cpu",)
    return ("cuda", "cpu") if CUDA in listed else ("cpu",)


def open_graph(
    data: bytes, spec: GraphSpec, *, device: str, precision: str, threads: int | None
) -> OnnxRuntimeGraph:
    """A session for the checked ONNX file `data`. Raises BackendError for what it cannot do."""
    if device not in ("cpu", "cuda"):
        raise cannot(NAME, "device", "'cpu' or 'cuda'", repr(device))
    if device == "cuda" and precision not in _CUDA_PRECISIONS:
        can = " or ".join(map(repr, _CUDA_PRECISIONS))
        raise cannot(NAME, "precision on 'cuda'", can, repr(precision))
    runtime = import_runtime(NAME, INSTALL)
    count = choose_threads(threads)
    if device == "cpu":
        session = open_session(runtime, data, spec, [CPU], count, NAME)
        return OnnxRuntimeGraph(session, spec, precision=precision, warnings=_cpu_warnings(spec))
    preload_cuda(runtime)
    session = open_session(runtime, data, spec, [(CUDA, dict(_CUDA_OPTIONS)), CPU], count, NAME)
    near = fits_device(spec, 0)
    graph = OnnxRuntimeGraph(session, spec, device=device, precision=precision, on_device=near)
    graph.warm_up()
    return graph


def _cpu_warnings(spec: GraphSpec) -> tuple[str, ...]:
    kind = spec.compute, spec.flavour
    if kind == ("int8", "u8s8") and saturates():
        return (_SATURATES,)
    return (_WARNINGS[kind],) if kind in _WARNINGS else ()


def saturates(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether uint8 by int8 goes through 16-bit sums here: x86 without VNNI, as far as the system
    says."""
    if platform.machine().lower() not in _X86:
        return False
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            words = {word for line in file if line.startswith("flags") for word in line.split()}
    except OSError:
        return False  # no Linux
    return bool(words) and not words & _DOT_PRODUCTS


def preload_cuda(runtime: Any) -> None:
    """Loads CUDA and cuDNN from the wheels 'nvidia-*', where those are installed: ONNX Runtime
    looks for them in the system alone. Not for a build without CUDA: up to 1.23, the last one for
    Python 3.10, that prints a warning where the caller's own output goes."""
    if CUDA not in runtime.get_available_providers() or find_spec("nvidia") is None:
        return
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls(directory="")


def probe(
    data: bytes, spec: GraphSpec, feeds: Mapping[str, NDArray[Any]], device: str
) -> BackendStatus:
    """Runs the graph features = image + 1 for real and says how that went."""
    version: str | None = None
    precisions = _CUDA_PRECISIONS if device == "cuda" else tuple(FILES)
    try:
        version = str(import_runtime(NAME, INSTALL).__version__)
        graph = open_graph(data, spec, device=device, precision="fp32", threads=1)
        right = np.array_equal(graph.run(feeds)["features"], feeds["image"] + 1)
    except BackendError as error:
        return BackendStatus(NAME, False, str(error), version, device, precisions)
    reason = installed_twice() if right else "it computes 1 + 1 wrongly on this machine"
    return BackendStatus(NAME, right, reason, version, device, precisions)
