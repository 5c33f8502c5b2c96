"""A driver and a TensorRT for machines that have neither."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk import _kernels
from fsseg_sdk.backends.tensorrt import driver as probe
from tests.tensorrt.fake_trt import Fake


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).with_name("fake_cuda.c")
    subprocess.run(
        [compiler, "-x", "c", "-shared", "-fPIC", "-O1", "-o", library, source],
        check=True,
        timeout=60,
    )
    return library


@pytest.fixture
def driver(driver_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The fake driver is the one that is found; the cache is in a folder of the test."""
    library = ctypes.CDLL(str(driver_library))
    library.fake_reset(1, 0)
    kernels = ctypes.CDLL(_kernels.__file__)
    if hasattr(kernels, "fsseg_emulated_enqueue"):
        library.fake_join(kernels.fsseg_emulated_capturing, kernels.fsseg_emulated_enqueue)
    monkeypatch.setattr(probe, "LIBRARIES", (str(driver_library),))
    monkeypatch.setattr(probe, "_VERSION_FILES", ())
    monkeypatch.setenv("FSSEG_ENGINE_CACHE", str(tmp_path / "engines"))
    monkeypatch.delenv("FSSEG_TENSORRT", raising=False)
    probe._probe.cache_clear()
    yield library
    probe._probe.cache_clear()


@pytest.fixture
def install(driver: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Makes a fake module the installed TensorRT."""

    def installed(version: str = "11.4.0.106", **settings: Any) -> Fake:
        fake = Fake(driver, version, **settings)
        monkeypatch.setitem(sys.modules, "tensorrt", fake)  # type: ignore[arg-type]
        return fake

    return installed
