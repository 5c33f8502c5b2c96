"""Backends: what is asked is what runs, or an error says why not; also across processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import backends
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph, probe, probing, registry
from fsseg_sdk.backends.checks import choose_threads
from fsseg_sdk.backends.onnxruntime import saturates
from fsseg_sdk.errors import BackendError, InputError
from tests.quantised import tiny_fp16, tiny_int8
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_features, tiny_onnx

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(5)
IMAGE = RNG.standard_normal((2, 3, 64, 64)).astype(np.float32)
BLOCKS = np.repeat(np.repeat(IMAGE[..., ::8, ::8], 8, -1), 8, -2)  # averages that are not near 0

# Every backend of this machine's CPU goes through the same tests.
INSTALLED = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
each = pytest.mark.parametrize("backend", INSTALLED)


@pytest.fixture(scope="module", params=INSTALLED)
def graph(request: pytest.FixtureRequest) -> Graph:
    return open_graph(tiny_onnx(), SPEC, backend=request.param, threads=1)


# --- what runs -----------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("half", [False, True])
def test_the_right_numbers(backend: str, half: bool) -> None:
    graph = open_graph(memoryview(tiny_onnx(half=half)), SPEC, backend=backend)
    assert isinstance(graph, Graph)
    assert (graph.backend, graph.device, graph.precision) == (backend, "cpu", "fp32")
    assert (graph.inputs, graph.outputs) == (SPEC.inputs, SPEC.outputs)
    features = graph.run({"image": IMAGE})["features"]
    assert features.dtype == np.float32
    tolerance = 1e-2 if half else 1e-5
    assert np.abs(features - tiny_features(IMAGE)).max() <= tolerance


# (precision, compute, flavour) -> the file, and the largest error: float16 keeps 11 bits, bfloat16
# 8, int8 has 8 bits of inputs up to 3.5 or so. The features are between -1 and 1.
NARROW: dict[tuple[str, str, str], tuple[Callable[[], bytes], float]] = {
    ("fp16", "float16", ""): (tiny_fp16, 3e-3),
    ("bf16", "float32", ""): (tiny_onnx, 3e-2),
    ("int8", "int8", "s8s8"): (lambda: tiny_int8("s8s8"), 8e-2),
    ("int8", "int8", "u8s8"): (lambda: tiny_int8("u8s8"), 8e-2),
}


@each
@pytest.mark.parametrize("kind", NARROW, ids=" ".join)
def test_the_right_numbers_in_every_precision(backend: str, kind: tuple[str, str, str]) -> None:
    (precision, compute, flavour), (data, tolerance) = kind, NARROW[kind]
    spec = replace(SPEC, compute=compute, storage=compute, flavour=flavour)
    if (compute, flavour) not in registry.kinds(backend).get(precision, ()):
        words = (
            r"backend 'openvino', graph: expected a file for int8: int8 s8s8, got int8 u8s8 .*"
            r"The backend 'onnxruntime' takes what the bundle has\."
            if precision == "int8"
            else f"backend '{backend}', precision: expected 'fp32'"
        )
        with pytest.raises(BackendError, match=words):
            open_graph(data(), spec, backend=backend, precision=precision)
        return
    if precision == "bf16" and precision not in probed(backend).precisions:
        with pytest.raises(BackendError, match="expected a processor with bfloat16"):
            open_graph(data(), spec, backend=backend, precision=precision)
        return
    graph = open_graph(data(), spec, backend=backend, precision=precision, threads=1)
    assert (graph.backend, graph.precision) == (backend, precision)
    features = graph.run({"image": BLOCKS})["features"]
    assert features.dtype == np.float32
    error = np.abs(features - tiny_features(BLOCKS)).max()
    assert 1e-6 < error <= tolerance  # no error at all would be another precision
    assert np.array_equal(graph.run({"image": BLOCKS})["features"], features)
    slow = backend == "onnxruntime" and (flavour == "s8s8" or precision == "fp16")
    said = getattr(graph, "warnings", ())
    assert bool([text for text in said if " is slow on " in text]) == slow
    saturating = backend == "onnxruntime" and flavour == "u8s8" and saturates()
    assert bool([text for text in said if "may saturate" in text]) == saturating


def test_a_processor_that_may_saturate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the flags that Linux lists; elsewhere, and on other processors, nothing is claimed."""
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, right in (("fpu avx2", True), ("avx512_vnni", False), ("avx2 avx_vnni", False)):
        info.write_text(f"model name : avx512_vnni\nflags : {flags}\n")
        assert saturates(str(info)) == right
    assert not saturates(str(tmp_path / "none"))
    info.write_text("flags : fpu\n")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not saturates(str(info))
    monkeypatch.setattr("fsseg_sdk.backends.onnxruntime.saturates", lambda: True)
    spec = replace(SPEC, compute="int8", storage="int8", flavour="u8s8")
    graph = open_graph(tiny_int8("u8s8"), spec, backend="onnxruntime", threads=1)
    assert "may saturate" in getattr(graph, "warnings")[0]  # noqa: B009 (not of the protocol)


