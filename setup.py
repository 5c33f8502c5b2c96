"""Builds fsseg_sdk._kernels from csrc/. Metadata lives in pyproject.toml.

Environment:
  FSSEG_CUDA      auto (default) | 0 | 1: build the CUDA kernels. auto = if nvcc is found and csrc
                  has .cu files; 1 = required, an error if that cannot be done; emulated = for
                  tests: the .cu files by the C++ compiler, for a device that tests/cuda/emulation
                  plays
  FSSEG_CUDA_ARCHITECTURES  e.g. 90 or 75;87, or all (from 75 to 120 that nvcc knows, minutes): the
                  compute capabilities to build for. Default: those of the GPUs that are here; all
                  where none is seen, as in a container that is being built
  FSSEG_LEVELS    SIMD levels to build beside generic, comma separated (default: all that this
                  kind of processor may have); "" = generic only
  FSSEG_SANITIZE  e.g. address,undefined   for tests
  CUDA_HOME, CXX, CXXFLAGS                 as usual

Each csrc/<op>/<op>.cpp is compiled once for each SIMD level, with that level's flags, into its own
namespace (csrc/core/simd.h). All other files are compiled once, without such flags.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
EMULATION = ROOT / "tests" / "cuda" / "emulation"

X86_LEVELS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
        *("-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
    ],
}
ARM_LEVELS: dict[str, list[str]] = {"neon": []}

# Never -ffast-math: NaN must be seen, and results must not depend on the compiler's mood.
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"),
]
CUDA_ARCHITECTURES = ["75", "80", "87", "89", "90", "100", "110", "120"]


def simd_levels() -> dict[str, list[str]]:
    """Name -> compiler flags of the levels to build beside generic."""
    machine = platform.machine().lower()
    known: dict[str, list[str]] = {}
    if os.name == "posix" and machine in ("x86_64", "amd64"):
        known = X86_LEVELS
    elif os.name == "posix" and machine in ("aarch64", "arm64"):
        known = ARM_LEVELS
    wanted = os.environ.get("FSSEG_LEVELS")
    if wanted is None:
        return known
    names = [name for name in wanted.split(",") if name not in ("", "generic")]
    for name in names:
        if name not in known:
            raise SystemExit(f"FSSEG_LEVELS: expected some of {sorted(known)}, got {name!r}")
    return {name: known[name] for name in names}


def find_nvcc() -> str | None:
    """The CUDA compiler from CUDA_HOME, PATH or the default place."""
    for folder in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if folder and (Path(folder) / "bin" / "nvcc").is_file():
            return str(Path(folder) / "bin" / "nvcc")
    found = shutil.which("nvcc")
    default = Path("/usr/local/cuda/bin/nvcc")
    return found or (str(default) if default.is_file() else None)


@dataclass(frozen=True)
class Cuda:
    """What is built of CUDA, and by what."""

    reason: str
    nvcc: str | None = None
    root: Path | None = None
    emulated: bool = False

    @property
    def built(self) -> bool:
        return self.nvcc is not None or self.emulated


def cuda_choice() -> Cuda:
    """What the environment asks for, as far as it can be had here."""
    setting = os.environ.get("FSSEG_CUDA", "auto")
    if setting not in ("auto", "0", "1", "emulated"):
        raise SystemExit(f"FSSEG_CUDA: expected auto, 0, 1 or emulated, got {setting!r}")
    if setting == "0":
        return Cuda("switched off by FSSEG_CUDA=0 when it was built")
    if setting == "emulated":
        return Cuda("emulated on the CPU, for tests", emulated=True)
    nvcc = find_nvcc()
    if nvcc is None:
        if setting == "1":
            raise SystemExit(
                "FSSEG_CUDA=1: nvcc was not found in CUDA_HOME, PATH or /usr/local/cuda; "
                "install the CUDA toolkit or set FSSEG_CUDA=0"
            )
        return Cuda("nvcc was not found when it was built")
    return Cuda(f"built with {nvcc}", nvcc, toolkit_of(nvcc))


def toolkit_of(nvcc: str) -> Path:
    """The folder of the CUDA toolkit, which nvcc itself names: it may be a link or a script."""
    done = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True
    )
    for line in done.stderr.splitlines():
        name, _, value = line.removeprefix("#$ ").partition("=")
        if name == "TOP" and Path(value).is_dir():
            return Path(value).resolve()
    return Path(nvcc).resolve().parent.parent


def cuda_codes(nvcc: str) -> list[str]:
    """nvcc's words for the architectures to build for; the newest also for what comes after it."""
    setting = os.environ.get("FSSEG_CUDA_ARCHITECTURES", "")
    names = [name.strip() for name in setting.replace(",", ";").split(";") if name.strip()]
    names = names or architectures_here()
    if names in ([], ["all"]):
        known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout
        names = [name for name in CUDA_ARCHITECTURES if f"sm_{name}" in known.split()]
        if not names:
            raise SystemExit(f"{nvcc} knows none of {CUDA_ARCHITECTURES}: {known!r}")
    if not all(name.isdigit() for name in names):
        raise SystemExit(
            f"FSSEG_CUDA_ARCHITECTURES: expected e.g. 90 or 75;87, or all, got {setting!r}"
        )
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in names]
    return [*codes, f"-gencode=arch=compute_{names[-1]},code=compute_{names[-1]}"]


