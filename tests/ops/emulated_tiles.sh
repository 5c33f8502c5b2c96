#!/bin/sh
# The path of online_mlp through AMX on a processor without AMX: a build whose tile instructions are C++
# (csrc/core/tiles.h) goes through the tests. It needs a processor with AVX-512.
#   usage: tests/ops/emulated_tiles.sh [pytest arguments]    environment: PYTHON, CXX, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD:-$root/build/emulated_tiles}

cd "$root"
CXXFLAGS="${CXXFLAGS:-} -DFSSEG_AMX_EMULATED=1" FSSEG_LEVELS=avx512 "$python" setup.py --quiet \
    build --build-base "$build" --build-lib "$build/lib"
"$python" - "$root" "$build" <<'END'
import shutil, sys
from pathlib import Path
root, build = map(Path, sys.argv[1:])
shutil.rmtree(build / "tests", ignore_errors=True)
for name in ("__init__.py", "ops"):
    source, target = root / "tests" / name, build / "tests" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
END

cd "$build"
export PYTHONPATH="$build/lib:$build" OMP_NUM_THREADS=1
"$python" -c "
import fsseg_sdk._kernels as k
assert k.__file__.startswith('$build'), k.__file__
assert k._bf16() == 'amx', k._bf16()"
exec "$python" -m pytest -q -p no:cacheprovider --import-mode=importlib -c /dev/null \
    --rootdir "$build" tests/ops -k mlp "$@"