def probed(backend: str) -> backends.BackendStatus:
    return next(status for status in probe() if status.name == backend)


def test_any_batch_and_any_strides(graph: Graph) -> None:
    wide = np.zeros((2, 3, 64, 128), np.float32)
    wide[..., ::2] = IMAGE
    kept = wide.copy()
    strided = graph.run({"image": wide[..., ::2]})["features"]
    assert np.array_equal(strided, graph.run({"image": IMAGE})["features"])
    assert np.array_equal(wide, kept)
    locked = IMAGE.copy()
    locked.flags.writeable = False
    assert np.array_equal(graph.run({"image": locked})["features"], strided)
    locked.flags.writeable = True
    swapped = IMAGE.astype(IMAGE.dtype.newbyteorder())
    assert np.array_equal(graph.run({"image": swapped})["features"], strided)
    for count in (1, 2, 5):
        assert graph.run({"image": np.repeat(IMAGE[:1], count, 0)})["features"].shape[0] == count


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "expected the inputs image, got nothing"),
        ({"picture": IMAGE}, "got picture"),
        ({"image": IMAGE, "more": IMAGE}, "got image, more"),
        ({"image": IMAGE.tolist()}, "feeds['image']: expected a numpy array"),
        ({"image": None}, "got a NoneType"),
        ({"image": IMAGE.astype(np.float64)}, "got float64 [2, 3, 64, 64]"),
        ({"image": IMAGE.astype(np.float16)}, "got float16"),
        ({"image": IMAGE.astype(object)}, "got object"),
        ({"image": IMAGE[0]}, "got float32 [3, 64, 64]"),
        ({"image": IMAGE[:0]}, "got float32 [0, 3, 64, 64]"),
        ({"image": IMAGE[:, :2]}, "got float32 [2, 2, 64, 64]"),
        ({"image": IMAGE[..., :63]}, "got float32 [2, 3, 64, 63]"),
        ({"image": IMAGE[None]}, "got float32 [1, 2, 3, 64, 64]"),
    ],
)
def test_arrays_that_do_not_fit(graph: Graph, feeds: dict[str, Any], words: str) -> None:
    before = graph.run({"image": IMAGE})["features"]
    with pytest.raises(InputError) as caught:
        graph.run(feeds)
    assert words in str(caught.value)
    assert np.array_equal(graph.run({"image": IMAGE})["features"], before)


def test_many_threads_at_once(graph: Graph) -> None:
    images = RNG.standard_normal((16, 1, 3, 64, 64)).astype(np.float32)
    serial = [graph.run({"image": image})["features"] for image in images]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(20):
                found = graph.run({"image": images[index]})["features"]
                np.testing.assert_array_equal(found, serial[index])
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert not any(thread.is_alive() for thread in threads)


