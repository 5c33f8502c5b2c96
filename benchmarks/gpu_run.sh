#!/bin/sh
# Everything that needs a GPU, on a machine with nothing but nvcc, torch and pytest, in under eight minutes: builds for
# this GPU, runs the op suite on it, compute-sanitizer, the benchmarks, the ladders, the pipeline, and extra wheels.
# A step that fails is remembered and the others still run; the exit status is 0 if none failed.
#   usage: benchmarks/gpu_run.sh [OUT]          OUT: folder of logs, JSON and table.txt (bench-out/gpu)
#   environment: PYTHON, BUILD (build/gpu); GPU_WHEELS: a folder of wheels (onnxruntime-gpu, tensorrt-rtx, ...);
#                GPU_RUN_SECONDS: for all steps together (460); GPU_RUN_STEPS: only these; GPU_RUN_DRY=1: only say
#                what would be run; GPU_RUN_EMULATED=1: on the emulated device, without times
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
self=$root/benchmarks/$(basename "$0")
python=${PYTHON:-python3}
emulated=${GPU_RUN_EMULATED:-}
PATH=$PATH:/usr/local/cuda/bin
export PATH

# ---- what each step does: status 0 is right, 77 skipped, 78 refused by the machine, all else wrong ----
in_package() { # the package that was built comes before the checkout's
    cd "$build/lib" || return 1
    site=
    [ ! -d "$build/site" ] || site="$build/site:"
    PYTHONPATH="$site$root" "$python" "$@"
}

do_facts() {
    if [ -z "$emulated" ]; then
        nvidia-smi || return 1
        nvcc --version || return 1
    fi
    "$python" - <<'END'
import importlib, sys
print("python", sys.version.split()[0])
needed = ["numpy", "pybind11", "setuptools", "PIL", "torch", "pytest"]
missing = []
for name in ["xdist", "onnx", "onnxruntime", "triton", "tqdm", "hypothesis", *needed]:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        print(name, "is missing:", error)
        missing += [name] if name in needed else []
    else:
        print(name, getattr(module, "__version__", ""))
if missing:
    sys.exit("needed, and not there: " + ", ".join(missing))
END
}

do_build() {
    cd "$root" || return 1
    "$python" setup.py --quiet build --build-base "$build" --build-lib "$build/lib" || return 1
    in_package -c 'from fsseg_sdk import ops
found = ops.build_info()["cuda"]
print(found)
raise SystemExit(not found["devices"])'
}

do_conformance() {
    cd "$root" || return 1
    workers='' some='not generic'
    if [ -n "$emulated" ]; then
        some='linear_match and not generic'
    elif "$python" -c 'import xdist' 2>/dev/null; then
        workers='-n 8'
    fi
    export BUILT_TESTS='tests/ops/test_conformance.py tests/cuda'
    # shellcheck disable=SC2086
    "$python" tests/ops/built_apart.py "$build" $workers -k "$some"
}

section() {
    check=
    [ -z "$emulated" ] || check=--check
    # shellcheck disable=SC2086
    in_package -m benchmarks gpu "$1" $check --out "$out"
}
do_kernels() { section kernels; }
do_online_mlp() { section online_mlp; }
do_pipeline() { section pipeline; }

# As benchmarks/ladder/run.sh, but side by side, and while nothing is timed.
ladders='weighted_pool cosine_match online_mlp'
do_ladder_build() {
    if [ -n "$emulated" ]; then
        echo 'only for a GPU; tests/cuda/ladder.sh checks the ladders without one'
        return 77
    fi
    mkdir -p "$build/ladder" || return 1
    for op in $ladders; do
        rm -f "$build/ladder/$op"
        nvcc -std=c++17 -O3 "-arch=sm_$FSSEG_CUDA_ARCHITECTURES" -Xcompiler -pthread "-I$root/csrc" -DFSSEG_CUDA=1 \
            "$root/benchmarks/ladder/$op.cu" "$root/csrc/$op/$op.cu" "$root/csrc/cuda/context.cpp" \
            -o "$build/ladder/$op" &
    done
    wait
    for op in $ladders; do [ -x "$build/ladder/$op" ] || return 1; done
    echo "built: $ladders"
}

