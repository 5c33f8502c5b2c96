"""Queries with TensorRT's encoder on a device: nothing comes back but labels and the score map.

The device is the emulated one; TensorRT and the driver are those of tests/tensorrt, which compute
on the addresses that they are given.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import BackendError, InputError, Segmenter, _kernels, backends, ops
from fsseg_sdk.backends import GraphSpec, TensorInfo, tensorrt, tensorrt_rtx
from fsseg_sdk.backends.graph import NotedGraph
from fsseg_sdk.backends.probing import PROBE, PROBE_SPEC
from tests.ops.device import has_device
from tests.tensorrt.fake_trt import Fake
from tests.tiny import CHANNELS, GRID, SIZE, tiny_bundle, tiny_features, tiny_onnx, tiny_scene

if not has_device() or "emulated" not in _kernels.cuda_reason:
    pytest.skip("for the emulated device: run by `make test-cuda`", allow_module_level=True)

pytest_plugins = ("tests.tensorrt.conftest",)

SPEC = GraphSpec(
    "encoder.onnx",
    (TensorInfo("image", "float32", (-1, 3, *SIZE)),),
    (TensorInfo("features", "float32", (-1, CHANNELS, *GRID)),),
)
Install = Callable[..., Fake]
STAGES = ("preprocess", "encoder", "match", "label")
SUPPORT, MASK = tiny_scene()
QUERIES = [
    tiny_scene((50 + 9 * i, 80 - 5 * i), (5 + 4 * i, 8, 34 + 4 * i, 30 + 2 * i))[0]
    for i in range(5)
]
METHODS = {"panet": {}, "srofb": {"hidden": 16}}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.fsseg")


def loaded(bundle: Path, backend: str = "tensorrt", method: str = "panet") -> Segmenter:
    return Segmenter.load(
        bundle,
        backend=backend,
        device="cuda" if backend == "tensorrt" else "cpu",
        method=method,
        settings=METHODS.get(method),
        threads=1,
    )


def prepared(bundle: Path, backend: str = "tensorrt", method: str = "panet") -> Any:
    return loaded(bundle, backend, method).prepare({"square": [(SUPPORT, MASK)]})


def opened(device: str = "cuda") -> tensorrt.TensorRtGraph:
    return tensorrt.open_graph(tiny_onnx(), SPEC, device=device, precision="fp32", threads=None)


def images(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, 3, *SIZE)).astype(np.float32)


def right(graph: tensorrt.TensorRtGraph, image: np.ndarray[Any, Any]) -> bool:
    context: Any = graph.context
    features = graph.run_on_device({"image": context.array(image)})["features"]
    assert features.context is context and features.shape == (len(image), CHANNELS, *GRID)
    return bool(np.abs(features.to_host() - tiny_features(image)).max() <= 1e-5)


def same(one: Any, other: Any) -> bool:
    near = np.abs(one.logits - other.logits).max() <= 2e-3 * np.abs(one.logits).max()
    return bool(np.mean(one.raw_labels == other.raw_labels) > 0.999 and near)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_labels_of_the_cpu(
    install: Install, driver: Any, bundle: Path, method: str, batch: int
) -> None:
    fake = install()
    expected = prepared(bundle, "onnxruntime", method).segment_batch(QUERIES)
    task = prepared(bundle, method=method)
    found = task.segment_batch(QUERIES, batch=batch)
    for one, other in zip(expected, found, strict=True):
        assert same(one, other) and one.labels.any()
        assert dict(other.places) == dict.fromkeys(STAGES, "cuda")
    assert driver.fake_copies() == 0 and driver.fake_launches() == 0, "through the host"
    shapes = {1} if batch == 1 else {1, 3, 2}  # a support; three queries and two
    assert fake.said.count(("context",)) == len(shapes)
    (stays,) = task.segment_batch(QUERIES[:1], output="device")
    assert isinstance(stays.raw_labels, ops.DeviceArray)
    assert driver.fake_pushed() == 0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_more_rows_than_the_engine_takes(
    install: Install, driver: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("FSSEG_TENSORRT", "batch=2")
    install()
    assert right(opened(), images(count))
    assert driver.fake_copies() == (0 if count == 2 else (count + 1) // 2)  # of the features
    expected = prepared(bundle, "onnxruntime").segment_batch(QUERIES)
    found = prepared(bundle).segment_batch(QUERIES, batch=count)
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))


def test_addresses_that_tensorrt_does_not_take_are_copied(install: Install, driver: Any) -> None:
    install()
    graph, image = opened(), images(2)
    context: Any = graph.context
    memory = context.array(np.concatenate([np.zeros(1, np.float32), image.ravel()]))
    shifted = memory._view(image.shape, (image[0].size, SIZE[0] * SIZE[1], SIZE[1], 1), 1)
    assert shifted.pointer % 256 == 4
    features = graph.run_on_device({"image": shifted})["features"].to_host()
    assert np.abs(features - tiny_features(image)).max() <= 1e-5 and driver.fake_copies() == 1


def test_arrays_of_another_context(install: Install) -> None:
    install()
    graph, image = opened(), images(1)
    theirs = ops.DeviceContext(own_stream=True).array(image)
    features = graph.run_on_device({"image": theirs})["features"]
    assert features.context is graph.context
    assert np.abs(features.to_host() - tiny_features(image)).max() <= 1e-5


def test_a_method_that_matches_on_the_cpu(install: Install, bundle: Path) -> None:
    install()
    expected = prepared(bundle, "onnxruntime", "nearest").segment(QUERIES[0])
    result = prepared(bundle, method="nearest").segment(QUERIES[0])
    assert same(expected, result)
    assert (result.places["encoder"], result.places["match"]) == ("cuda", "cpu")
    assert any("matched on the CPU" in warning for warning in result.warnings)


def test_a_warm_query_allocates_nothing(install: Install, driver: Any, bundle: Path) -> None:
    install()
    segmenter = loaded(bundle)
    task = segmenter.prepare({"square": [(SUPPORT, MASK)]})
    context: Any = segmenter._core.encoder.context
    for _ in range(3):
        task.segment(QUERIES[0])
    before = context._allocations, driver.fake_live()
    for _ in range(5):
        task.segment(QUERIES[0])
    assert (context._allocations, driver.fake_live()) == before


def test_two_threads(install: Install, bundle: Path) -> None:
    fake = install()
    expected = prepared(bundle, "onnxruntime").segment(QUERIES[0])
    segmenter = loaded(bundle)
    task = segmenter.prepare({"square": [(SUPPORT, MASK)]})
    contexts: list[Any] = [None, None]
    results: list[Any] = [None, None]
    begun = fake.said.count(("context",))

    def work(index: int) -> None:
        for _ in range(5):
            results[index] = task.segment(QUERIES[0])
        contexts[index] = segmenter._core.encoder.context

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(same(expected, result) for result in results)
    one, other = contexts
    assert one is not other and one.stream != other.stream
    assert fake.said.count(("context",)) == begun + 2


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("context", "no execution context"),
        ("shape", "the shape .* refused"),
        ("address", "the memory of 'image' refused"),
        ("execute", "the execution refused"),
    ],
)
def test_what_tensorrt_refuses(install: Install, bundle: Path, fail: str, words: str) -> None:
    fake = install()
    expected = prepared(bundle, "onnxruntime").segment_batch(QUERIES[:3])
    task = prepared(bundle)
    fake.fail.add(fail)
    with pytest.raises(BackendError, match=words):
        task.segment_batch(QUERIES[:3], batch=3)  # a shape that is new
    fake.fail.clear()
    found = task.segment_batch(QUERIES[:3], batch=3)
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", ["cuMemcpyDtoDAsync_v2", "cuStreamIsCapturing"])
def test_what_the_driver_refuses(
    install: Install, driver: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FSSEG_TENSORRT", "batch=2")
    install()
    graph = opened()
    driver.fake_fail(name.encode(), 2, 0)
    with pytest.raises(BackendError, match="out of memory"):
        right(graph, images(3))
    driver.fake_reset(1, 0)
    assert right(graph, images(3)) and driver.fake_pushed() == 0


def test_what_it_does_not_take(install: Install) -> None:
    install()
    graph = opened()
    context: Any = graph.context
    for feeds in (
        {},
        {"image": context.array(images(1)[:, :2])},
        {"image": context.array(images(1), "float16")},
    ):
        with pytest.raises(InputError, match="feeds"):
            graph.run_on_device(feeds)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the point
def test_a_fork(install: Install, bundle: Path) -> None:
    fake = install()
    task = prepared(bundle)
    first = task.segment(QUERIES[0])
    child = os.fork()
    if child == 0:
        refused = False
        try:
            task.segment(QUERIES[0])
        except BackendError as error:
            refused = "loaded before fork" in str(error)
        del task
        gc.collect()
        os._exit(0 if refused and ("destroyed",) not in fake.said else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(first, task.segment(QUERIES[0]))


def test_a_session_ends_after_the_work_of_its_stream(install: Install) -> None:
    """A thread keeps four; what TensorRT enqueued still uses the memory of the one that goes."""
    fake = install()
    graph = opened()
    context: Any = graph.context

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(context, name)

        def _from_context(self, array: Any, name: str) -> Any:
            fake.said.append(("seen", name))
            return context._from_context(array, name)

        def _wait(self) -> None:
            fake.said.append(("waited",))
            context._wait()

    graph._own.get = Watched  # type: ignore[union-attr, method-assign]
    del fake.said[:]
    for count in (1, 2, 3, 4, 5):
        graph.run_on_device({"image": context.array(images(count))})
    assert fake.said.count(("seen", "image")) == 5, "arrays of others are waited for"
    said = [one for one in fake.said if one[0] != "seen"]
    assert said == [("context",)] * 4 + [("waited",), ("context",)]
    del fake.said[:], graph
    gc.collect()
    assert fake.said == [("waited",)] * 4 + [("destroyed",)]


def test_without_a_device_it_goes_through_the_host(
    install: Install, driver: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build without kernels, or that does not see that GPU."""
    install()
    driver.fake_reset(2, 0)
    second = opened("cuda:1")
    assert second.context is None and second.device == "cuda:1"
    assert np.allclose(
        second.run({"image": images(1)})["features"], tiny_features(images(1)), atol=1e-5
    )
    with pytest.raises(BackendError, match="arrays on a device"):
        second.run_on_device({})
    expected = prepared(bundle, "onnxruntime").segment(QUERIES[0])
    monkeypatch.setattr("fsseg_sdk.backends.tensorrt.opening.fits_device", lambda *a: False)
    result = prepared(bundle).segment(QUERIES[0])
    assert same(expected, result) and driver.fake_copies() > 0
    assert [result.places[stage] for stage in STAGES] == ["cpu", "cuda", "cpu", "cpu"]


