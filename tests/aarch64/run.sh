#!/bin/sh
# Tests the NEON kernels on a machine of another kind: Python writes the cases and their references
# to a file, a cross-compiled replayer runs them under an emulator, with the same tolerances.
#   usage: tests/aarch64/run.sh          environment: PYTHON, CROSS_CXX, QEMU, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD:-$root/build/aarch64}
cxx=${CROSS_CXX:-aarch64-linux-gnu-g++}
run=${QEMU:-qemu-aarch64}
if [ "$(uname -m)" = aarch64 ]; then # at home: no emulator
    cxx=${CROSS_CXX:-c++}
    run=
fi

missing=
command -v "$cxx" >/dev/null || missing="$missing g++-aarch64-linux-gnu"
[ -z "$run" ] || command -v "$run" >/dev/null || missing="$missing qemu-user"
if [ -n "$missing" ]; then
    echo "tests/aarch64/run.sh: first do: apt-get install$missing" >&2
    exit 1
fi

mkdir -p "$build"
flags="-std=c++17 -O3 -Wall -Wextra -ffp-contract=off -fno-math-errno -pthread -I$root/csrc"
objects=
for source in "$root"/csrc/*/*.cpp; do
    folder=$(basename "$(dirname "$source")")
    name=$(basename "$source" .cpp)
    if [ "$name" = "$folder" ]; then
        levels="NEON GENERIC"
    elif [ "$name" = read_probe.simd ]; then
        levels="NEON GENERIC"
    else
        levels="NONE"
    fi
    for level in $levels; do
        object="$build/$folder.$name.$level.o"
        echo "$cxx $level $folder/$name.cpp"
        # shellcheck disable=SC2086
        "$cxx" $flags -DFSSEG_HAVE_NEON=1 "-DFSSEG_SIMD_$level=1" -c "$source" -o "$object"
        objects="$objects $object"
    done
done
# shellcheck disable=SC2086
"$cxx" $flags -DFSSEG_HAVE_NEON=1 "$root/tests/aarch64/replay.cpp" $objects -static -o "$build/replay"

cd "$root"
"$python" -m tests.aarch64.write_cases "$build/cases.bin"
# shellcheck disable=SC2086
$run "$build/replay" "$build/cases.bin"
rm "$build/cases.bin"