do_ladder() {
    if [ -n "$emulated" ]; then
        echo 'only on a GPU; tests/cuda/ladder.sh checks it without one'
        return 77
    fi
    # The rate that the first section has measured; without it there are no shares of the peak.
    peak=$("$python" -c 'import json, sys
print(json.load(open(sys.argv[1]))["bf16"] / 1e12)' "$out/limits.json") || peak=
    wrong=0
    for op in $ladders; do
        "$build/ladder/$op" --json "$out/ladder_$op.json" --runs 20 ${peak:+--peak "$peak"} || wrong=1
    done
    return "$wrong"
}

# A tool that cannot watch this machine has found nothing, neither good nor bad.
sanitized() { # TOOL
    if ! command -v compute-sanitizer >/dev/null; then
        echo 'compute-sanitizer is not here'
        return 77
    fi
    status=0
    cd "$build/lib" || return 1
    # Failing calls of CUDA are seen by our own checks; here it is what kernels do that counts.
    PYTHONPATH="$root" compute-sanitizer --tool "$1" --error-exitcode 9 --report-api-errors no \
        "$python" -m benchmarks.gpu_cases 2 >"$build/$1.out" 2>&1 || status=$?
    cat "$build/$1.out"
    refusals='not supported|no attachable process|failed to initialize|unable to|internal sanitizer error'
    if [ "$status" -ne 0 ] && grep -Eqi "$refusals" "$build/$1.out"; then
        grep -Ei "$refusals" "$build/$1.out" | head -n 1
        return 78
    fi
    return "$status"
}
do_memcheck() { sanitized memcheck; }
do_racecheck() { sanitized racecheck; }
do_initcheck() { sanitized initcheck; }
do_synccheck() { sanitized synccheck; }

do_providers() {
    if [ -n "${GPU_WHEELS:-}" ]; then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$build/site" \
            "$GPU_WHEELS"/*.whl || return 1
    else
        echo 'GPU_WHEELS names no folder of wheels; what is installed is tried'
    fi
    section providers
}

if [ "${1:-}" = --step ]; then # this script again, under a time limit
    out=$GPU_RUN_OUT build=$GPU_RUN_BUILD
    "do_$2"
    exit
fi

# ---- all steps, one after another ----
out=${1:-$root/bench-out/gpu}
build=${BUILD:-$root/build/gpu}
mkdir -p "$out" "$build" || exit 2
out=$(cd "$out" && pwd)
build=$(cd "$build" && pwd)
wheels=${GPU_WHEELS:-}
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd) || exit 2
export GPU_RUN_OUT="$out" GPU_RUN_BUILD="$build" GPU_WHEELS="$wheels" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export FSSEG_CUDA=1 FSSEG_LEVELS='' TORCHINDUCTOR_CACHE_DIR="$build/inductor"
if [ -n "$emulated" ]; then
    export FSSEG_CUDA=emulated
elif [ -z "${FSSEG_CUDA_ARCHITECTURES:-}" ]; then
    FSSEG_CUDA_ARCHITECTURES=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
        head -n 1 | tr -d '. ')
    if [ -z "$FSSEG_CUDA_ARCHITECTURES" ] && [ -z "${GPU_RUN_DRY:-}" ]; then
        echo 'gpu_run.sh: nvidia-smi finds no GPU; GPU_RUN_DRY=1 says what would be run' >&2
        exit 2
    fi
    export FSSEG_CUDA_ARCHITECTURES="${FSSEG_CUDA_ARCHITECTURES:-90}"
fi
began=$(date +%s)
budget=${GPU_RUN_SECONDS:-460}
every='facts build conformance memcheck racecheck initcheck synccheck ladder_build kernels pipeline online_mlp ladder providers'
chosen=" ${GPU_RUN_STEPS:-$every} "
for name in $every; do rm -f "$out/$name.log" "$out/$name.json" "$out/step-$name.json"; done
rm -f "$out"/ladder_*.json "$out/limits.json" "$out/steps.tsv" "$out/table.txt"
: >"$out/steps.tsv"

note() { # NAME STATUS SECONDS REMARK
    remark=$(printf '%s' "$4" | tr '\t\n"' "  '" | tr -d '\\\000-\037' | cut -c 1-150)
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$remark" >>"$out/steps.tsv"
    printf '{"step": "%s", "status": "%s", "seconds": %s, "remark": "%s"}\n' "$1" "$2" "$3" "$remark" \
        >"$out/step-$1.json"
    printf '%-12s %-8s %4s s  %s\n' "$1" "$2" "$3" "$remark"
}

step() { # NAME SECONDS
    case $chosen in *" $1 "*) ;; *) return 0 ;; esac
    if [ -n "${GPU_RUN_DRY:-}" ]; then
        note "$1" dry 0 "at most $2 s"
        return 0
    fi
    start=$(date +%s)
    limit=$((budget - (start - began)))
    [ "$limit" -le "$2" ] || limit=$2
    if [ "$limit" -lt 5 ]; then
        note "$1" TIMEOUT 0 'no time was left'
        return 0
    fi
    status=0
    timeout -k 5 "$limit" sh "$self" --step "$1" >"$out/$1.log" 2>&1 || status=$?
    case $status in
    0) said=ok ;;
    77) said=skipped ;;
    78) said=refused ;;
    124 | 137) said=TIMEOUT ;;
    *) said=FAILED ;;
    esac
    note "$1" "$said" "$(($(date +%s) - start))" "$(grep -v '^[[:space:]]*$' "$out/$1.log" | tail -n 1)"
}

step facts 30
step build 200
# None of these is timed: side by side.
for name in conformance ladder_build memcheck racecheck initcheck synccheck; do step "$name" 100 & done
wait
step kernels 140
step pipeline 110
step online_mlp 45
step ladder 80
step providers 75

if [ -s "$out/kernels.json" ] || [ -s "$out/online_mlp.json" ] || [ -s "$out/pipeline.json" ]; then
    (in_package -m benchmarks gpu --table "$out") >"$out/table.txt" 2>&1 || cat "$out/steps.tsv" >>"$out/table.txt"
else
    cp "$out/steps.tsv" "$out/table.txt"
fi
cat "$out/table.txt"
failed=$(awk -F '\t' '$2 == "FAILED" || $2 == "TIMEOUT" { printf " %s", $1 }' "$out/steps.tsv")
if [ -n "$failed" ]; then
    echo "failed:$failed"
    exit 1
fi
echo "no step failed; all of it is in $(basename "$out")"
