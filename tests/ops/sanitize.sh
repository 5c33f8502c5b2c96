#!/bin/sh
# The op suite with the kernels built under AddressSanitizer and UndefinedBehaviorSanitizer.
#   usage: tests/ops/sanitize.sh [pytest arguments]          environment: PYTHON, CXX, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cxx=${CXX:-c++}
library=$("$cxx" -print-file-name=libasan.so)
if [ ! -e "$library" ]; then
    echo "tests/ops/sanitize.sh: $cxx has no libasan.so; first do: apt-get install g++" >&2
    exit 1
fi

# Python itself keeps memory to its end: leaks are not looked for. A finding aborts the process;
# --capture=no lets its report through.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# The sanitizer looks up the C++ library's throw when it starts, and Python itself does not load that library.
export FSSEG_SANITIZE=address,undefined BUILT_PRELOAD="$library $("$cxx" -print-file-name=libstdc++.so.6)"
export BUILT_CHECK="assert b'__asan_init' in open(k.__file__, 'rb').read(), 'no sanitizer'"
exec "${PYTHON:-python3}" "$root/tests/ops/built_apart.py" "${BUILD:-$root/build/sanitize}" \
    --capture=no "$@"
