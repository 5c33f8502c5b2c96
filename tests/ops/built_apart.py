"""Builds the kernels as the environment says, beside a copy of the op suite, and runs that.

    python tests/ops/built_apart.py FOLDER [pytest arguments]

The package of the checkout is left as it is. Python code is run in the new folder before the suite
if BUILT_CHECK holds any; `k` is the compiled module. BUILT_TESTS: what to run instead of tests/ops.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    build, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    preload = os.environ.pop("BUILT_PRELOAD", "")  # not for the compiler
    check = os.environ.pop("BUILT_CHECK", "")
    tests = os.environ.pop("BUILT_TESTS", "tests/ops").split()
    folders = ["--build-base", str(build), "--build-lib", str(build / "lib")]
    made = [sys.executable, "setup.py", "--quiet", "build", *folders]
    subprocess.run(made, cwd=ROOT, check=True)
    shutil.rmtree(build / "tests", ignore_errors=True)
    (build / "tests").mkdir()
    for name in ("__init__.py", "tiny.py"):
        shutil.copy(ROOT / "tests" / name, build / "tests")
    for name in ("ops", "cuda", "tensorrt"):
        shutil.copytree(ROOT / "tests" / name, build / "tests" / name)
    environment = os.environ | {"PYTHONPATH": f"{build / 'lib'}:{build}", "OMP_NUM_THREADS": "1"}
    if preload:
        environment["LD_PRELOAD"] = preload
    here = f"assert k.__file__.startswith({str(build)!r}), k.__file__"
    own = f"import fsseg_sdk._kernels as k\n{here}"
    suite = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    suite += ["-c", "/dev/null", "--rootdir", str(build), *tests, *words]
    for command in (["-c", f"{own}\n{check}"], suite):
        done = subprocess.run([sys.executable, *command], cwd=build, env=environment)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
