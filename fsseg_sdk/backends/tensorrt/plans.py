"""ONNX bytes to a TensorRT plan: strongly typed, so the graph alone says what is computed in what.

Works with TensorRT 10.3 to 11.x and with TensorRT-RTX, which is the module it is given. TF32 is off
for fp32: eleven bits of a sum are not float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ...errors import BackendError
from ..graph import GraphSpec
from .api import Builder, IBuilderConfig, INetworkDefinition, Module, OnnxParser
from .driver import Device
from .module import Log, make_logger
from .options import BuildOptions, profiles_of

__all__ = ["Plan", "Progress", "build_plan"]

Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, its finished steps and how many it has."""

_SMALL_BOARD = 16 << 30  # at most this much memory, shared with the CPU: leave most of it alone


@dataclass(frozen=True, eq=False)
class Plan:
    """data: the serialised engine. timing: what was measured on the way, for the next build."""

    data: bytes
    timing: bytes | None
    seconds: float
    layers: int
    log: tuple[str, ...]


def build_plan(
    trt: Module,
    onnx: bytes,
    spec: GraphSpec,
    *,
    precision: str,
    device: Device,
    options: BuildOptions,
    measured: bytes | None = None,
    measures: bool = True,
    progress: Progress | None = None,
) -> Plan:
    """Builds; takes seconds on a server and minutes on a small board.

    measured: what earlier builds measured (`Plan.timing`). measures: False where the module keeps
    no such thing (TensorRT-RTX). Raises BackendError with TensorRT's own reason; Ctrl-C and what
    `progress` raises end the build.
    """
    begin = perf_counter()
    log = Log()
    logger = make_logger(trt, log)
    monitor = None
    try:
        builder = trt.Builder(logger)
        network = _network(trt, builder, options)
        parser = trt.OnnxParser(network, logger)
        _parse(trt, parser, onnx, spec, options, log)
        config = builder.create_builder_config()
        _configure(trt, builder, config, spec, precision, device, options)
        if measures and measured is not None:
            config.set_timing_cache(config.create_timing_cache(measured), False)
        if progress is not None:
            monitor = _make_monitor(trt, progress)
            config.progress_monitor = monitor
        serialised = builder.build_serialized_network(network, config)
    except (TypeError, RuntimeError, ValueError) as error:  # what the bindings raise
        raise _failed(spec, " ".join(str(error).split())[:200], log) from error
    if monitor is not None and monitor.stopped is not None:
        raise monitor.stopped
    if serialised is None:
        raise _failed(spec, "no engine", log)
    cache = config.get_timing_cache() if measures else None
    timing = bytes(cache.serialize()) if cache is not None else None  # type: ignore[call-overload]
    data = bytes(serialised)  # type: ignore[call-overload]
    return Plan(data, timing, perf_counter() - begin, network.num_layers, tuple(log.lines))


def _network(trt: Module, builder: Builder, options: BuildOptions) -> INetworkDefinition:
    # The accelerator of TensorRT 10.x takes no strongly typed network, that of 11.4 no other.
    if options.dla >= 0 and hasattr(trt.BuilderFlag, "FP16"):
        return builder.create_network(0)
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _parse(
    trt: Module, parser: OnnxParser, onnx: bytes, spec: GraphSpec, options: BuildOptions, log: Log
) -> None:
    adjust = getattr(getattr(trt, "OnnxParserFlag", None), "ADJUST_FOR_DLA", None)
    if options.dla >= 0 and adjust is not None:
        parser.set_flag(adjust)
    if parser.parse(onnx):
        return
    faults = []
    for index in range(parser.num_errors):
        fault = parser.get_error(index)
        faults.append(
            f"node {fault.node()} {fault.node_name()!r} ({fault.node_operator()}): {fault.desc()}"
        )
    text = " ".join("; ".join(faults[:2]).split()) or log.worst()
    raise BackendError(
        f"graph {spec.file!r}",
        expected="one that TensorRT can parse",
        got=text[:400],
        remedy="Export the graph again with 'python -m export', or use another precision.",
    )


def _configure(
    trt: Module,
    builder: Builder,
    config: IBuilderConfig,
    spec: GraphSpec,
    precision: str,
    device: Device,
    options: BuildOptions,
) -> None:
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    workspace = options.workspace
    if workspace is None and device.integrated and device.memory_bytes <= _SMALL_BOARD:
        workspace = max(device.memory_bytes // 8 >> 20, 16)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    profiles = profiles_of(spec, options)
    if profiles:
        shapes = builder.create_optimization_profile()
        for profile in profiles:
            shapes.set_shape(profile.name, profile.least, profile.best, profile.most)
        config.add_optimization_profile(shapes)
    if options.dla >= 0:
        _use_dla(trt, builder, config, precision, options.dla)


def _use_dla(
    trt: Module, builder: Builder, config: IBuilderConfig, precision: str, core: int
) -> None:
    weak = getattr(trt.BuilderFlag, "FP16", None)
    allowed = ("fp16",) if weak is not None else ("fp16", "int8")
    if builder.num_DLA_cores <= core or precision not in allowed:
        raise BackendError(
            "dla",
            expected=f"a core from 0 to {builder.num_DLA_cores - 1} and precision "
            f"{' or '.join(allowed)}"
            if builder.num_DLA_cores
            else "a device and a TensorRT with a deep learning accelerator (Orin; TensorRT up to "
            "10.7, or 11.4.1 and newer)",
            got=f"core {core} in {precision}",
            remedy="Leave the option out to use the GPU.",
        )
    if weak is not None:
        config.set_flag(weak)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # layers that the accelerator does not have


def _make_monitor(trt: Module, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Called from TensorRT: nothing may be raised through it, so what is goes to `stopped`."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._totals.pop(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if self.stopped is None:
                    progress(phase, done, self._totals.get(phase, done))
            except BaseException as error:  # noqa: BLE001 (raised again after the build)
                self.stopped = error

    return Monitor()


def _failed(spec: GraphSpec, got: str, log: Log) -> BackendError:
    return BackendError(
        f"graph {spec.file!r}",
        expected="an engine that TensorRT can build",
        got=f"{got}: {log.worst()}",
        remedy="If memory ran out, close other programs or set FSSEG_TENSORRT=workspace=256; "
        "else try another precision.",
    )
