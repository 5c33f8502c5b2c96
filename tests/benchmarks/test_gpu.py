"""The GPU's benchmarks as far as they go without one: all but the times, on an emulated device.

That device needs a build of its own, which `make test-cuda` makes and names in FSSEG_EMULATED.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_kernels, gpu_mlp, gpu_pipeline, gpu_providers

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_run.sh"
BUILT = Path(os.environ.get("FSSEG_EMULATED", "."))
CHECKS = ["memcheck", "racecheck", "initcheck", "synccheck"]
TIMED = ["kernels", "pipeline", "online_mlp", "ladder", "providers"]
STEPS = ["facts", "build", "conformance", "ladder_build", *CHECKS, *TIMED]


emulated = pytest.mark.skipif(
    "FSSEG_EMULATED" not in os.environ, reason="needs an emulated device: make test-cuda"
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=BUILT / "lib",
        env=environment,
        capture_output=True,
        text=True,
    )


# ---- the script ----
def script(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "BUILD": str(folder / "b")} | more
    words = ["sh", str(SCRIPT), str(folder / "out")]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_the_script_walks_its_steps(tmp_path: Path) -> None:
    done = script(tmp_path, GPU_RUN_DRY="1")
    assert done.returncode == 0, done.stderr
    rows = [x.split("\t") for x in (tmp_path / "out" / "steps.tsv").read_text().splitlines()]
    # some are side by side
    assert {row[0] for row in rows} == set(STEPS) and len(rows) == len(STEPS)
    assert [row[0] for row in rows if row[0] in TIMED] == TIMED
    assert all(row[1] == "dry" for row in rows)
    for row in rows:
        said = json.loads((tmp_path / "out" / f"step-{row[0]}.json").read_text())
        assert said["step"] == row[0] and said["status"] == "dry"


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    nvidia = tmp_path / "bin" / "nvidia-smi"
    nvidia.write_text("#!/bin/sh\nexit 9\n")
    nvidia.chmod(0o755)
    done = script(tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 2 and "nvidia-smi finds no GPU" in done.stderr


def test_a_step_that_fails_is_remembered_and_others_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, words in (
        ("nvidia-smi", 'case "$*" in *compute_cap*) echo 9.0 ;; *) echo a GPU ;; esac'),
        ("nvcc", "echo a compiler"),
        ("compute-sanitizer", "echo '========= Error: Device not supported \"x\\y\"'; exit 1"),
    ):
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/sh\n{words}\n")
        file.chmod(0o755)
    python = tmp_path / "bin" / "python"  # the build fails, with a quote in its last words
    python.write_text("#!/bin/sh\ncat >/dev/null\necho 'broken: \"here\"'\nexit 3\n")
    python.chmod(0o755)
    (tmp_path / "b" / "lib").mkdir(parents=True)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = script(tmp_path, PATH=path, PYTHON=str(python))
    rows = dict(
        x.split("\t")[:2] for x in (tmp_path / "out" / "steps.tsv").read_text().split("\n") if x
    )
    assert done.returncode == 1 and "failed:" in done.stdout
    assert rows["build"] == rows["kernels"] == rows["pipeline"] == "FAILED"
    assert rows["memcheck"] == rows["synccheck"] == "refused"
    assert len(rows) == len(STEPS)
    for name in rows:
        json.loads((tmp_path / "out" / f"step-{name}.json").read_text())


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/sh\nsleep 60\n")
    python.chmod(0o755)
    chosen = {"GPU_RUN_STEPS": "facts build", "GPU_RUN_SECONDS": "6", "GPU_RUN_EMULATED": "1"}
    done = script(tmp_path, PYTHON=str(python), **chosen)
    lines = (tmp_path / "out" / "steps.tsv").read_text().splitlines()
    assert done.returncode == 1 and "failed: facts build" in done.stdout
    assert [line.split("\t")[1] for line in lines] == ["TIMEOUT", "TIMEOUT"]


# ---- the benchmarks ----
@emulated
def test_all_but_the_times(tmp_path: Path) -> None:
    done = run("benchmarks", "gpu", "--check", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for name in gpu.SECTIONS:
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert result["passed"] and f"== {name}: all right" in done.stdout
    kernels = json.loads((tmp_path / "kernels.json").read_text())
    named = " ".join(row["name"] for row in kernels["rows"])
    for op in ("grid_weights", "weighted_pool", "soft_pool", "cosine_match", "linear_match"):
        assert op in named
    for op in ("distance_stats", "nearest", "upsample_argmax", "preprocess", "online_mlp"):
        assert op in named
    assert "== kernels" in gpu.show(tmp_path)


@emulated
def test_what_comes_after_the_checks(tmp_path: Path) -> None:
    done = run("tests.benchmarks.gpu_pretended", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = json.loads((tmp_path / "kernels.json").read_text())
    for row in kernels["rows"]:
        assert not row["failures"], row
        assert row["seconds"]["op"] == 5e-6 and row["roofline"] > 0
        assert any(name.endswith(", eager") for name in row["ratios"])
    mlp = json.loads((tmp_path / "online_mlp.json").read_text())
    assert not mlp["failures"] and len(mlp["ratios"]) == 4
    pipeline = json.loads((tmp_path / "pipeline.json").read_text())
    assert all(row["fps"] > 0 for row in pipeline["rows"])
    assert "% of torch.mm's bf16" in done.stdout and "6 us: yes" in done.stdout


@emulated
def test_a_wrong_result_is_seen(tmp_path: Path) -> None:
    code = (
        "import sys; from benchmarks import gpu_baselines as b, gpu\n"
        "right = b.multiply_and_sum\n"
        "b.multiply_and_sum = lambda t: right(t) * 1.001\n"
        f"sys.exit(gpu.main(['kernels', '--only', 'weighted', '--out', {str(tmp_path)!r}]))"
    )
    environment = os.environ | {"PYTHONPATH": f"{BUILT / 'lib'}:{ROOT}"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=BUILT / "lib", env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WRONG by 1.0e-03" in done.stdout and "NOT all right" in done.stdout


@emulated
def test_small_cases_of_every_op() -> None:
    done = run("benchmarks.gpu_cases", "1")
    assert done.returncode == 0 and ", 0 wrong" in done.stdout, done.stdout + done.stderr


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--check", "--out", str(tmp_path)]) in (0, 2)
    with pytest.raises(SystemExit):
        gpu.main(["no such section"])


def test_tables_of_what_failed() -> None:
    row: dict[str, Any] = {"name": "an op", "size": "1x2x3x4", "dtype": "fp16", "right": False}
    kernels = gpu_kernels.table({"rows": [{**row, "failure": "RuntimeError: no"}]})
    assert "FAILED" in gpu.columns(kernels)
    mlp = {"check": {}, "seconds": {}, "failures": {"a loop": "out of memory\nmore"}}
    assert "out of memory" in gpu.columns(gpu_mlp.table(mlp))
    pipeline = {
        "rows": [],
        "failures": {"ops fp16": "Error: x"},
        "segmenter": "not in this version",
    }
    assert "not in this version" in gpu.columns(gpu_pipeline.table(pipeline))
    providers = {"bound": {"skipped": "none"}, "rows": {"onnxruntime fp32": {"failure": "E: y"}}}
    assert "E: y" in gpu.columns(gpu_providers.table(providers))
