#!/bin/sh
# Tests the CUDA kernels where no GPU is: the .cu files are compiled for this processor against an emulation of
# CUDA (tests/cuda/emulation), and the replayer of tests/aarch64 runs the op cases with them, once in each order of
# threads. Says nothing about speed, nor about what nvcc makes of them.
#   usage: tests/cuda/run.sh [OP ...]          environment: PYTHON, CXX, CXXFLAGS, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
build=${BUILD:-$root/build/cuda-emulated}
cxx=${CXX:-c++}

mkdir -p "$build"
flags="-std=c++17 -O1 -g1 -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off -fno-math-errno -pthread ${CXXFLAGS:-}"
flags="$flags -I$root/csrc -I$root/tests/cuda/emulation -DFSSEG_CUDA=1 -DFSSEG_CUDA_EMULATED=1"
headers=$(find "$root/csrc" "$root/tests/cuda/emulation" -name '*.*h' -newer "$build/replay" 2>/dev/null || echo all)
objects=
for source in "$root"/csrc/*/*.cpp "$root"/csrc/*/*.cu "$root"/tests/cuda/emulation/*.cpp; do
    folder=$(basename "$(dirname "$source")")
    name=$(basename "$source")
    object="$build/$folder.$name.o"
    objects="$objects $object"
    if [ -z "$headers" ] && [ -n "$(find "$object" -newer "$source" 2>/dev/null)" ]; then continue; fi
    level=NONE
    if [ "$name" = "$folder.cpp" ] || [ "$name" = read_probe.simd.cpp ]; then level=GENERIC; fi
    # shellcheck disable=SC2086
    "$cxx" $flags "-DFSSEG_SIMD_$level=1" -x c++ -c "$source" -o "$object"
done
# shellcheck disable=SC2086
"$cxx" $flags "$root/tests/aarch64/replay.cpp" $objects -o "$build/replay"

# shellcheck disable=SC2086
"$cxx" $flags -x c++ "$root/tests/cuda/mma_test.cu" -x none "$build/cuda.context.cpp.o" \
    "$build/emulation.emulation.cpp.o" "$build/emulation.runtime.cpp.o" -o "$build/mma_test"
# shellcheck disable=SC2086
"$cxx" $flags "$root/tests/cuda/online_mlp_test.cpp" $objects -o "$build/online_mlp_test"
"$build/online_mlp_test"
FSSEG_EMULATED_ORDER=backward "$build/online_mlp_test"
"$build/mma_test"
# shellcheck disable=SC2086
"$cxx" $flags -x c++ "$root/tests/cuda/image_test.cu" -x none $objects -o "$build/image_test"
"$build/image_test"

cd "$root"
"$python" -m tests.aarch64.write_cases "$build/cases.bin" "$@"
"$build/replay" "$build/cases.bin" cuda
FSSEG_EMULATED_ORDER=backward "$build/replay" "$build/cases.bin" cuda
rm "$build/cases.bin"
