#!/bin/sh
# Device arrays and the op suite on CUDA where no GPU is: the package built apart with kernels for an emulated
# device (tests/cuda/emulation). What run.sh tests of the kernels, this tests through Python.
#   usage: tests/cuda/device.sh [pytest arguments]          environment: PYTHON, CXX, BUILD
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
export FSSEG_CUDA=emulated FSSEG_LEVELS='' BUILT_TESTS='tests/ops/test_conformance.py tests/cuda'
export BUILT_CHECK="assert k.cuda.devices()[0]['name'] == 'an emulated device'"
exec "${PYTHON:-python3}" "$root/tests/ops/built_apart.py" "${BUILD:-$root/build/cuda-emulated-package}" \
    -k 'not generic' "$@"
