"""From an ONNX file to an engine: found in the cache, or built and kept there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from ...engines import Built, EngineCache, EngineKey, Obtained
from ...errors import BackendError
from ..graph import GraphSpec
from ..own_context import fits_device
from .api import Module
from .cuda import Cuda
from .driver import Device, choose_device, no_device, system_name
from .execution import load_engine
from .module import find_module
from .options import BuildOptions, profiles_of, read_options
from .plans import Progress, build_plan
from .runtime import TensorRtGraph

__all__ = ["COMPUTES", "build_engine", "engine_key", "obtain_engine", "open_engine", "precision_of"]

COMPUTES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""The precision of a file by the type that it computes in: networks are strongly typed."""

_LOG = logging.getLogger("fsseg_sdk.engines")


def precision_of(spec: GraphSpec, asked: str, backend: str) -> str:
    """The precision of the graph; BackendError where another was asked for."""
    here = COMPUTES[spec.compute]
    flavour = spec.flavour
    if asked not in ("auto", here) or (here == "int8" and flavour == "u8s8"):
        raise BackendError(
            f"backend {backend!r}, {spec.file}",
            expected=f"a graph that computes in {asked if asked != 'auto' else 'int8, symmetric'}",
            got=f"one that computes in {here}" + (f", {flavour}" if flavour else ""),
            remedy="Ask for that precision, or export the bundle in the other one: TensorRT takes "
            "the types from the file (int8 with zero points of 0, the flavour s8s8).",
        )
    return here


def engine_key(
    trt: Module,
    backend: str,
    device: Device,
    onnx: bytes,
    spec: GraphSpec,
    precision: str,
    options: BuildOptions,
) -> EngineKey:
    """All that an engine of this graph depends on here."""
    return EngineKey(
        graph=Path(spec.file).stem,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        runtime=backend,
        runtime_version=str(trt.__version__),
        system=system_name(),
        gpu=device.name or "unknown",
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        driver=device.driver,
        cuda=device.cuda,
        precision=precision,
        profiles=tuple(map(str, profiles_of(spec, options))),
        dla=options.dla,
    )


def obtain_engine(
    trt: Module,
    backend: str,
    device: Device,
    onnx: bytes,
    spec: GraphSpec,
    *,
    precision: str,
    options: BuildOptions,
    cache: EngineCache,
    progress: Progress | None = None,
    refused: str = "",
    say: Callable[[str], None] = _LOG.warning,
) -> Obtained:
    """The plan for this graph on this device. refused: why the cached one is of no use. say: is
    told what takes time."""
    key = engine_key(trt, backend, device, onnx, spec, precision, options)

    def build() -> Built:
        plan = build_plan(
            trt,
            onnx,
            spec,
            precision=precision,
            device=device,
            options=options,
            measured=cache.read_timing(key),
            measures=backend == "tensorrt",
            progress=progress,
        )
        if plan.timing is not None:
            cache.write_timing(key, plan.timing)
        notes = {
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(plan.seconds, 3),
            "layers": plan.layers,
            "workspace_mib": options.workspace,
            "log": list(plan.log[-20:]),
        }
        return Built(plan.data, notes)

    def starting(reason: str) -> None:
        say(
            f"building a {backend} engine for {key.graph} in {precision}, which can take minutes "
            f"({reason})"
        )

    def waiting() -> None:
        say("another process builds an engine; waiting for it")

    return cache.obtain(key, build, refused=refused, starting=starting, waiting=waiting)


def open_engine(
    backend: str, onnx: bytes, spec: GraphSpec, *, device: str, precision: str
) -> TensorRtGraph:
    """The graph on the device, ready to run. The driver is asked before TensorRT is imported."""
    driver, place = choose_device(device, backend)
    chosen = precision_of(spec, precision, backend)
    options = read_options()
    trt = find_module(backend)
    cuda = Cuda(driver.library, place, backend)
    cache = EngineCache()
    refused = ""
    for _ in range(2):
        with cuda.current():
            obtained = obtain_engine(
                trt,
                backend,
                place,
                onnx,
                spec,
                precision=chosen,
                options=options,
                cache=cache,
                refused=refused,
            )
        if obtained.unkept:
            _LOG.warning("the engine could not be kept: %s", obtained.unkept)
        loaded = load_engine(trt, obtained.plan, cuda, options)
        if not isinstance(loaded, str):
            return TensorRtGraph(
                trt,
                loaded,
                spec,
                backend=backend,
                device="cuda" if place.ordinal == 0 else f"cuda:{place.ordinal}",
                precision=chosen,
                batch=options.batch,
                on_device=fits_device(spec, place.ordinal),
            )
        # The header fits, and TensorRT still refuses: built once more, and then it is an error.
        refused = f"TensorRT refused it: {loaded}"
        if obtained.reason:
            break
    raise BackendError(
        f"backend {backend!r}, {spec.file}",
        expected="an engine that TensorRT can load again",
        got=refused,
        remedy="Run 'fsseg engine clear' and try again; if memory ran out, end what else runs.",
    )


def build_engine(
    backend: str,
    onnx: bytes,
    spec: GraphSpec,
    *,
    precision: str = "auto",
    device: str = "auto",
    options: BuildOptions | None = None,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    rebuild: bool = False,
    say: Callable[[str], None] = _LOG.warning,
) -> tuple[EngineKey, Obtained]:
    """Builds the engine of a graph without running it, for `fsseg engine build` and export.

    tensorrt-rtx can do that without a GPU (the key then says "none"); tensorrt cannot.
    """
    chosen = precision_of(spec, precision, backend)
    if backend == "tensorrt-rtx" and device == "none":
        place, scope = no_device(), None
    else:
        driver, place = choose_device(device, backend)
        scope = driver
    trt = find_module(backend)
    options = read_options() if options is None else options
    cache = EngineCache() if cache is None else cache

    def obtain() -> Obtained:
        return obtain_engine(
            trt,
            backend,
            place,
            onnx,
            spec,
            precision=chosen,
            options=options,
            cache=cache,
            progress=progress,
            refused="it was asked for" if rebuild else "",
            say=say,
        )

    key = engine_key(trt, backend, place, onnx, spec, chosen, options)
    if scope is None:
        return key, obtain()
    cuda = Cuda(scope.library, place, backend)
    with cuda.current():
        return key, obtain()
