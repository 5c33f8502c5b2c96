#!/bin/sh
# The paths of online_mlp and nearest through AMX on a processor without AMX: a build whose tile instructions are C++
# (csrc/core/tiles.h) goes through the tests. It needs a processor with AVX-512.
#   usage: tests/ops/emulated_tiles.sh [pytest arguments]    environment: PYTHON, CXX, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
export CXXFLAGS="${CXXFLAGS:-} -DFSSEG_AMX_EMULATED=1" FSSEG_LEVELS=avx512
export BUILT_CHECK="assert k._bf16() == 'amx', k._bf16()"
exec "${PYTHON:-python3}" "$root/tests/ops/built_apart.py" "${BUILD:-$root/build/emulated_tiles}" \
    -k 'mlp or nearest' "$@"
