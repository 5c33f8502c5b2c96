"""The benchmark of SMCP on small graphs: what it compares is the same, and its figures add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import smcp, smcp_model
from training.encoders import build_encoder


def test_what_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_nodes = {"taps": ["conv2"]}  # exported fast
    monkeypatch.setattr(smcp_model, "build_encoder", lambda name: build_encoder(name, few_nodes))
    files = ["--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.svg")]
    small = ["--side", "64", "--width", "32", "--encoders", "vgg16", "--forms", "paper"]
    threads = torch.get_num_threads()
    try:
        assert smcp.main([*small, "--seconds", "0.1", *files]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "s.json").read_text())["vgg16, paper"]
    assert found["share_percent"] == pytest.approx(100 * found["split"] / found["plain"])
    seconds, faster = found["seconds"], found["times_faster"]
    assert seconds["fp32"] > found["encoder"]["fp32"] > 0 and found["without_head"] > 1
    style = "published bf16"
    assert faster[f"fp32, {style}"] == pytest.approx(seconds[style] / seconds["fp32"])
    assert ("bf16" in seconds) != ("bf16" in found["refused"])  # OpenVINO and a processor for it
    taken = found["resources"]
    assert taken["SDK fp32"]["memory_mb"] < taken["published fp32"]["memory_mb"]  # no torch in it
    assert all(row["fps"] > 0 and row["processors"] > 0 for row in taken.values() if "fps" in row)
    assert ("refused" in taken["SDK bf16"]) == ("bf16" in found["refused"])
    assert "two passes, of two plain ones" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "s.svg").read_text()
