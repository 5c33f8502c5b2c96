"""Checks every TensorRT name that is used against the real bindings of several versions.

    python -m tests.tensorrt.bindings FOLDER

Downloads the bindings (a megabyte each) into FOLDER. The libraries behind them are not on PyPI, so
empty ones are compiled that have the symbols which the bindings ask for: enough to import them and
look at every class, not to call anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = (
    ("tensorrt-cu12-bindings", "10.3.0"),  # JetPack 6.2
    ("tensorrt-cu13-bindings", "10.16.1.11"),  # JetPack 7.2
    ("tensorrt-cu13-bindings", "11.4.0.106"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = re.compile(
    rb"\0((?:create(?:Infer|NvOnnx)\w+|get(?:Builder)?PluginRegistry|getNvOnnxParserVersion"
    rb"|initLibNvInferPlugins))\0"
)


def check_version(package: str, version: str, folder: Path) -> bool:
    place = folder / f"{package}-{version}"
    binding = place / "tensorrt_bindings" / "tensorrt.so"
    if not binding.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(place)]
        subprocess.run([*command, f"{package}=={version}"], check=True, timeout=600)
    # Symbols follow each other in the table, so matches must be able to share a zero byte.
    data = binding.read_bytes().replace(b"\0", b"\0\0")
    symbols = sorted({name.decode() for name in SYMBOLS.findall(data)})
    source = place / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in symbols))
    for library in LIBRARIES:
        name = f"lib{library}.so.{version.split('.')[0]}"
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", place / name, source],
            check=True,
            timeout=60,
        )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(place), "PYTHONPATH": str(place)}
    script = Path(__file__).with_name("check_api.py")
    done = subprocess.run(
        [sys.executable, script, "tensorrt_bindings"], env=environment, timeout=120, check=False
    )
    return done.returncode == 0


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    results = [check_version(package, version, folder) for package, version in VERSIONS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
