"""Queries on a device: preprocess, encoder, match and labels; the emulated one or a real one.

The encoder is a small one in numpy that takes and gives arrays of the device.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import BackendError, InputError, Segmenter, ops
from fsseg_sdk.backends import TensorInfo
from fsseg_sdk.backends.graph import NotedGraph
from tests.cuda.foreign import Interface, Tensor
from tests.ops.device import has_device

if not has_device():
    pytest.skip("no device: run by `make test-cuda`", allow_module_level=True)

SIDE, CELL, CHANNELS = 96, 8, 12
GRID = (SIDE // CELL, SIDE // CELL)
WEIGHTS = np.random.default_rng(1).standard_normal((CHANNELS, 3 * CELL * CELL)) / 8
BIAS = np.random.default_rng(2).standard_normal((CHANNELS, 1))


class Encoder:
    """Patches times a matrix plus a bias, through a ReLU; on the host, or on a context too."""

    backend, device, precision = "numpy", "cpu", "fp32"
    context: Any = None

    def __init__(self, batch: int = -1) -> None:
        self.inputs = (TensorInfo("image", "float32", (batch, 3, SIDE, SIDE)),)
        self.outputs = (TensorInfo("features", "float32", (batch, CHANNELS, *GRID)),)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        patches = feeds["image"].reshape(-1, 3, GRID[0], CELL, GRID[1], CELL)
        cells = patches.transpose(0, 1, 3, 5, 2, 4).reshape(len(patches), 3 * CELL * CELL, -1)
        made = np.maximum(WEIGHTS @ cells.astype(np.float64) + BIAS, 0)
        return {"features": made.reshape(-1, CHANNELS, *GRID).astype(np.float32)}


class OnDevice(Encoder):
    device = "cuda"

    def __init__(self, batch: int = -1, features: str = "float32") -> None:
        super().__init__(batch)
        self.context, self.host_runs = ops.DeviceContext(own_stream=True), 0
        self.features = features
        self.seen: list[tuple[int, ...]] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.host_runs += 1
        return super().run(feeds)

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = feeds["image"]
        assert isinstance(image, ops.DeviceArray) and image.context is self.context
        self.seen.append(image.shape)
        made = super().run({"image": image._peek()})["features"]
        return {"features": self.context.array(made, self.features)}


def segmenter(graph: Encoder, method: str, **settings: Any) -> Segmenter:
    described = {
        "method": {"name": method, "settings": settings},
        "input": {"size": [SIDE, SIDE], "geometry": "fit", "mean": [0.5] * 3, "std": [0.25] * 3},
        "features": {"channels": CHANNELS, "grid": list(GRID)},
    }
    return Segmenter({"encoder": graph}, described, threads=1)


def picture(seed: int, size: tuple[int, int] = (90, 120)) -> tuple[Any, Any]:
    """A disc of one texture on another, and its mask."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = (rows - size[0] / 2) ** 2 + (columns - size[1] * rng.uniform(0.35, 0.65)) ** 2
    mask = inside < (0.3 * min(size)) ** 2
    stripes = 127 + 90 * np.sin(rows / 3)[..., None] * np.array([1, 0.2, -0.5])
    checks = 127 + 90 * np.sign(np.sin(columns / 4))[..., None] * np.array([-0.3, 0.8, 1])
    noise = rng.normal(0, 12, (*size, 3))
    return np.clip(np.where(mask[..., None], stripes, checks) + noise, 0, 255).astype(
        np.uint8
    ), mask


SUPPORT, MASK = picture(0)
QUERIES = [picture(seed, size)[0] for seed, size in ((1, (90, 120)), (2, (64, 64)), (3, (150, 97)))]
METHODS = {
    "panet": {},
    "panet, parts": {"background_parts": 3},
    "srofb": {"hidden": 16},
    "srofb-fast": {},
}


