"""A Jetson's facts, from files and tools that a test can make."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk import board as board_module
from fsseg_sdk.board import PowerMeter, board, parse_watts
from fsseg_sdk.cli import main

NANO = (
    "11-21-2026 18:00:00 RAM 3000/7620MB SWAP 0/3810MB CPU [12%@1510,off] GR3D_FREQ 99% "
    "cpu@50C gpu@51C VDD_IN 7012mW/6800mW VDD_CPU_GPU_CV 2500mW/2400mW VDD_SOC 1400mW/1400mW"
)
AGX = "GR3D_FREQ 40% VDD_GPU_SOC 5000mW/4000mW VDD_CPU_CV 1200mW/900mW VIN_SYS_5V0 4000mW/4000mW"


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tools = tmp_path / "bin"
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1510400\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
        "sys/class/devfreq/other/cur_freq": "9999000000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tools.mkdir()
    scripts = {
        "nvpmodel": "echo 'NV Power Mode: 15W'; echo 0",
        "tegrastats": f"while true; do echo '{NANO}'; sleep 0.05; done",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(board_module, "ROOT", tmp_path)
    return tools


def test_board(jetson: Path) -> None:
    assert board() == {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "release": "R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic",
        "power_mode": "15W",
        "cpu_mhz": 1510.4,
        "gpu_mhz": 624.8,
    }
    (jetson / "nvpmodel").write_text("#!/bin/sh\nexit 1\n")
    found = board()
    assert found is not None and found["power_mode"] is None


def test_no_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert board() is None
    with PowerMeter() as meter:
        pass
    assert meter.watts is None


@pytest.mark.parametrize(
    ("line", "watts"),
    [(NANO, 7.012), (AGX, 10.2), ("VDD_A 100mW/90mW VDD_B 50mW/40mW", 0.15), ("RAM 1/2MB", None)],
)
def test_watts(line: str, watts: float | None) -> None:
    found = parse_watts(line)
    assert (found is None) if watts is None else found == pytest.approx(watts)


def test_the_meter(jetson: Path) -> None:
    with PowerMeter() as meter:
        end = time.monotonic() + 10
        while meter.watts is None and time.monotonic() < end:
            time.sleep(0.02)
    assert meter.watts == pytest.approx(7.012)
    assert meter._process is not None and meter._process.poll() is not None


@pytest.mark.parametrize("text", [False, True])
def test_benchmark_says_it(jetson: Path, tmp_path: Path, capsys: Any, text: bool) -> None:
    from tests.tiny import tiny_bundle

    bundle = tiny_bundle(tmp_path / "tiny.fsseg")
    arguments = ["benchmark", "--bundle", str(bundle), "--size", "64x64", "--repeat", "40"]
    if text:
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "Orin Nano Developer Kit, power mode 15W; cpu_mhz 1510.4, gpu_mhz 624.8; " in out
        return
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["board"]["power_mode"] == "15W"
    assert report["watts"] is None or report["fps_per_watt"] == pytest.approx(
        report["fps"] / report["watts"], rel=1e-2
    )
