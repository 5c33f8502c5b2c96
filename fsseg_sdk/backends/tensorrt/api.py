"""Every name of TensorRT that this package uses, with its parameters, as types.

TensorRT's wheels have no type stubs, and its names change between versions. A test holds these
against the real bindings of TensorRT 10.3, 10.16 and 11.4 and of TensorRT-RTX 1.7: each class, each
attribute, each parameter (`tests/tensorrt`). What only some versions have stands in `SOMETIMES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

SOMETIMES = {
    "BuilderFlag": {"FP16"},  # weak typing, which 11 removed
    "OnnxParserFlag": {"ADJUST_FOR_DLA"},
}
"""Names outside the protocols that are used where they exist, with getattr."""

ENUMS = {
    "BuilderFlag": {"TF32", "GPU_FALLBACK"},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"},
    "MemoryPoolType": {"WORKSPACE"},
    "TensorIOMode": {"INPUT", "OUTPUT"},
    "TensorLocation": {"DEVICE"},
    "DeviceType": {"DLA"},
    "DataType": {"FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8"},
}
"""Members of enumerations that are used; every version has them."""


class ILogger(Protocol):
    def log(self, severity: Any, msg: str) -> None: ...


class IProgressMonitor(Protocol):
    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool: ...

    def phase_finish(self, phase_name: str) -> None: ...


class IHostMemory(Protocol):
    nbytes: int


class INetworkDefinition(Protocol):
    num_layers: int


class IOptimizationProfile(Protocol):
    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None: ...


class ITimingCache(Protocol):
    def serialize(self) -> IHostMemory: ...


class IBuilderConfig(Protocol):
    progress_monitor: Any
    default_device_type: Any
    DLA_core: int

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...

    def clear_flag(self, flag: Any) -> None: ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...

    def get_timing_cache(self) -> ITimingCache | None: ...

    def set_flag(self, flag: Any) -> None: ...

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...


class Builder(Protocol):
    num_DLA_cores: int

    def create_network(self, flags: int) -> INetworkDefinition: ...

    def create_builder_config(self) -> IBuilderConfig: ...

    def create_optimization_profile(self) -> IOptimizationProfile: ...

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None: ...


class ParserError(Protocol):
    def desc(self) -> str: ...

    def node(self) -> int: ...

    def node_name(self) -> str: ...

    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    num_errors: int

    def parse(self, model: bytes) -> bool: ...

    def get_error(self, index: int) -> ParserError: ...

    def set_flag(self, flag: Any) -> None: ...


class IExecutionContext(Protocol):
    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...

    def get_tensor_shape(self, name: str) -> Sequence[int]: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def infer_shapes(self) -> Sequence[str]: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Any: ...

    def get_tensor_dtype(self, name: str) -> Any: ...

    def get_tensor_location(self, name: str) -> Any: ...

    def get_tensor_shape(self, name: str) -> Sequence[int]: ...

    def create_execution_context(self) -> IExecutionContext | None: ...


class Runtime(Protocol):
    DLA_core: int

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None: ...


PROTOCOLS = (
    ILogger, IProgressMonitor, IHostMemory, INetworkDefinition, IOptimizationProfile,
    ITimingCache, IBuilderConfig, Builder, ParserError, OnnxParser, IExecutionContext, ICudaEngine,
    Runtime,
)  # fmt: skip
CONSTRUCTORS = {"Builder": ("logger",), "OnnxParser": ("network", "logger"), "Runtime": ("logger",)}


class Module(Protocol):
    """`tensorrt` or `tensorrt_rtx_bindings`. Enumerations and base classes are `Any`: they are
    real classes, of which subclasses are made."""

    __version__: str
    ILogger: Any
    IProgressMonitor: Any
    BuilderFlag: Any
    NetworkDefinitionCreationFlag: Any
    MemoryPoolType: Any
    TensorIOMode: Any
    TensorLocation: Any
    DeviceType: Any
    DataType: Any

    def Builder(self, logger: Any) -> Builder: ...

    def OnnxParser(self, network: INetworkDefinition, logger: Any) -> OnnxParser: ...

    def Runtime(self, logger: Any) -> Runtime: ...
