"""Engines that run: right numbers, memory given back, threads, shapes, CUDA graphs, failures."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fsseg_sdk.backends import tensorrt, tensorrt_rtx
from fsseg_sdk.backends.graph import Graph, GraphSpec, TensorInfo
from fsseg_sdk.backends.tensorrt import driver as probe
from fsseg_sdk.backends.tensorrt.module import Log
from fsseg_sdk.errors import BackendError, InputError
from tests.tensorrt.fake_trt import Fake
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_features, tiny_onnx

Install = Callable[..., Fake]
RNG = np.random.default_rng(3)


def images(count: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal((count, 3, 64, 64)).astype(np.float32)


def opened(
    spec: GraphSpec = SPEC, data: bytes | None = None, device: str = "cuda", precision: str = "fp32"
) -> tensorrt.TensorRtGraph:
    return tensorrt.open_graph(
        data or tiny_onnx(), spec, device=device, precision=precision, threads=None
    )


def right(graph: Graph, batch: np.ndarray[Any, Any]) -> bool:
    features = graph.run({"image": batch})["features"]
    return bool(np.abs(features - tiny_features(batch)).max() <= 1e-5)


def test_the_right_numbers(install: Install, driver: Any) -> None:
    fake = install()
    graph = opened()
    assert isinstance(graph, Graph)
    assert (graph.backend, graph.device, graph.precision) == ("tensorrt", "cuda", "fp32")
    for _ in range(4):
        assert right(graph, images(2))
    assert graph.capture.count == 1 and driver.fake_launches() == 3  # the second call is recorded
    assert graph.warnings == ()
    assert driver.fake_pushed() == 0
    assert fake.said.count(("context",)) == 1


def test_results_are_the_callers_own(install: Install) -> None:
    install()
    graph, batch = opened(), images(1)
    first = graph.run({"image": batch})["features"]
    kept = first.copy()
    for _ in range(3):
        graph.run({"image": images(1)})
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17])
def test_any_batch(install: Install, count: int) -> None:
    install()
    graph = opened()
    for _ in range(3):
        assert right(graph, images(count))


def test_shapes_have_sessions_of_their_own(install: Install, driver: Any) -> None:
    """A recorded context never gets another shape; a thread keeps four."""
    fake = install()
    graph = opened()
    for _ in range(2):
        for count in (1, 2, 3, 4):
            assert right(graph, images(count))
    assert fake.said.count(("context",)) == 4
    alive = driver.fake_live()
    assert right(graph, images(5))  # the one used longest ago goes
    gc.collect()
    assert driver.fake_live() <= alive
    assert right(graph, images(1))
    assert fake.said.count(("context",)) == 6


def test_memory_is_given_back(install: Install, driver: Any) -> None:
    install()
    before = driver.fake_live()
    graph = opened()
    assert right(graph, images(1)) and right(graph, images(1)) and right(graph, images(3))
    assert driver.fake_live() > before
    del graph
    gc.collect()
    assert driver.fake_live() == before


def test_one_context_for_each_thread(install: Install, driver: Any) -> None:
    fake = install()
    graph = opened()
    before = driver.fake_live()
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(10):
                assert right(graph, images(1 + index % 2))
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert fake.said.count(("context",)) == 6
    del thread, threads
    gc.collect()
    assert driver.fake_live() == before  # what a thread had ends with it


def test_shared_memory_is_not_copied(install: Install, driver: Any) -> None:
    """Jetson: CPU and GPU use the same memory."""
    install()
    driver.fake_reset(1, 1)
    probe._probe.cache_clear()
    graph = opened()
    assert right(graph, images(2)) and right(graph, images(2)) and right(graph, images(2))
    assert driver.fake_copies() == 0 and driver.fake_launches() == 2


def test_without_a_cuda_graph(install: Install) -> None:
    fake = install()
    fake.fail.add("execute-captured")
    graph = opened()
    for _ in range(3):
        assert right(graph, images(1))
    assert graph.capture.count == 0
    assert "no CUDA graph could be recorded (the execution refused" in graph.warnings[0]


def test_rtx_is_not_recorded(install: Install, driver: Any, monkeypatch: Any) -> None:
    """It changes its kernels behind a recording."""
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", install("1.7.1.116"))
    graph = tensorrt_rtx.open_graph(
        tiny_onnx(), SPEC, device="cuda", precision="fp32", threads=None
    )
    for _ in range(4):
        assert right(graph, images(1))
    assert driver.fake_launches() == 0 and graph.warnings == ()


@pytest.mark.parametrize("name", ["cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags"])
def test_a_capture_that_the_driver_refuses(install: Install, driver: Any, name: str) -> None:
    install()
    graph, before = opened(), driver.fake_live()
    driver.fake_fail(name.encode(), 901, 0)
    for _ in range(3):
        assert right(graph, images(1))
    assert "CUDA error 901" in graph.warnings[0]
    del graph
    gc.collect()
    assert driver.fake_live() == before


@pytest.mark.parametrize(
    "name", ["cuMemHostAlloc", "cuMemAlloc_v2", "cuStreamCreate", "cuMemcpyHtoDAsync_v2"]
)
@pytest.mark.parametrize("after", [0, 1])
def test_out_of_memory_and_on(install: Install, driver: Any, name: str, after: int) -> None:
    """A typed error, nothing lost, and the next call works."""
    install()
    graph = opened()
    before = driver.fake_live()
    driver.fake_fail(name.encode(), 2, after)
    try:
        graph.run({"image": images(1)})
        graph.run({"image": images(2)})
    except BackendError as error:
        assert "out of memory (CUDA error 2)" in str(error) and "smaller batch" in str(error)
    else:
        pytest.fail("no error")
    driver.fake_reset(1, 0)
    assert right(graph, images(2))
    assert driver.fake_pushed() == 0
    del graph
    gc.collect()
    assert driver.fake_live() == before


def test_a_lost_device(install: Install, driver: Any) -> None:
    install()
    graph = opened()
    assert right(graph, images(1))
    driver.fake_fail(b"cuStreamSynchronize", 700, 0)
    with pytest.raises(BackendError, match=r"CUDA error 700.*restart it"):
        graph.run({"image": images(1)})
    driver.fake_reset(1, 0)
    with pytest.raises(BackendError, match=r"an earlier failure of the device.*Restart"):
        graph.run({"image": images(1)})
    assert driver.fake_pushed() == 0


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("context", "no execution context"),
        ("execute", "the execution refused"),
        ("shape", "refused"),
    ],
)
def test_what_tensorrt_refuses(install: Install, driver: Any, fail: str, words: str) -> None:
    fake = install()
    graph = opened()
    before = driver.fake_live()
    fake.fail.add(fail)
    with pytest.raises(BackendError, match=words):
        graph.run({"image": images(1)})
    fake.fail.clear()
    assert right(graph, images(1))
    del graph
    gc.collect()
    assert driver.fake_live() == before


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"image": np.zeros((1, 3, 64, 63), np.float32)},
        {"image": np.zeros((0, 3, 64, 64), np.float32)},
    ],
)
def test_arrays_that_do_not_fit(install: Install, feeds: dict[str, Any]) -> None:
    install()
    with pytest.raises(InputError):
        opened().run(feeds)


def test_an_engine_with_other_tensors(install: Install) -> None:
    install()
    other = GraphSpec(SPEC.file, SPEC.inputs, (TensorInfo("features", "float32", (-1, 16, 8, 9)),))
    with pytest.raises(BackendError, match="the tensors that the manifest names"):
        opened(other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the point
def test_a_graph_from_before_a_fork(install: Install, driver: Any) -> None:
    fake = install()
    graph = opened()
    assert right(graph, images(1))
    alive = driver.fake_live()
    child = os.fork()
    if child == 0:
        refused = False
        try:
            graph.run({"image": images(1)})
        except BackendError as error:
            refused = "loaded before fork" in str(error)
        del graph
        gc.collect()
        untouched = driver.fake_live() == alive and ("destroyed",) not in fake.said
        os._exit(0 if refused and untouched else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert right(graph, images(1))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cuMemFree_v2", 2),
        ("cuMemFreeHost", 2),
        ("cuStreamDestroy_v2", 1),
        ("cuGraphExecDestroy", 1),
    ],
)
def test_one_that_cannot_be_given_back_keeps_no_other(
    install: Install, driver: Any, name: str, kept: int
) -> None:
    install()
    before = driver.fake_live()
    graph = opened()
    assert right(graph, images(1)) and right(graph, images(1))
    driver.fake_fail(name.encode(), 1, 0)
    del graph
    gc.collect()
    driver.fake_reset(1, 0)
    assert driver.fake_live() == before + kept and driver.fake_pushed() == 0


def test_the_context_is_given_back(install: Install, driver: Any) -> None:
    """When the last of what uses it is gone."""
    install()
    before = driver.fake_retained()
    graph = opened()
    assert right(graph, images(1)) and driver.fake_retained() == before + 1
    del graph
    gc.collect()
    assert driver.fake_retained() == before


def test_what_a_library_says_is_printable() -> None:
    log = Log()
    log.add("ERROR", "no \x1b[31m tactic\n\x00\ud800")
    assert log.errors == ["no [31m tactic"] and log.lines == ["error: no [31m tactic"]


def test_another_process_gives_nothing_back(driver: Any, monkeypatch: Any) -> None:
    from fsseg_sdk.backends.tensorrt.buffers import Resources
    from fsseg_sdk.backends.tensorrt.cuda import Cuda

    found, device = probe.choose_device("cuda", "tensorrt")
    cuda = Cuda(found.library, device, "tensorrt")
    resources, before = Resources(cuda), driver.fake_live()
    with cuda.current():
        resources.buffer("float32", (2, 3))
    process = cuda._process
    monkeypatch.setattr(cuda, "_process", process + 1)
    resources.release()
    assert driver.fake_live() == before + 2
    monkeypatch.setattr(cuda, "_process", process)
    resources.release()
    resources.release()
    assert driver.fake_live() == before


# --- the driver and the module -------------------------------------------------------------------


def test_without_a_driver_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(probe, "LIBRARIES", ("libnothing.so.1",))
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # an import would say so
    with pytest.raises(BackendError, match=r"libcuda\.so\.1 is missing"):
        opened()
    status = tensorrt.probe(b"", SPEC, {}, "cuda")
    assert not status.available and "no NVIDIA driver here" in status.reason


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("cuInit", 100, "no device (CUDA error 100)"),
        ("cuInit", 3, "before this process was forked"),
        ("cuDeviceGetCount", 999, "cuDeviceGetCount: the driver does not answer"),
    ],
)
def test_a_driver_that_fails(
    install: Install, driver: Any, name: str, code: int, words: str
) -> None:
    install()
    driver.fake_fail(name.encode(), code, 0)
    with pytest.raises(BackendError) as caught:
        opened()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu", "device: expected 'cuda'"),
        ("cuda:1", "none with the number 1"),
        ("cuda:x", "expected 'cuda', or 'cuda:1'"),
        ("gpu", "got 'gpu'"),
    ],
)
def test_devices_that_are_none(install: Install, device: str, words: str) -> None:
    install()
    with pytest.raises(BackendError) as caught:
        opened(device=device)
    assert words in str(caught.value)


def test_what_the_driver_says(driver: Any) -> None:
    (device,) = probe.probe_driver().devices
    assert device == probe.Device(0, "Fake GPU", "8.7", 16, 8 << 30, False, "unknown", "12.6")


@pytest.mark.parametrize(
    ("version", "words"),
    [("8.6.1", "from 10.3"), ("10.2.0", "from 10.3"), ("12.0.0", "to 11.x"), ("x", "version x")],
)
def test_versions_that_are_not_known(install: Install, version: str, words: str) -> None:
    install(version)
    with pytest.raises(BackendError) as caught:
        opened()
    assert words in str(caught.value)


def test_tensorrt_is_not_installed(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"the Python package 'tensorrt'.*JetPack brings it"):
        opened()


def test_a_driver_that_is_too_old(install: Install, driver: Any, monkeypatch: Any) -> None:
    from fsseg_sdk.backends.tensorrt import cuda

    install()
    monkeypatch.setitem(cuda._SIGNATURES, "cuOfTomorrow", ())
    with pytest.raises(BackendError, match="a driver with cuOfTomorrow"):
        opened()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_file_says_the_precision(install: Install, precision: str) -> None:
    install()
    with pytest.raises(
        BackendError, match=f"computes in {precision}, got one that computes in fp32"
    ):
        opened(precision=precision)


def test_probe(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsseg_sdk.backends.probing import PROBE, PROBE_SPEC

    install()
    feeds = {"image": np.ones((1, 3, 2, 2), np.float32)}
    for variable in ("FSSEG_TENSORRT", "FSSEG_ENGINE_CACHE_MIB"):
        monkeypatch.setenv(variable, "much")
        with pytest.raises(InputError, match=f"^{variable}"):
            tensorrt.probe(PROBE, PROBE_SPEC, feeds, "cuda")
        monkeypatch.delenv(variable)
    status = tensorrt.probe(PROBE, PROBE_SPEC, feeds, "cuda")
    assert (status.available, status.reason, status.device) == (True, "", "cuda")
    assert status.version == "11.4.0.106"