@each
def test_one_thread_and_many_give_the_same_bits(backend: str) -> None:
    one, many = (
        open_graph(tiny_onnx(), SPEC, backend=backend, threads=threads).run({"image": IMAGE})
        for threads in (1, 3)
    )
    assert np.array_equal(one["features"], many["features"])


def test_a_result_is_the_callers(graph: Graph) -> None:
    """The next run does not write into it, nor does it change with the array that went in."""
    image = IMAGE.copy()
    first = graph.run({"image": image})["features"]
    kept = first.copy()
    image[:] = 0
    graph.run({"image": image})
    assert np.array_equal(first, kept)


# --- what is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"backend": "tensorflow"}, "expected auto or "),
        ({"backend": "onnx"}, "pip install fsseg_sdk[cpu]"),
        ({"backend": ""}, "fsseg doctor"),
        ({"device": "cuda", "backend": "onnxruntime"}, "expected CUDAExecutionProvider"),
        ({"device": "tpu", "backend": "onnxruntime"}, "device: expected 'cpu' or 'cuda', got 'tpu"),
        ({"device": "cuda", "backend": "openvino"}, "device: expected 'cpu', got 'cuda'"),
        ({"device": "cpu", "backend": "onnxruntime-tensorrt"}, "device: expected 'cuda'"),
        ({"backend": "onnxruntime-tensorrt"}, "expected TensorrtExecutionProvider"),
        ({"precision": "fp16", "backend": "openvino"}, "expected 'fp32' or 'bf16' or 'int8'"),
        ({"precision": "bf16", "backend": "onnxruntime"}, "expected 'fp32' or 'fp16' or 'int8'"),
        ({"precision": "int8"}, "a file for int8: int8 u8s8"),
        ({"precision": "fp16"}, "a file for fp16: float16"),
        ({"precision": "float32"}, "expected auto or fp32 or bf16 or fp16 or int8"),
    ],
)
def test_what_cannot_be_had(asked: dict[str, str], words: str) -> None:
    with pytest.raises(BackendError) as caught:
        open_graph(tiny_onnx(), SPEC, **asked)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "asked",
    [{}, {"backend": "onnxruntime"}, {"device": "cpu"}, {"precision": "fp32"}, {"threads": 2}],
)
def test_what_can(asked: dict[str, Any]) -> None:
    graph = open_graph(tiny_onnx(), SPEC, **asked)
    assert (graph.backend, graph.device, graph.precision) == ("onnxruntime", "cpu", "fp32")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compute": "int8"}, "computes in int8, got one with no quantised activations"),
        ({"compute": "int8", "flavour": "s8s8"}, "computes in int8 s8s8, got one with no"),
    ],
)
def test_a_graph_that_is_not_quantised_as_it_says(change: dict[str, str], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        open_graph(tiny_onnx(), replace(SPEC, **change), backend="onnxruntime")
    with pytest.raises(BackendError, match="computes in float32, got one with u8s8"):
        open_graph(tiny_int8("u8s8"), SPEC, backend="onnxruntime")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 10_000])
def test_threads_that_are_none(threads: Any) -> None:
    with pytest.raises(InputError, match="threads: expected a number of threads"):
        open_graph(tiny_onnx(), SPEC, threads=threads)


def test_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSSEG_NUM_THREADS", "3")
    assert (choose_threads(None), choose_threads(2)) == (3, 2)
    monkeypatch.setenv("FSSEG_NUM_THREADS", "many")
    with pytest.raises(InputError, match="FSSEG_NUM_THREADS"):
        choose_threads(None)
    monkeypatch.delenv("FSSEG_NUM_THREADS")
    if hasattr(os, "sched_setaffinity"):
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(usable)})
        try:
            assert choose_threads(None) == 1
        finally:
            os.sched_setaffinity(0, usable)