def both(case: str) -> tuple[Any, Any, OnDevice]:
    """The task on the CPU, the same on the device, and the device's encoder."""
    name, graph = case.partition(",")[0], OnDevice()
    tasks = [
        segmenter(own, name, **METHODS[case]).prepare({"disc": [(SUPPORT, MASK)]})
        for own in (Encoder(), graph)
    ]
    return tasks[0], tasks[1], graph


def same(one: Any, other: Any) -> bool:
    """Equal but for rounding: of preprocessing, too."""
    alike = np.mean(one.raw_labels == other.raw_labels) > 0.999
    near = np.abs(one.logits - other.logits).max() <= 2e-3 * np.abs(one.logits).max()
    return bool(alike and near) and one.found == other.found


@pytest.mark.parametrize("case", METHODS)
def test_as_on_the_cpu(case: str) -> None:
    expected, task, graph = both(case)
    for query in QUERIES:
        one, other = expected.segment(query), task.segment(query)
        assert same(one, other)
        assert one.warnings == other.warnings
        assert dict(other.places) == dict.fromkeys(
            ("preprocess", "encoder", "match", "label"), "cuda"
        )
        assert set(one.places.values()) == {"cpu"}
        assert isinstance(other.raw_labels, np.ndarray) and isinstance(other.logits, np.ndarray)
        assert other.to_dict()["places"]["match"] == "cuda"
    assert graph.host_runs == 0, "features never left the device"


