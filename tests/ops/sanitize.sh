#!/bin/sh
# The op suite with the kernels built under AddressSanitizer and UndefinedBehaviorSanitizer.
#   usage: tests/ops/sanitize.sh [pytest arguments]          environment: PYTHON, CXX, BUILD
# The build lies in its own folder; the package of the checkout is left as it is.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD:-$root/build/sanitize}
cxx=${CXX:-c++}
library=$("$cxx" -print-file-name=libasan.so)
if [ ! -e "$library" ]; then
    echo "tests/ops/sanitize.sh: $cxx has no libasan.so; first do: apt-get install g++" >&2
    exit 1
fi

cd "$root"
FSSEG_SANITIZE=address,undefined "$python" setup.py --quiet \
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

# Python itself keeps memory to its end: leaks are not looked for. A finding aborts the process;
# --capture=no lets its report through.
cd "$build"
export PYTHONPATH="$build/lib:$build" LD_PRELOAD="$library" OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
"$python" -c "
import fsseg_sdk._kernels as k
assert k.__file__.startswith('$build'), k.__file__
assert b'__asan_init' in open(k.__file__, 'rb').read(), 'built without the sanitizer'"
exec "$python" -m pytest -q --capture=no -p no:cacheprovider --import-mode=importlib -c /dev/null \
    --rootdir "$build" tests/ops "$@"