def test_no_fallback_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime goes on with another provider than asked; then there is no graph."""
    import onnxruntime

    class Fallen(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            assert settings["enable_fallback"] == 0  # it would print, and try the next provider
            super().__init__(*arguments, **settings)

        def get_providers(self) -> list[str]:
            return ["AzureExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(BackendError, match=r"expected CPUExecutionProvider.*got 'Azure"):
        open_graph(tiny_onnx(), SPEC, backend="onnxruntime")


@each
def test_a_graph_that_only_the_runtime_refuses(
    backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sound by its form; its operator does not exist. A typed error, and nothing printed."""
    data = tiny_onnx().replace(b"Tanh", b"Tang")
    with pytest.raises(BackendError, match=r"encoder\.onnx: expected a graph.*Tang"):
        open_graph(data, SPEC, backend=backend)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_gives_something_else(graph: Graph) -> None:
    """The manifest pins an axis that the graph leaves free: seen when it runs."""
    image = TensorInfo("image", "float32", (-1, 3, 64, 64))
    pinned = GraphSpec("e.onnx", (image,), (TensorInfo("features", "float32", (1, 16, 8, 8)),))
    with pytest.raises(BackendError, match=r"output 'features'.*\[1, 16, 8, 8\].*got float32 \[2,"):
        open_graph(tiny_onnx(), pinned, backend="onnxruntime").run({"image": IMAGE})


# --- probing -------------------------------------------------------------------------------------


def test_probe() -> None:
    statuses = {status.name: status for status in probe()}
    assert set(statuses) == set(backends.names())
    for name in INSTALLED:
        status = statuses[name]
        assert (status.available, status.device, status.reason) == (True, "cpu", "")
        assert {"fp32", "int8"} <= set(status.precisions)
        assert status.version and status.version[0].isdigit()


def test_the_probes_graph_is_valid_onnx() -> None:
    import onnx

    onnx.checker.check_model(onnx.load_from_string(probing.PROBE), full_check=True)


@each
def test_probe_sees_wrong_results(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(open_graph(tiny_onnx(), SPEC, backend=backend))
    monkeypatch.setattr(kind, "run", lambda self, feeds: {"features": feeds["image"]})
    status = probed(backend)
    assert not status.available
    assert "wrongly" in status.reason


def python(code: str, *arguments: str, path: Path | None = None, **environment: str) -> str:
    """Runs code in a fresh process and returns what it printed."""
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    env |= environment
    env["PYTHONPATH"] = os.pathsep.join([str(entry) for entry in (path, ROOT) if entry])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "remedy"), [("onnxruntime", "[cpu]"), ("openvino", "[openvino]")])
def test_a_runtime_that_is_missing(name: str, remedy: str) -> None:
    out = python(f"""
import sys
sys.modules[{name!r}] = None  # what an import finds that finds nothing
from fsseg_sdk.backends import GraphSpec, TensorInfo, open_graph, probe
from fsseg_sdk.errors import BackendError
from tests.tiny import CHANNELS, GRID, SIZE, tiny_onnx
image = TensorInfo("image", "float32", (-1, 3, *SIZE))
features = TensorInfo("features", "float32", (-1, CHANNELS, *GRID))
spec = GraphSpec("encoder.onnx", (image,), (features,))
(status,) = [status for status in probe() if status.name == {name!r}]
print(status.available, status.reason)
try:
    open_graph(tiny_onnx(), spec, backend={name!r})
except BackendError as error:
    print(error)
""")
    assert out.startswith("False")
    assert out.count(f"pip install fsseg_sdk{remedy}") == 2


FIND = """
from fsseg_sdk.backends import probe
(found,) = [status for status in probe() if status.name == "onnxruntime"]
"""


