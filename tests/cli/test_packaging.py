"""What is shipped, and whether the lists of requirements agree."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_name(requirement: str) -> str:
    return re.split(r"[<>=!\[; ]", requirement, maxsplit=1)[0].lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements" / "test.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.split("#")[0].strip() for line in lines]
    return {package_name(line): line for line in wanted if line}


def test_the_test_environment_has_all_that_the_extras_name() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in ("cpu", "video", "train", "dev"):
        named += extras[extra]
    assert sorted({package_name(line) for line in named} - set(pinned())) == []


def test_exact_versions_are_the_same_in_both_places() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    exact = [line for line in extras["train"] if "==" in line]
    assert "torch==2.13.0" in exact
    assert [line for line in exact if pinned()[package_name(line)] != line] == []


def test_the_runtime_needs_numpy_and_pillow_alone() -> None:
    needed = PROJECT["project"]["dependencies"]
    assert [package_name(line) for line in needed] == ["numpy", "pillow"]
    assert all("==" not in line for line in needed), "ranges, so that every Python can have one"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lib/: the Python part of a wheel; sdist/: an unpacked source distribution."""
    room = tmp_path_factory.mktemp("built")
    source = room / "source"
    skip = shutil.ignore_patterns(".*", "build*", "*.egg-info", "__pycache__", "*-out", "runs")
    shutil.copytree(ROOT, source, ignore=skip)
    (source / "fsseg_sdk" / "assets").mkdir(exist_ok=True)
    (source / "fsseg_sdk" / "assets" / "other.fsseg").write_bytes(b"a bundle")
    (source / "fsseg_sdk" / "assets" / "notes.txt").write_text("not a bundle")
    (source / "fsseg_sdk" / "_kernels.stale.so").write_bytes(b"of another build")
    commands = ["build_py", "--build-lib", str(room / "lib"), "sdist", "--formats", "gztar"]
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *commands, "--dist-dir", str(room / "dist")],
        cwd=source,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = (room / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, room / "unpacked", filter="data")
    (room / "unpacked").iterdir().__next__().rename(room / "sdist")
    return room


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_the_runtime_alone(built: Path) -> None:
    inside = files(built / "lib")
    assert {name.split("/")[0] for name in inside} == {"fsseg_sdk"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fsseg_sdk").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert sources <= inside
    assert {"fsseg_sdk/py.typed", "fsseg_sdk/assets/other.fsseg"} <= inside
    assert not [name for name in inside if name.endswith((".so", ".txt", ".cpp"))]


def test_the_source_distribution_can_build_the_wheel(built: Path) -> None:
    inside = files(built / "sdist")
    kernels = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in (".cpp", ".h", ".cu", ".cuh")
    }
    assert kernels <= inside
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= inside
    assert not [name for name in inside if name.split("/")[0] in ("tests", "training", "export")]
    assert not [name for name in inside if name.endswith((".so", ".o"))]


def test_files_that_users_are_pointed_to_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert linked, "the README links its pages"
    assert [name for name in linked if not (ROOT / name).exists()] == []
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_no_figure_of_the_readme_is_left_open() -> None:
    assert "TODO-FIGURE" not in (ROOT / "README.md").read_text(encoding="utf-8")


DRIVER = """
#define API __attribute__((visibility("default")))
API int cuInit(unsigned flags) { return FAILS; }
API int cuDeviceGetCount(int *count) { *count = 4; return 0; }
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const int known[4][2] = {{9, 0}, {8, 7}, {6, 1}, {9, 0}};
    *value = known[device][attribute - 75];
    return 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's library has its Linux name")
@pytest.mark.parametrize(("fails", "expected"), [(0, "['87', '90']"), (100, "[]"), (None, "[]")])
def test_kernels_are_built_for_the_gpus_that_are_here(
    tmp_path: Path, fails: int | None, expected: str
) -> None:
    """Each once, and none that is too old for them. fails: what a driver that finds no device
    answers; None: there is no driver."""
    if fails is not None:
        (tmp_path / "driver.c").write_text(DRIVER.replace("FAILS", str(fails)))
        library = tmp_path / "libcuda.so.1"
        compiler = ["cc", "-shared", "-fPIC", str(tmp_path / "driver.c"), "-o", str(library)]
        subprocess.run(compiler, check=True)
    elif ctypes.util.find_library("cuda"):
        pytest.skip("there is a driver")
    ask = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None; "
        "print(runpy.run_path('setup.py')['architectures_here']())"
    )
    found = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == expected