def architectures_here() -> list[str]:
    """Those of the GPUs that the driver shows, as its library says (a Jetson's nvidia-smi does not
    know them); none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    found = set()
    for device in range(count.value):
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR; ordinals are device handles
        for value, attribute in ((major, 75), (minor, 76)):
            if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
                return []
        found.add(10 * major.value + minor.value)
    oldest = int(CUDA_ARCHITECTURES[0])
    return [str(architecture) for architecture in sorted(found) if architecture >= oldest]


def newest(made_of: Path) -> float:
    """When the youngest of the files in a compiler's list was changed; one that is gone: now."""
    try:
        words = shlex.split(made_of.read_text().replace("\\\n", " ").partition(": ")[2])
        return max(Path(word).stat().st_mtime for word in words)
    except (OSError, ValueError):
        return float("inf")


class BuildKernels(build_ext):
    """One object per source and level, rebuilt when anything that it may see is newer."""

    def build_extension(self, ext: Extension) -> None:
        levels = simd_levels()
        cuda = cuda_choice()
        sanitize = os.environ.get("FSSEG_SANITIZE")
        extra = (
            [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g1", "-O1"]
            if sanitize
            else []
        )
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        flags = [*FLAGS, *extra, *shlex.split(os.environ.get("CXXFLAGS", "")), f"-I{CSRC}"]

        common = [f"-DFSSEG_HAVE_{name.upper()}=1" for name in levels]
        common += [f'-DFSSEG_CUDA_REASON="{cuda.reason}"', f"-DFSSEG_CUDA_BUILT={int(cuda.built)}"]
        on_device = ["-DFSSEG_CUDA=1"] if cuda.built else []
        if cuda.emulated:
            on_device += ["-DFSSEG_CUDA_EMULATED=1", f"-I{EMULATION}"]
        if cuda.root:
            on_device += [f"-isystem{cuda.root / 'include'}"]
        common += on_device
        python = [f"-isystem{path}" for path in (pybind11.get_include(), *self.include_dirs)]
        python += [f"-isystem{path}" for path in self.compiler.include_dirs]

        per_level = sorted(p for p in CSRC.glob("*/*.cpp") if p.stem == p.parent.name)
        per_level += sorted(CSRC.glob("core/*.simd.cpp"))
        once = [p for p in CSRC.rglob("*.cpp") if p not in per_level]
        kernels = sorted(CSRC.glob("*/*.cu")) if cuda.built else []
        build = Path(self.build_temp)
        jobs: list[tuple[Path, Path, list[str]]] = []
        for source in sorted(once):
            jobs.append((source, build / "common", [*compiler, *flags, *common, *python]))
        for level, level_flags in {"generic": [], **levels}.items():
            # GCC 12's own intrinsics set off the uninitialized warnings.
            quiet = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
            command = [*compiler, *flags, *quiet, *level_flags, f"-DFSSEG_SIMD_{level.upper()}=1"]
            jobs += [(source, build / level, command) for source in per_level]
        if cuda.nvcc:
            cores = os.cpu_count() or 1
            command = [cuda.nvcc, "-std=c++17", "-O3", f"-I{CSRC}", "-DFSSEG_CUDA=1"]
            command += ["-Xcompiler=-fPIC,-fvisibility=hidden", *cuda_codes(cuda.nvcc)]
            command += ["-t", str(max(1, 2 * cores // len(kernels)))]
            jobs = [(source, build / "cuda", command) for source in kernels] + jobs
        elif cuda.emulated:
            # The kernels' own pragmas mean nothing to a C++ compiler.
            command = [*compiler, *flags, *on_device, "-O1", "-Wno-unknown-pragmas", "-x", "c++"]
            played = sorted(EMULATION.glob("*.cpp"))
            jobs += [(source, build / "cuda", command) for source in [*kernels, *played]]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda job: self.compile_one(*job), jobs))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        link = [
            *compiler,
            "-shared",
            "-pthread",
            *extra,
            *shlex.split(os.environ.get("LDFLAGS", "")),
        ]
        if platform.system() == "Darwin":
            link += ["-undefined", "dynamic_lookup"]
        cuda_libraries = ["-lcudart_static", "-ldl", "-lrt"] if cuda.root else []
        if cuda.root:
            link += [f"-L{cuda.root / name}" for name in ("lib64", "lib")]
        fresh = target.with_name(
            target.name + ".new"
        )  # renamed: a running process keeps the old file
        subprocess.run([*link, *map(str, objects), *cuda_libraries, "-o", str(fresh)], check=True)
        fresh.replace(target)

    def compile_one(self, source: Path, folder: Path, command: list[str]) -> Path:
        """Compile, unless the object is newer than all that it was made of, by the same command."""
        own = source.relative_to(CSRC) if source.is_relative_to(CSRC) else Path(source.name)
        target = folder / own.with_suffix(source.suffix + ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        made_of = target.with_suffix(".d")
        line = [*command, "-c", str(source), "-o", str(target), "-MMD", "-MF", str(made_of)]
        note = target.with_suffix(".command")
        if (
            not self.force
            and target.is_file()
            and note.is_file()
            and note.read_text() == shlex.join(line)
            and target.stat().st_mtime > newest(made_of)
        ):
            return target
        note.unlink(missing_ok=True)
        result = subprocess.run(line, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{shlex.join(line)}\n{result.stdout}{result.stderr}")
        if result.stderr:
            print(result.stderr)
        note.write_text(shlex.join(line))
        return target


setup(
    ext_modules=[Extension("fsseg_sdk._kernels", sources=[])],
    cmdclass={"build_ext": BuildKernels},
)
