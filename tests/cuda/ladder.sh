#!/bin/sh
# Checks every step of benchmarks/ladder against its reference where no GPU is: compiled against the emulation, with
# tiny shapes and no times, in both orders of threads.
#   usage: tests/cuda/ladder.sh [OP ...]          environment: CXX, CXXFLAGS, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build/cuda-emulated}
cxx=${CXX:-c++}
[ $# -gt 0 ] || set -- weighted_pool cosine_match online_mlp

mkdir -p "$build"
flags="-std=c++17 -O1 -g1 -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off -fno-math-errno -pthread ${CXXFLAGS:-}"
flags="$flags -I$root/csrc -I$root/tests/cuda/emulation -DFSSEG_CUDA=1 -DFSSEG_CUDA_EMULATED=1"
for op in "$@"; do
    # shellcheck disable=SC2086
    "$cxx" $flags -x c++ "$root/benchmarks/ladder/$op.cu" "$root/csrc/$op/$op.cu" "$root/csrc/cuda/context.cpp" \
        "$root"/tests/cuda/emulation/*.cpp -o "$build/ladder_$op"
    "$build/ladder_$op"
    FSSEG_EMULATED_ORDER=backward "$build/ladder_$op"
done
