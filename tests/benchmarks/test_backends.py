"""The table of backends and precisions: every row that runs here, with its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backends import main
from export.accuracy import Cost, Judge
from tests.benchmarks.conftest import write_set
from tests.tiny import tiny_bundle


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.fsseg")
    write_set(tmp_path / "voc2012", [(1,), (2,), (1, 2), (3,), (3, 1)], split="val")
    out = tmp_path / "figures.json"
    words = ["--bundle", str(bundle), "--seconds", "0.05", "--data", str(tmp_path / "voc2012")]
    words += ["--pictures", "0", "--draws", "3", "--most-loss", "50"]
    words += ["--json", str(out), "--plot", str(tmp_path / "plot.png")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "feature error" in printed and "with 5 queries of voc2012 val" in printed
    (result,) = [v for k, v in json.loads(out.read_text()).items() if k.endswith("tiny.fsseg")]
    rows: dict[tuple[str, str], Any] = {(r["backend"], r["precision"]): r for r in result["rows"]}
    assert {("onnxruntime", "fp32"), ("onnxruntime", "int8")} <= set(rows)
    exact, int8 = rows["onnxruntime", "fp32"], rows["onnxruntime", "int8"]
    assert exact["feature_error"] == 0 < int8["feature_error"] < 0.1
    lost, low, high = int8["lost"]
    assert lost == pytest.approx(exact["mean_iou"] - int8["mean_iou"]) and low <= lost <= high
    assert abs(lost) < 20 and exact["fps"] > 0 and "lost" not in exact
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(SystemExit):
        main(["--seconds", "0"])


def test_a_precision_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default int8 may lose half a point: where it loses more, the others have their rows."""
    bundle = tiny_bundle(tmp_path / "tiny.fsseg")
    monkeypatch.setattr(Judge, "cost", lambda *given: Cost(10.0, 3.0, 2.0, 4.0))
    out = tmp_path / "figures.json"
    assert main(["--bundle", str(bundle), "--seconds", "0.05", "--json", str(out)]) == 0
    (result,) = [v for k, v in json.loads(out.read_text()).items() if k.endswith("tiny.fsseg")]
    assert {row["precision"] for row in result["rows"]} >= {"fp32", "fp16"}
    assert "int8" not in {row["precision"] for row in result["rows"]}
    assert any(text.startswith("int8: int8 may lose 0.5 points") for text in result["refused"])
    assert "feature error" in capsys.readouterr().out
