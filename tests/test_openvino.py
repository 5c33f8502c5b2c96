"""What is OpenVINO's own: the precision is checked, and nobody is told that it was used."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk.backends import open_graph
from fsseg_sdk.backends.checks import choose_threads
from fsseg_sdk.errors import BackendError
from tests.quantised import tiny_int8
from tests.test_backends import IMAGE, python
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx

openvino = pytest.importorskip("openvino")
from fsseg_sdk.backends import openvino as backend  # noqa: E402


def compiled(monkeypatch: pytest.MonkeyPatch, data: bytes, asked: str, given: str) -> Any:
    """Opens `data` for the precision `asked`, while OpenVINO is told the hint `given`."""
    real = backend._HINTS
    monkeypatch.setattr(backend, "_HINTS", {**real, asked: given})
    spec = backend.GraphSpec(SPEC.file, SPEC.inputs, SPEC.outputs)
    return backend.open_graph(data, spec, device="cpu", precision=asked, threads=1)


def test_another_precision_than_asked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself OpenVINO takes bfloat16 where the processor has it; the compiled model says so."""
    if not backend._has_bf16(openvino.Core()):
        pytest.skip("a processor without bfloat16")
    with pytest.raises(BackendError, match=r"precision 'fp32': expected matrix products in f32"):
        compiled(monkeypatch, tiny_onnx(), "fp32", "bf16")
    with pytest.raises(BackendError, match=r"precision 'bf16': expected matrix products in bf16"):
        compiled(monkeypatch, tiny_onnx(), "bf16", "f32")


def test_int8_that_does_not_run_in_int8_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"expected matrix products in i8 or u8, got f32"):
        compiled(monkeypatch, tiny_onnx(), "int8", "f32")
    assert compiled(monkeypatch, tiny_int8("s8s8"), "int8", "f32").precision == "int8"


@pytest.mark.parametrize(
    ("flags", "right"),
    [("avx512_bf16 fma", True), ("amx_bf16", True), ("bf16", True), ("avx512f avx512bw", False)],
)
def test_only_native_bfloat16(tmp_path: Path, flags: str, right: bool) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "BF16"]

    info = tmp_path / "cpuinfo"
    info.write_text(f"flags\t: fpu {flags}\n")
    assert backend._has_bf16(Core(), str(info)) is right
    assert backend._has_bf16(Core(), str(tmp_path / "none")) is True


def test_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO takes as many as it is told, but never more than there are cores."""
    told: list[int] = []
    real = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        told.append(settings["INFERENCE_NUM_THREADS"])
        return real(self, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    for threads in (1, 2):
        graph: Any = open_graph(tiny_onnx(), SPEC, backend="openvino", threads=threads)
        found = graph._model.get_property("INFERENCE_NUM_THREADS")
        assert told.pop() == threads and found == min(threads, choose_threads(None))
        assert graph._model.get_property("NUM_STREAMS") == 1


def test_requests_are_used_again() -> None:
    """As many as there ever were callers at once, however many calls and threads."""
    graph: Any = open_graph(tiny_onnx(), SPEC, backend="openvino", threads=1)
    for _ in range(5):
        worker = threading.Thread(target=graph.run, args=({"image": IMAGE},))
        worker.start()
        worker.join()
    assert len(graph._free) == 1


def test_a_failed_request_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph: Any = open_graph(tiny_onnx(), SPEC, backend="openvino", threads=1)
    right = graph.run({"image": IMAGE})["features"]

    class Broken:
        def set_tensor(self, name: str, tensor: Any) -> None:
            raise RuntimeError("no memory")

    graph._free[:] = [Broken()]
    with pytest.raises(BackendError, match="no memory"):
        graph.run({"image": IMAGE})
    assert np.array_equal(graph.run({"image": IMAGE})["features"], right)


OPENED = """
import os, socket, sys, time
asked = []
socket.socket.connect = lambda self, address: asked.append(address)
socket.getaddrinfo = lambda *a, **k: asked.append(a) or []
from fsseg_sdk.backends import open_graph
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx
open_graph(tiny_onnx(), SPEC, backend="openvino", threads=1)
import openvino
assert openvino.convert_model  # the rest of it is whole
time.sleep(0.3)
print(asked, sorted(os.listdir(os.environ["HOME"])), "openvino_telemetry" in sys.modules)
"""


def test_nobody_is_told(tmp_path: Path) -> None:
    assert python(OPENED, HOME=str(tmp_path), CI="").strip() == "[] [] False"


SIGNALS = """
import faulthandler, os, signal, sys, threading
faulthandler.enable()
from fsseg_sdk.backends import open_graph
from tests.test_backends import IMAGE
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx
def opened():
    return open_graph(tiny_onnx(), SPEC, backend="openvino", precision=sys.argv[1], threads=1)

first, second, third = opened(), opened(), opened()
first.run({"image": IMAGE})
worker = threading.Thread(target=lambda: second.run({"image": IMAGE}))
third.run({"image": IMAGE})
second.run({"image": IMAGE})
worker.start()
worker.join()
del first, second
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGUSR1)
third.run({"image": IMAGE})
del third
os.kill(os.getpid(), signal.SIGUSR1)
print(len(seen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks as Linux has them")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_signals_arrive_after_graphs_have_gone(precision: str) -> None:
    """OpenVINO leaves a freed signal stack behind, which the next signal would be handled on."""
    if precision == "bf16" and not backend._has_bf16(openvino.Core()):
        pytest.skip("a processor without bfloat16")
    assert python(SIGNALS, precision).split() == ["2"]
