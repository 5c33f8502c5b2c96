#!/bin/sh
# The kernels under ThreadSanitizer: the replayer of tests/aarch64, built for this machine at the
# generic level, runs every case from four threads at once, each with 1 and with 3 workers.
#   usage: tests/ops/races.sh          environment: PYTHON, CXX, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD:-$root/build/races}
cxx=${CXX:-c++}
if [ ! -e "$("$cxx" -print-file-name=libtsan.so)" ]; then
    echo "tests/ops/races.sh: $cxx has no libtsan.so; first do: apt-get install g++" >&2
    exit 1
fi

mkdir -p "$build"
flags="-std=c++17 -O1 -g -fsanitize=thread -ffp-contract=off -fno-math-errno -pthread -I$root/csrc"
objects=
for source in "$root"/csrc/*/*.cpp; do
    folder=$(basename "$(dirname "$source")")
    name=$(basename "$source" .cpp)
    level=NONE
    if [ "$name" = "$folder" ] || [ "$name" = read_probe.simd ]; then level=GENERIC; fi
    object="$build/$folder.$name.o"
    # shellcheck disable=SC2086
    "$cxx" $flags "-DFSSEG_SIMD_$level=1" -c "$source" -o "$object"
    objects="$objects $object"
done
# shellcheck disable=SC2086
"$cxx" $flags "$root/tests/aarch64/replay.cpp" $objects -o "$build/replay"

cd "$root"
"$python" -m tests.aarch64.write_cases "$build/cases.bin"
# The sanitizer wants its memory where it is without randomised addresses.
TSAN_OPTIONS=halt_on_error=1 setarch -R "$build/replay" "$build/cases.bin" 4
rm "$build/cases.bin"
