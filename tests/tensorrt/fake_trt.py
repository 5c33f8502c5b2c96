"""TensorRT without TensorRT: the names of `api`, with ONNX Runtime behind them.

A "plan" is the ONNX file with a mark in front, and an execution reads and writes the memory that
the fake driver gave out. What the code under test asks for is noted in `Fake.said`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import onnx

MARK = b"FAKEPLAN"


class BuilderFlag(IntEnum):
    TF32 = 1
    GPU_FALLBACK = 2


class WeakBuilderFlag(IntEnum):
    TF32 = 1
    GPU_FALLBACK = 2
    FP16 = 3


class Kinds(IntEnum):
    STRONGLY_TYPED = 1
    WORKSPACE = 0
    INPUT = 11
    OUTPUT = 12
    DEVICE = 13
    DLA = 14
    FLOAT, HALF, INT8, INT32, INT64, BOOL, UINT8 = 21, 22, 23, 24, 25, 26, 27


class Severity(IntEnum):
    ERROR = 1
    INFO = 3


class ILogger:
    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None: ...


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Fake:
    """The module. driver: the fake driver's library; fail: names of what shall go wrong."""

    def __init__(self, driver: Any, version: str = "11.4.0.106", dla: int = 0) -> None:
        self.__version__ = version
        self.driver, self.dla = driver, dla
        self.fail: set[str] = set()
        self.said: list[tuple[Any, ...]] = []
        self.ILogger, self.IProgressMonitor = ILogger, IProgressMonitor
        self.BuilderFlag = BuilderFlag if version.startswith("11") else WeakBuilderFlag
        for name in ("NetworkDefinitionCreationFlag", "MemoryPoolType", "TensorIOMode"):
            setattr(self, name, Kinds)
        self.TensorLocation = self.DeviceType = self.DataType = Kinds
        self.IHostMemory = IHostMemory
        self.ITimingCache = TimingCache
        self.IExecutionContext, self.ICudaEngine = IExecutionContext, ICudaEngine
        self.IOptimizationProfile, self.IBuilderConfig = OptimizationProfile, BuilderConfig
        self.INetworkDefinition, self.ParserError = Network, ParserError

    def Builder(self, logger: Any) -> Builder:
        return Builder(self, logger)

    def OnnxParser(self, network: Network, logger: Any) -> OnnxParser:
        return OnnxParser(self, network, logger)

    def Runtime(self, logger: Any) -> Runtime:
        return Runtime(self, logger)


class Tensor:
    def __init__(self, value: Any) -> None:
        self.name = value.name
        dims = value.type.tensor_type.shape.dim
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
        self.kind = value.type.tensor_type.elem_type


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data + b"t")


class Network:
    onnx = b""
    num_layers = 3


class ParserError:
    def desc(self) -> str:
        return "Antialiasing is not supported"

    def node(self) -> int:
        return 65

    def node_name(self) -> str:
        return "resize"

    def node_operator(self) -> str:
        return "Resize"


class OptimizationProfile:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.fake.said.append(("profile", input, min, opt, max))


class BuilderConfig:
    progress_monitor: Any = None
    default_device_type: Any = None
    DLA_core = -1

    def __init__(self, fake: Fake) -> None:
        self.fake, self.timing = fake, TimingCache(b"")

    def set_flag(self, flag: Any) -> None:
        self.fake.said.append(("set_flag", flag.name))

    def clear_flag(self, flag: Any) -> None:
        self.fake.said.append(("clear_flag", flag.name))

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        return TimingCache(serialized_timing_cache)

    def get_timing_cache(self) -> TimingCache:
        return self.timing

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.timing = cache
        self.fake.said.append(("timing", cache.data))
        return True

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.fake.said.append(("workspace", pool_size))


class Builder:
    def __init__(self, fake: Fake, logger: Any) -> None:
        self.fake, self.logger = fake, logger
        self.num_DLA_cores = fake.dla

    def create_network(self, flags: int = 0) -> Network:
        self.fake.said.append(("network", flags))
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self.fake)

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile(self.fake)

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any:
        self.fake.said.append(("build", config.default_device_type, config.DLA_core))
        self.logger.log(Severity.INFO, "building")
        if "build" in self.fake.fail:
            self.logger.log(Severity.ERROR, "out of tactics")
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building engine", "", 3)
            for step in range(3):
                if not monitor.step_complete("Building engine", step):
                    return None
            monitor.phase_finish("Building engine")
        return IHostMemory(MARK + network.onnx)


