"""ONNX Runtime's GPU providers, without a GPU: the session is real and runs on the CPU, under the
name of the provider. What is tested is what we ask of it, and what happens when it says no."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fsseg_sdk.backends import open_graph, probe, probing
from fsseg_sdk.errors import BackendError
from tests.quantised import tiny_fp16, tiny_int8
from tests.test_backends import IMAGE
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_features, tiny_onnx

onnxruntime = pytest.importorskip("onnxruntime")

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


class Machine:
    """What the pretended installation does."""

    def __init__(self) -> None:
        self.listed = [TENSORRT, CUDA, CPU]
        self.falls_back = False
        self.fails_to_run = ""
        self.asked: list[list[Any]] = []
        self.bound: list[tuple[str, ...]] = []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    for flavour in ("s8s8", "u8s8"):
        tiny_int8(flavour)  # while sessions are what they seem: calibration makes some

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, data: bytes, options: Any, providers: list[Any], **more: Any) -> None:
            assert more == {"enable_fallback": 0}
            found.asked.append(providers)
            self._pretended = [p if isinstance(p, str) else p[0] for p in providers]
            super().__init__(data, options, providers=[CPU], **more)

        def get_providers(self) -> list[str]:
            return [CPU] if found.falls_back else self._pretended

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            if found.fails_to_run:
                raise RuntimeError(found.fails_to_run)
            found.bound.append(tuple(self._pretended[:1]))
            super().run_with_iobinding(binding, options)

        def run(self, *arguments: Any) -> Any:
            assert self._pretended[0] == CPU, "a GPU's session runs by IO binding"
            return super().run(*arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: found.listed)
    probing.probed.cache_clear()
    return found


def test_cuda_is_asked_for_and_used(machine: Machine) -> None:
    graph = open_graph(tiny_onnx(), SPEC, backend="onnxruntime", device="cuda", threads=1)
    assert (graph.backend, graph.device, graph.precision) == ("onnxruntime", "cuda", "fp32")
    (providers,) = machine.asked
    assert [p if isinstance(p, str) else p[0] for p in providers] == [CUDA, CPU]
    assert providers[0][1]["use_tf32"] == "0"
    assert machine.bound == [(CUDA,)]  # it ran once: a GPU without code for it shows there
    features = graph.run({"image": IMAGE})["features"]
    assert np.abs(features - tiny_features(IMAGE)).max() <= 1e-5
    assert len(machine.bound) == 2
    kept = features.copy()
    graph.run({"image": IMAGE * 0})
    assert np.array_equal(features, kept)


@pytest.mark.parametrize("wheels", [True, False])
def test_the_libraries_of_wheels(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, wheels: bool
) -> None:
    """Loaded before the session is made, which finds those of the system by itself."""
    seen: list[int] = []
    found = object() if wheels else None
    monkeypatch.setattr("fsseg_sdk.backends.onnxruntime.find_spec", lambda name: found)
    monkeypatch.setattr(
        onnxruntime, "preload_dlls", lambda directory: seen.append(len(machine.asked))
    )
    open_graph(tiny_onnx(), SPEC, backend="onnxruntime", device="cuda")
    open_graph(tiny_onnx(), SPEC, backend="onnxruntime", device="cpu")
    assert seen == ([0] if wheels else [])
    machine.listed = [CPU]  # ONNX Runtime 1.23 would print a warning
    with pytest.raises(BackendError):
        open_graph(tiny_onnx(), SPEC, backend="onnxruntime", device="cuda")
    assert len(seen) == wheels


def test_auto_prefers_a_gpu_that_works(machine: Machine) -> None:
    assert open_graph(tiny_onnx(), SPEC, backend="onnxruntime").device == "cuda"
    assert open_graph(tiny_onnx(), SPEC).device == "cuda"
    assert open_graph(tiny_onnx(), SPEC, device="cpu").device == "cpu"


@pytest.mark.parametrize("fault", ["falls back", "no kernel", "not built in"])
def test_a_gpu_that_does_not_work(machine: Machine, fault: str) -> None:
    """Listed, as always where the GPU package is installed; the driver or the GPU is not there."""
    machine.falls_back = fault == "falls back"
    if fault == "no kernel":
        machine.fails_to_run = "cudaErrorNoKernelImageForDevice"
    if fault == "not built in":
        machine.listed = [CPU]
    words = machine.fails_to_run or "expected CUDAExecutionProvider"
    with pytest.raises(BackendError, match=words) as caught:
        open_graph(tiny_onnx(), SPEC, backend="onnxruntime", device="cuda")
    assert caught.value.remedy
    if fault != "falls back":  # where even the CPU's session pretends to have fallen back, it has
        assert open_graph(tiny_onnx(), SPEC).device == "cpu"  # auto says what it took
    rows = [status for status in probe() if status.name == "onnxruntime"]
    assert [row.device for row in rows] == (["cpu"] if fault == "not built in" else ["cuda", "cpu"])
    if fault == "no kernel":
        assert [row.available for row in rows] == [False, True]
        assert words in rows[0].reason


def test_precisions_of_cuda(machine: Machine) -> None:
    from dataclasses import replace

    half = replace(SPEC, compute="float16", storage="float16")
    graph = open_graph(tiny_fp16(), half, backend="onnxruntime", precision="fp16")
    assert (graph.device, graph.precision) == ("cuda", "fp16")
    narrow = replace(SPEC, compute="int8", storage="int8", flavour="u8s8")
    data = tiny_int8("u8s8")
    with pytest.raises(BackendError, match="precision on 'cuda': expected 'fp32' or 'fp16'"):
        open_graph(data, narrow, backend="onnxruntime", device="cuda")
    assert open_graph(data, narrow, backend="onnxruntime").device == "cpu"


@pytest.mark.parametrize(
    ("precision", "switch"),
    [("fp32", {}), ("fp16", {"trt_fp16_enable": "1"}), ("int8", {"trt_int8_enable": "1"})],
)
def test_the_tensorrt_provider(machine: Machine, precision: str, switch: dict[str, str]) -> None:
    from dataclasses import replace

    data, compute, flavour = {
        "fp32": (tiny_onnx(), "float32", ""),
        "fp16": (tiny_fp16(), "float16", ""),
        "int8": (tiny_int8("s8s8"), "int8", "s8s8"),
    }[precision]
    spec = replace(SPEC, compute=compute, storage=compute, flavour=flavour)
    graph = open_graph(data, spec, backend="onnxruntime-tensorrt", precision=precision)
    found = (graph.backend, graph.device, graph.precision)
    assert found == ("onnxruntime-tensorrt", "cuda", precision)
    ((first, cuda, last),) = machine.asked
    assert first == (TENSORRT, switch)
    assert (cuda[0], cuda[1]["use_tf32"], last) == (CUDA, "0", CPU)
    assert bool(graph.warnings) == (precision == "fp32")  # type: ignore[attr-defined]
    machine.falls_back = True
    with pytest.raises(BackendError, match="expected TensorrtExecutionProvider"):
        open_graph(data, spec, backend="onnxruntime-tensorrt", precision=precision)
