"""Where benchmarks.gpu measures: a CUDA device, or the emulated one, on which nothing is timed.

Work is put on one stream, torch's and that of the ops alike. A time is the median of replays of a
CUDA graph of many nodes, between two events, over the number of nodes; each node takes the next of
several sets of inputs, so that none finds its own in a cache where the sets are larger than that.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fsseg_sdk import _kernels, ops

NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
SHORT = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
REPLAYS = 15
Call = Callable[[], Any]


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return said[0] if said else "unknown"


class Device:
    """What torch and the ops do on it, and how long that takes."""

    emulated = "emulated" in _kernels.cuda_reason
    timed = not emulated

    def __init__(self) -> None:
        self._held: list[Any] | None = None  # what a capture in progress has borrowed
        self._kept: list[Any] = []
        if not _kernels.cuda_built:
            raise SystemExit(f"this build has no CUDA: {_kernels.cuda_reason}")
        self.kind = torch.device("cpu" if self.emulated else "cuda")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        if self.emulated:
            self.context = ops.DeviceContext()
            self.cache = 0
        else:
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            torch.cuda.set_stream(self.stream)
            self.context = ops.DeviceContext(torch.cuda.current_device(), self.stream.cuda_stream)
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            self.cache = int(getattr(properties, "L2_cache_size", 0))

    # ---- arrays ----
    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.kind).manual_seed(seed)

    def array(self, tensor: torch.Tensor) -> Any:
        """A torch tensor as the ops see it: where it is; a copy for the emulated device."""
        tensor = tensor.detach().contiguous()
        if not self.emulated:
            found = self.context._from_dlpack(tensor, "tensor")
            if self._held is not None:
                self._held.append(found)
            return found
        if tensor.dtype == torch.bfloat16:
            return self.context.array(tensor.float().numpy(), "bfloat16")
        return self.context.array(tensor.numpy())

    def arrays(self, value: Any) -> Any:
        """``value`` with all torch tensors in it, however deep, as the ops see them."""
        if isinstance(value, torch.Tensor):
            return self.array(value)
        if isinstance(value, dict):
            return {name: self.arrays(item) for name, item in value.items()}
        return value

    def numbers(self, values: Sequence[int], least: int, end: int) -> Any:
        """Whole numbers that kernels trust; made before a graph is captured."""
        return self.context._numbers(np.array(values, np.int64), least, end)

    def tensor(self, array: Any) -> torch.Tensor:
        """What an op made, as torch sees it: where it is; a copy of the emulated device's."""
        if self.emulated:
            return torch.from_numpy(array.to_host())
        found: torch.Tensor = torch.from_dlpack(array)
        return found

    def wait(self) -> None:
        """Until the stream has come so far; what kernels report stays there."""
        if self.emulated:
            self.context.synchronize()
        else:
            self.stream.synchronize()

    # ---- times ----
    def compiled(self, form: Any) -> Any:
        """By torch.compile, which otherwise gives up after a few shapes of one function."""
        torch.compiler.reset()
        return torch.compile(lambda tensors: form(tensors), dynamic=False)

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """In memory of the host that the device copies from and to by itself."""
        return tensor if self.emulated else tensor.pin_memory()

    def synchronize(self) -> None:
        self.context.synchronize()
        if not self.emulated:
            torch.cuda.synchronize()

    def captured(self, call: Call) -> tuple[Any, Any]:
        """A CUDA graph of a warm call, and what the call gave: it stays in the graph's memory.

        The end of a loan of memory records an event, and later asks for it, which an event of a
        capture does not allow: what is lent in the capture stays lent as long as the device.
        """
        for _ in range(2):
            call()
        gc.collect()
        self.synchronize()
        self.context.synchronize()  # loans that ended before are given back here
        graph = torch.cuda.CUDAGraph()
        gc.disable()
        self._held = []
        try:
            # relaxed: memory of the pool may be asked for, and whether earlier loans have ended
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="relaxed"):
                result = call()
        finally:
            gc.enable()
            self._kept.append(self._held)
            self._held = None
        return graph, result

    def graph_seconds(self, calls: Sequence[Call], nodes: int) -> float:
        """Of one call: a graph of ``nodes`` of them, each the next of ``calls``."""
        for call in calls[1:]:
            call()

        def many() -> None:
            for node in range(nodes):
                calls[node % len(calls)]()

        graph, _ = self.captured(many)
        return self.event_seconds(graph.replay, 1) / nodes

    def event_seconds(self, call: Call, count: int) -> float:
        """Of one call among ``count`` between two events, as the stream and its host do them."""
        times = []
        for turn in range(REPLAYS + 2):
            start, stop = self._event(), self._event()
            start.record()
            for _ in range(count):
                call()
            stop.record()
            stop.synchronize()
            if turn >= 2:
                times.append(start.elapsed_time(stop) / 1e3 / count)
        return statistics.median(times)

    def _event(self) -> Any:
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    # ---- the machine's own limits ----
    def limits(self) -> dict[str, float]:
        """Bytes per second of a copy, read and written; floating-point operations per second."""
        if self.emulated:
            return {}
        found = {"copy": self._copied()}
        side = 8192
        for dtype, name, tf32 in (
            (torch.float16, "fp16", False),
            (torch.bfloat16, "bf16", False),
            (torch.float32, "tf32", True),
            (torch.float32, "fp32", False),
        ):
            left, right = (
                torch.randn(side, side, device=self.kind, dtype=dtype, generator=self.generator(i))
                for i in range(2)
            )
            torch.backends.cuda.matmul.allow_tf32 = tf32
            seconds = self.event_seconds(partial(torch.mm, left, right), 2)
            torch.backends.cuda.matmul.allow_tf32 = False
            found[name] = 2 * side**3 / seconds
        torch.cuda.empty_cache()
        return found

    def _copied(self) -> float:
        source = torch.empty(1 << 30, dtype=torch.uint8, device=self.kind).random_()
        target = torch.empty_like(source)
        return 2 * source.numel() / self.event_seconds(lambda: target.copy_(source), 4)

    def facts(self) -> dict[str, Any]:
        """What a figure depends on beside the code."""
        facts: dict[str, Any] = {"torch": torch.__version__, "kernels": ops.build_info()}
        if not self.emulated:
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            facts |= {
                "device": properties.name,
                "processors": properties.multi_processor_count,
                "l2_bytes": self.cache,
                "cuda_of_torch": torch.version.cuda,
                "driver": _driver(),
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            }
        return facts
