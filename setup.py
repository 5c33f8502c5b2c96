"""Builds fsseg_sdk._kernels from csrc/. Metadata lives in pyproject.toml.

Environment:
  FSSEG_CUDA      auto (default) | 0 | 1: build the CUDA kernels. auto = if nvcc is found and csrc
                  has .cu files; 1 = required, an error if that cannot be done
  FSSEG_LEVELS    SIMD levels to build beside generic, comma separated (default: all that this
                  kind of processor may have); "" = generic only
  FSSEG_SANITIZE  e.g. address,undefined   for tests
  CUDA_HOME, CXX, CXXFLAGS                 as usual

Each csrc/<op>/<op>.cpp is compiled once for each SIMD level, with that level's flags, into its own
namespace (csrc/core/simd.h). All other files are compiled once, without such flags.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"

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


def cuda_choice() -> tuple[str | None, list[Path], str]:
    """(nvcc or None, .cu files, why it is or is not built)."""
    setting = os.environ.get("FSSEG_CUDA", "auto")
    if setting not in ("auto", "0", "1"):
        raise SystemExit(f"FSSEG_CUDA: expected auto, 0 or 1, got {setting!r}")
    sources = sorted(CSRC.glob("*/*.cu"))
    nvcc = find_nvcc()
    if setting == "0":
        return None, [], "switched off by FSSEG_CUDA=0 when it was built"
    if nvcc is None:
        if setting == "1":
            raise SystemExit(
                "FSSEG_CUDA=1: nvcc was not found in CUDA_HOME, PATH or /usr/local/cuda; "
                "install the CUDA toolkit or set FSSEG_CUDA=0"
            )
        return None, [], "nvcc was not found when it was built"
    if not sources:
        if setting == "1":
            raise SystemExit("FSSEG_CUDA=1: this version has no CUDA kernels; set FSSEG_CUDA=0")
        return None, [], "this version has no CUDA kernels"
    return nvcc, sources, f"built with {nvcc}"


class BuildKernels(build_ext):
    """One object per source and level, rebuilt when anything that it may see is newer."""

    def build_extension(self, ext: Extension) -> None:
        levels = simd_levels()
        nvcc, cuda_sources, reason = cuda_choice()
        sanitize = os.environ.get("FSSEG_SANITIZE")
        extra = (
            [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g1", "-O1"]
            if sanitize
            else []
        )
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        flags = [*FLAGS, *extra, *shlex.split(os.environ.get("CXXFLAGS", "")), f"-I{CSRC}"]

        common = [f"-DFSSEG_HAVE_{name.upper()}=1" for name in levels]
        common += [f'-DFSSEG_CUDA_REASON="{reason}"', f"-DFSSEG_CUDA_BUILT={int(nvcc is not None)}"]
        common += ["-DFSSEG_CUDA=1"] if nvcc else []
        python = [f"-isystem{path}" for path in (pybind11.get_include(), *self.include_dirs)]
        python += [f"-isystem{path}" for path in self.compiler.include_dirs]

        per_level = sorted(p for p in CSRC.glob("*/*.cpp") if p.stem == p.parent.name)
        per_level += sorted(CSRC.glob("core/*.simd.cpp"))
        once = [p for p in CSRC.rglob("*.cpp") if p not in per_level]
        build = Path(self.build_temp)
        jobs: list[tuple[Path, Path, list[str]]] = []
        for source in sorted(once):
            jobs.append((source, build / "common", [*compiler, *flags, *common, *python]))
        for level, level_flags in {"generic": [], **levels}.items():
            # GCC 12's own intrinsics set off the uninitialized warnings.
            quiet = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
            command = [*compiler, *flags, *quiet, *level_flags, f"-DFSSEG_SIMD_{level.upper()}=1"]
            jobs += [(source, build / level, command) for source in per_level]
        if nvcc:
            codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in CUDA_ARCHITECTURES]
            command = [nvcc, "-std=c++17", "-O3", f"-I{CSRC}", "-Xcompiler=-fPIC", *codes]
            jobs += [(source, build / "cuda", command) for source in cuda_sources]

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
        cuda_libraries = ["-lcudart_static", "-ldl", "-lrt"] if nvcc else []
        if nvcc:
            link.append(f"-L{Path(nvcc).resolve().parent.parent / 'lib64'}")
        fresh = target.with_name(
            target.name + ".new"
        )  # renamed: a running process keeps the old file
        subprocess.run([*link, *map(str, objects), *cuda_libraries, "-o", str(fresh)], check=True)
        fresh.replace(target)

    def compile_one(self, source: Path, folder: Path, command: list[str]) -> Path:
        """Compile, unless the object is newer than source and headers, by the same command."""
        target = folder / source.relative_to(CSRC).with_suffix(source.suffix + ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        line = [*command, "-c", str(source), "-o", str(target)]
        note = target.with_suffix(".command")
        inputs = [source, *CSRC.rglob("*.h")]
        if (
            not self.force
            and target.is_file()
            and note.is_file()
            and note.read_text() == shlex.join(line)
            and target.stat().st_mtime > max(path.stat().st_mtime for path in inputs)
        ):
            return target
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
