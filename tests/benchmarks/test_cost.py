"""The pipeline and memory benchmarks with a tiny bundle: what they measure adds up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import memory, pipeline, report, resnet, stages
from benchmarks.fresh import run_fresh
from benchmarks.pictures import pictures_of
from fsseg_sdk import Segmenter

ROOT = Path(__file__).resolve().parents[2]


def test_pipeline(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    core = Segmenter.load(bundle, threads=1)._core
    own = core.encoder
    monkeypatch.setattr(resnet, "SIDE", own.input_size[0])
    monkeypatch.setattr(resnet, "GRID", own.grid[0])
    monkeypatch.setattr(resnet, "CHANNELS", own.channels)
    monkeypatch.setattr(resnet, "_encoder", lambda threads: (own, own.graph))
    files = ["--json", str(tmp_path / "p.json"), "--plot", str(tmp_path / "p.svg")]
    arguments = ["--bundle", str(bundle), "--seconds", "0.2", "--starts", "1", *files]
    assert pipeline.main(arguments) == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["machine"]["kernels"]["simd"]
    assert found["options"]["threads"] == 1
    assert "json" not in found["options"]
    array, jpeg = found["query"]["array"], found["query"]["jpeg"]
    assert jpeg["decode"]["p50"] > 10 * array["decode"]["p50"]
    assert array["beside_percent"] > 100  # this encoder costs nothing
    side = own.input_size[0]
    assert set(found["resnet"]) == {f"{side}x{side} labels", "1920x1080 labels"}
    assert set(found["methods"]) == {"the bundle", "ResNet-50", "prepare"}
    assert found["methods"].pop("prepare")["times_encoder"] > 1
    assert set(found["methods"]["ResNet-50"]) - set(found["methods"]["the bundle"]) == {"oslsm"}
    for rows in found["methods"].values():
        assert rows["panet"]["times_panet"] == 1
        assert set(rows) >= {"panet", "paia", "nearest", "logreg", "srofb", "srofb-fast"}
        for row in rows.values():
            assert row["times_panet"] > 0 and row["match"]["p50"] > 0
            assert row["times_encoder"] == pytest.approx(1 + row["beside_percent"] / 100)
    start = found["start"]
    assert start["loaded_by_import"] == []
    assert start["loaded_by_names"] == ["numpy"]
    assert start["import_s"] < start["import_names_s"] < start["process_s"]
    first = start["first_mask_s"]
    assert first["total"] == pytest.approx(
        sum(first[step] for step in pipeline.STEPS[:-1]), abs=1e-6
    )
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert "everything but the encoder" in capsys.readouterr().out


class Sleeper:
    """A task that takes 20 ms a picture and more: 8 in the encoder, 2 in other stages."""

    def segment_batch(self, queries: list[object], batch: int) -> list[Any]:
        time.sleep(0.020 * len(queries))
        timings = dict.fromkeys(stages.STAGES[:-2], 0.5)
        return [SimpleNamespace(timings={**timings, "encoder": 8.0}) for _ in queries]


def test_stages_are_those_of_one_picture() -> None:
    figures = stages.measure(Sleeper(), None, 0.1, batch=3)  # type: ignore[arg-type]
    assert figures["runs"] >= 5 and figures["batch"] == 3
    total = figures["total"]["p50"]
    assert 19.9 < total < 50  # 60 is what the three take
    assert figures["other"]["p50"] == pytest.approx(total - 10)
    assert figures["encoder"] == {"p50": 8.0, "p95": 8.0}
    assert figures["after_percent"] == 12.5
    assert figures["beside_percent"] == pytest.approx(100 * (total - 8) / 8)
    assert figures["fps"] == pytest.approx(1e3 / total)


def test_the_example_pictures_fill_the_size(bundle: Path) -> None:
    pictures = pictures_of((90, 160))
    assert pictures.support.shape == pictures.query.shape == (90, 160, 3)
    assert set(np.unique(pictures.mask)) == {0, 1}
    assert pictures.jpeg()[:2] == b"\xff\xd8"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux only")
def test_memory(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.json"
    arguments = ["--bundle", str(bundle), "--further", "2", "--json", str(out)]
    assert memory.main(arguments) == 0
    for kind in ("arrays", "JPEG files"):
        stages_of = json.loads(out.read_text())["memory_mb"][kind]
        assert list(stages_of) == [*memory.STEPS, "2 more"]
        most = [values["most"] for values in stages_of.values()]
        assert most == sorted(most)
        assert all(values["now"] <= values["most"] + 0.01 for values in stages_of.values())
        assert 5 < most[0] < 20  # Python alone: nothing was loaded before the first row
        assert stages_of["prepare"]["now"] > stages_of["import"]["now"] + 10  # the runtime
    assert "target 200" in capsys.readouterr().out


def test_a_fresh_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="BundleError"):
        run_fresh("first_mask", bundle=str(tmp_path / "no.fsseg"), folder="", threads=1)


def test_a_bundle_that_is_not_there_is_an_error_of_the_command(tmp_path: Path) -> None:
    for module in (pipeline, memory):
        with pytest.raises(SystemExit) as caught:
            module.main(["--bundle", str(tmp_path / "no.fsseg")])
        assert caught.value.code == 2


def test_help_without_torch_or_matplotlib() -> None:
    """`--help` of every benchmark; the plots' library is loaded for plots alone."""
    code = (
        "import sys, benchmarks.{0} as b\n"
        "try:\n    b.main(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "loaded = {{'matplotlib', 'torch'}} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    for name in ("accuracy", "pipeline", "memory"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "--json" in done.stdout and "--plot" in done.stdout


def test_tables_are_aligned() -> None:
    assert report.table([["a", "bb"], ["long", "1"]]) == "a     bb\nlong   1"