def test_in_a_capture(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would have to be prepared is refused; what was recorded stays."""
    fake = install()
    graph = opened()
    assert graph.capturable and NotedGraph(graph, ()).capturable

    def captured(count: int) -> bool:
        context: Any = graph.context
        array = context.array(images(count))
        with monkeypatch.context() as patch:
            patch.setenv("FSSEG_EMULATED_CAPTURE", "1")
            features = graph.run_on_device({"image": array})["features"]
        return bool(np.abs(features.to_host() - tiny_features(images(count))).max() <= 1e-5)

    for _ in range(2):
        with pytest.raises(BackendError, match="two runs with these shapes"):
            captured(1)
        assert right(graph, images(1))
    assert captured(1) and captured(1)
    with pytest.raises(BackendError, match="two runs with these shapes"):
        captured(2)
    assert fake.said.count(("context",)) == 1
    for count in (2, 3, 4, 5, 6):  # more than a thread keeps
        assert right(graph, images(count))
    assert fake.said.count(("context",)) == 6
    assert captured(1) and fake.said.count(("context",)) == 6
    fake.fail.add("execute-captured")
    with pytest.raises(BackendError, match="the execution refused"):
        captured(1)
    fake.fail.clear()
    assert right(graph, images(1))


def test_which_backends_can_be_captured(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install()
    fake.__version__ = "1.7.1.116"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", fake)  # type: ignore[arg-type]
    other = tensorrt_rtx.open_graph(
        tiny_onnx(), SPEC, device="cuda", precision="fp32", threads=None
    )
    assert not other.capturable and right(other, images(1))


def test_probe_runs_both_ways(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install()
    feeds = {"image": np.ones((1, 3, 2, 2), np.float32)}

    def probed() -> backends.BackendStatus:
        return tensorrt.probe(PROBE, PROBE_SPEC, feeds, "cuda")

    status = probed()
    assert (status.available, status.reason) == (True, "")
    assert fake.said.count(("context",)) == 2  # on the host and on the device
    monkeypatch.setenv("FSSEG_EMULATED_FAIL", "malloc:3")  # the array: a context takes two
    status = probed()
    assert not status.available and "memory" in status.reason
    monkeypatch.delenv("FSSEG_EMULATED_FAIL")
    wrong = tensorrt.TensorRtGraph
    monkeypatch.setattr(wrong, "run_on_device", lambda self, feeds: {"features": feeds["image"]})
    status = probed()
    assert not status.available and "wrongly" in status.reason