@pytest.mark.parametrize("features", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", ["panet", "srofb", "nearest"])
def test_features_of_16_bits(method: str, features: str) -> None:
    """`nearest` matches on the CPU, which takes no halves."""
    found = [
        segmenter(graph, method).prepare({"disc": [(SUPPORT, MASK)]}).segment(QUERIES[0])
        for graph in (Encoder(), OnDevice(features=features))
    ]
    assert np.mean(found[0].labels == found[1].labels) > 0.98


@pytest.mark.parametrize("case", ["panet", "srofb"])
def test_batches(case: str) -> None:
    expected, task, graph = both(case)
    graph.seen.clear()
    results = task.segment_batch(QUERIES, batch=2)
    assert [shape[0] for shape in graph.seen] == [2, 1]
    for one, other in zip(expected.segment_batch(QUERIES), results, strict=True):
        assert same(one, other)


def test_a_graph_with_a_fixed_batch() -> None:
    graph = OnDevice(4)
    task = segmenter(graph, "panet").prepare({"disc": [(SUPPORT, MASK)]})
    assert same(both("panet")[0].segment(QUERIES[1]), task.segment(QUERIES[1]))
    assert {shape[0] for shape in graph.seen} == {4}


def test_frames_of_the_device_stay_there() -> None:
    expected, task, graph = both("panet")
    context, query = graph.context, QUERIES[0]
    memory = context.array(query)
    foreign = Tensor(memory.pointer, query.shape, None, (1, 8))
    fields = {"shape": query.shape, "typestr": "|u1", "data": (memory.pointer, False)}
    for frame in (memory, foreign, Interface(**fields), ops.DeviceContext().array(query)):
        result = task.segment(frame)
        assert same(expected.segment(query), result)
    assert foreign.streams == [context.stream]
    assert np.array_equal(result.overlay(), expected.segment(query).overlay())
    with pytest.raises(InputError, match=r"\[H, W, 3\]"):
        task.segment(context.array(query[..., 0].copy()))
    with pytest.raises(InputError, match="uint8"):
        task.segment(context.array(query.astype(np.float32)))
    with pytest.raises(InputError, match="query"):
        expected.segment(memory)


def test_labels_may_stay() -> None:
    expected, task, _ = both("panet")
    for one, query in zip(task.segment_batch(QUERIES, output="device"), QUERIES, strict=True):
        other = expected.segment(query)
        assert isinstance(one.raw_labels, ops.DeviceArray) and one.raw_labels.dtype == "uint8"
        assert one.raw_labels.shape == query.shape[:2] == one.size
        assert np.mean(one.raw_labels.to_host() == other.raw_labels) > 0.999
        assert np.mean(one.labels == other.labels) > 0.999 and one.mask.dtype == np.bool_
        assert one.scores.shape == (2, *query.shape[:2])
    with pytest.raises(BackendError, match="output"):
        expected.segment_batch(QUERIES, output="device")
    with pytest.raises(BackendError, match="tiles"):
        task.segment_batch([np.tile(QUERIES[0], (3, 3, 1))], output="device", tile=True)


def test_a_method_that_matches_on_the_cpu_says_so() -> None:
    graph = OnDevice()
    task = segmenter(graph, "paia").prepare({"disc": [(SUPPORT, MASK)]})
    result = task.segment(QUERIES[0])
    assert any("matched on the CPU" in warning for warning in result.warnings)
    assert (result.places["encoder"], result.places["match"]) == ("cuda", "cpu")
    with pytest.raises(BackendError, match="paia"):
        task.segment_batch(QUERIES, output="device")


def test_tiles_are_matched_on_the_cpu() -> None:
    expected, task, graph = both("panet")
    large = np.tile(QUERIES[0], (3, 3, 1))
    result = task.segment(graph.context.array(large), tile=True)
    assert np.mean(result.raw_labels == expected.segment(large, tile=True).raw_labels) > 0.999
    assert result.places["match"] == "cpu" and any("tiles" in w for w in result.warnings)


@pytest.mark.parametrize("case", ["panet", "srofb"])
def test_a_warm_query_allocates_nothing(case: str) -> None:
    _, task, graph = both(case)
    for _ in range(3):
        task.segment(QUERIES[0])
    before = graph.context._allocations
    for _ in range(5):
        task.segment(QUERIES[0])
    assert graph.context._allocations == before


def test_features_that_are_not_finite() -> None:
    _, task, graph = both("panet")
    whole = graph.run_on_device

    def broken(feeds: Mapping[str, Any]) -> dict[str, Any]:
        features = whole(feeds)["features"].to_host()
        features[0, 3, 2, 2] = np.inf
        return {"features": graph.context.array(features)}

    graph.run_on_device = broken  # type: ignore[method-assign]
    with pytest.raises(InputError, match="finite"):
        task.segment(QUERIES[0])
    graph.run_on_device = whole  # type: ignore[method-assign]
    assert same(both("panet")[0].segment(QUERIES[0]), task.segment(QUERIES[0]))


def test_several_tasks_on_several_streams() -> None:
    expected = both("srofb")[0].segment(QUERIES[0])
    tasks = [both("srofb")[1] for _ in range(3)]
    results: list[Any] = [None] * len(tasks)

    def work(index: int) -> None:
        for _ in range(3):
            results[index] = tasks[index].segment(QUERIES[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(expected, result) for result in results)


def test_a_graph_with_notes_stays_on_the_device() -> None:
    graph = OnDevice()
    task = segmenter(NotedGraph(graph, ("slow",)), "panet").prepare({"disc": [(SUPPORT, MASK)]})
    result = task.segment(QUERIES[0])
    assert result.places["encoder"] == "cuda" and "slow" in result.warnings and graph.seen


def test_parameters_are_copied_once_and_end_with_their_array() -> None:
    resident, context = ops.Resident(), ops.DeviceContext()
    features, array = context.array(np.zeros((1, 2, 3, 4), np.float32)), np.ones(3, np.float32)
    copy = resident.beside(features, array)
    assert resident.beside(features, array) is copy and copy.to_host().tolist() == [1, 1, 1]
    other = ops.DeviceContext().array(np.zeros(1, np.float32))
    assert resident.beside(other, array).context is other.context
    assert resident.beside(features, array) is copy
    assert resident.beside(np.zeros(1), array) is array
    del array
    gc.collect()
    assert not resident._copies