@pytest.mark.parametrize("broken", [False, True])
def test_two_wheels_over_each_other(tmp_path: Path, broken: bool) -> None:
    """onnxruntime and onnxruntime-gpu share one folder; removing one leaves half a package."""
    for wheel in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{wheel}-1.31.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {wheel.replace('_', '-')}\nVersion: 1.31.1\n"
        )
    if broken:
        (tmp_path / "onnxruntime").mkdir()
        (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    code = f"{FIND}\nprint(found.available, found.reason)"
    out = python(code, path=tmp_path)
    assert out.startswith(str(not broken))
    assert "both onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are installed" in out
    assert "uninstall both" in out


def test_telemetry_is_off_and_stays_as_the_user_wants() -> None:
    code = f"""{FIND}
import os
assert found.available
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    assert python(code).strip() == "1"
    assert python(code, ORT_DISABLE_TELEMETRY="0").strip() == "0"


def test_importing_backends_imports_no_runtime() -> None:
    code = """
import sys, fsseg_sdk.bundle, fsseg_sdk.backends.openvino, fsseg_sdk.backends.onnxruntime
print({'onnxruntime', 'openvino'} & set(sys.modules))
"""
    assert python(code) == "set()\n"


# --- other processes -----------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work: Callable[[], object], seconds: float = 10.0) -> int:
    """Exit status of a forked child that does `work` and then ends as a program would."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (only the status gets out)
            os._exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError("the child hangs")


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the point
@each
@pytest.mark.parametrize("threads", [1, 2])
def test_a_graph_from_before_a_fork(backend: str, threads: int) -> None:
    graph = open_graph(tiny_onnx(), SPEC, backend=backend, threads=threads)
    right = graph.run({"image": IMAGE})["features"]

    def work() -> None:
        with pytest.raises(BackendError, match="loaded before fork; load in the worker"):
            graph.run({"image": IMAGE})
        own = open_graph(tiny_onnx(), SPEC, backend=backend, threads=threads)
        assert np.array_equal(own.run({"image": IMAGE})["features"], right)

    assert in_child(work) == 0
    assert np.array_equal(graph.run({"image": IMAGE})["features"], right)


PREFORK = """
import os, sys, time
import numpy as np
from fsseg_sdk.backends import open_graph
from fsseg_sdk.errors import BackendError
from tests.test_onnx_safety import SPEC
from tests.tiny import tiny_onnx
image = np.ones((1, 3, 64, 64), np.float32)
backend = sys.argv[1]
graph = open_graph(tiny_onnx(), SPEC, backend=backend, threads=2)
right = graph.run({"image": image})["features"]
workers = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            graph.run({"image": image})
        except BackendError as error:
            assert "load in the worker" in str(error)
            del graph  # a worker that replaces what it inherited
            graph = open_graph(tiny_onnx(), SPEC, backend=backend, threads=2)
            assert np.array_equal(graph.run({"image": image})["features"], right)
            sys.exit(0)  # the whole way out, with every destructor
        sys.exit(1)
    workers.append(pid)
for pid in workers:
    for _ in range(1000):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            print(os.waitstatus_to_exitcode(status))
            break
        time.sleep(0.01)
    else:
        os.kill(pid, 9)
        print("hangs")
"""


@needs_fork
@each
def test_prefork_workers_end_as_they_should(backend: str) -> None:
    """Like gunicorn with an application loaded in the master: the workers must not hang on exit,
    which ONNX Runtime's inherited threads would make them do."""
    assert python(PREFORK, backend) == "0\n0\n"


def spawned(backend: str, index: int) -> float:
    graph = open_graph(tiny_onnx(), SPEC, backend=backend, threads=1)
    return float(graph.run({"image": IMAGE})["features"][0, index].sum())


def test_spawned_workers(graph: Graph) -> None:
    right = graph.run({"image": IMAGE})["features"][0]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap_async(spawned, [(graph.backend, 0), (graph.backend, 5)]).get(60)
    assert found == [float(right[0].sum()), float(right[5].sum())]