class OnnxParser:
    num_errors = 1

    def __init__(self, fake: Fake, network: Network, logger: Any) -> None:
        self.fake, self.network = fake, network

    def parse(self, model: bytes, path: Any = None) -> bool:
        self.network.onnx = model
        return "parse" not in self.fake.fail

    def get_error(self, index: int) -> ParserError:
        return ParserError()

    def set_flag(self, flag: Any) -> None: ...


class Runtime:
    DLA_core = -1

    def __init__(self, fake: Fake, logger: Any) -> None:
        self.fake, self.logger = fake, logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        data = bytes(serialized_engine)
        self.fake.said.append(("deserialize", len(data)))
        if "deserialize" in self.fake.fail or not data.startswith(MARK):
            self.fake.fail.discard("deserialize-once")
            self.logger.log(Severity.ERROR, "magic tag does not match")
            return None
        if "deserialize-once" in self.fake.fail:
            self.fake.fail.discard("deserialize-once")
            self.logger.log(Severity.ERROR, "an engine of another platform")
            return None
        return ICudaEngine(self.fake, data[len(MARK) :])


class ICudaEngine:
    def __init__(self, fake: Fake, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.fake = fake
        self.session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load_from_string(data).graph
        self.inputs = [Tensor(value) for value in graph.input]
        self.outputs = [Tensor(value) for value in graph.output]
        self.tensors = {t.name: t for t in (*self.inputs, *self.outputs)}
        self.num_io_tensors = len(self.tensors)

    def __del__(self) -> None:
        self.fake.said.append(("destroyed",))

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return Kinds.INPUT if name in [t.name for t in self.inputs] else Kinds.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return {1: Kinds.FLOAT, 10: Kinds.HALF}[self.tensors[name].kind]

    def get_tensor_location(self, name: str) -> Any:
        return Kinds.DEVICE

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        return self.tensors[name].shape

    def create_execution_context(self, strategy: Any = None) -> Any:
        self.fake.said.append(("context",))
        return None if "context" in self.fake.fail else IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine, self.fake = engine, engine.fake
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.callbacks: dict[Any, Any] = {}  # kept as long as the graphs that call them

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self.shapes[name] = tuple(shape)
        return "shape" not in self.fake.fail

    def infer_shapes(self) -> Sequence[str]:
        return [t.name for t in self.engine.inputs if t.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        if name in self.shapes:
            return self.shapes[name]
        batch = next(iter(self.shapes.values()))[0]
        return [batch if length == -1 else length for length in self.engine.tensors[name].shape]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory != 0 and memory % 256 == 0 and "address" not in self.fake.fail

    def execute_async_v3(self, stream_handle: int) -> bool:
        if "execute" in self.fake.fail:
            return False
        if "execute-captured" in self.fake.fail and self.fake.driver.fake_capturing(
            ctypes.c_void_p(stream_handle)
        ):
            return False
        addresses = dict(self.addresses)  # of now: what is recorded reads and writes there
        key = tuple(addresses.items())
        if key not in self.callbacks:
            self.callbacks[key] = ctypes.CFUNCTYPE(None)(partial(self._compute, addresses))
        driver = self.fake.driver
        return driver.fake_record(ctypes.c_void_p(stream_handle), self.callbacks[key]) == 0

    def _compute(self, addresses: dict[str, int]) -> None:
        feeds = {t.name: self._memory(t.name, addresses) for t in self.engine.inputs}
        names = [t.name for t in self.engine.outputs]
        for name, value in zip(names, self.engine.session.run(names, feeds), strict=True):
            self._memory(name, addresses)[...] = value

    def _memory(self, name: str, addresses: dict[str, int]) -> np.ndarray[Any, Any]:
        shape = tuple(self.get_tensor_shape(name))
        size = 4 * math.prod(shape)
        memory = (ctypes.c_uint8 * size).from_address(addresses[name])
        return np.frombuffer(memory, np.float32).reshape(shape)
