#!/bin/sh
# Builds the ladders with nvcc and runs them on the first GPU; JSON into OUT.
#   usage: benchmarks/ladder/run.sh [OP ...]
#   environment: PEAK (dense bfloat16 of the tensor cores, TFLOP/s, for the shares of it), RUNS, OUT, BUILD, NVCC,
#                ARCH (native: the GPU that is here; else sm_90, ...)
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build/ladder}
out=${OUT:-$build}
[ $# -gt 0 ] || set -- weighted_pool cosine_match online_mlp

mkdir -p "$build" "$out"
for op in "$@"; do
    "${NVCC:-nvcc}" -std=c++17 -O3 "-arch=${ARCH:-native}" -Xcompiler -pthread -I"$root/csrc" -DFSSEG_CUDA=1 \
        "$root/benchmarks/ladder/$op.cu" "$root/csrc/$op/$op.cu" "$root/csrc/cuda/context.cpp" -o "$build/$op"
done
for op in "$@"; do
    "$build/$op" --json "$out/ladder_$op.json" --runs "${RUNS:-30}" ${PEAK:+--peak "$PEAK"}
done
