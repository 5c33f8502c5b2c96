"""A Jetson's power mode, clocks and watts: a figure of its speed means little without them."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["PowerMeter", "board", "parse_watts"]

ROOT = Path("/")
_MODEL = "proc/device-tree/model"
_RELEASE = "etc/nv_tegra_release"
_CLOCKS = (
    ("cpu_mhz", "sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq", 1e3),
    ("cpu_max_mhz", "sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq", 1e3),
    ("gpu_mhz", "sys/class/devfreq/*g[ap][bu0-9]*/cur_freq", 1e6),
    ("gpu_max_mhz", "sys/class/devfreq/*g[ap][bu0-9]*/max_freq", 1e6),
)
# The rail of the whole board, by what tegrastats calls it: Orin NX and Nano, AGX, older boards.
_RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN")
_INTERVAL_MS = 100


def board() -> dict[str, Any] | None:
    """Model, release, power mode and clocks of a Jetson; None on anything else. What cannot be read
    is left out."""
    model = _text(_MODEL).strip("\0 \n")
    release = _text(_RELEASE).splitlines()[:1]
    if not release and "jetson" not in model.lower():
        return None
    found: dict[str, Any] = {"model": model or "unknown", "power_mode": _power_mode()}
    if release:
        found["release"] = release[0].lstrip("# ")
    for name, pattern, unit in _CLOCKS:
        values = []
        for path in ROOT.glob(pattern):
            with suppress(OSError, ValueError):
                values.append(int(path.read_text(encoding="ascii")) / unit)
        if values:
            found[name] = round(max(values), 1)
    return found


def _text(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError:
        return ""


def _power_mode() -> str | None:
    """What `nvpmodel -q` says, such as "25W"."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    matched = re.search(r"NV Power Mode:\s*(\S+)", done.stdout)
    return matched[1] if matched else None


def parse_watts(line: str) -> float | None:
    """Watts of the whole board now, from a line of tegrastats; where it names no such rail, of
    GPU and CPU together with the rest that it names."""
    rails = {name: int(now) / 1e3 for name, now in re.findall(r"(\w+) (\d{1,7})mW/\d{1,7}mW", line)}
    for rail in _RAILS:
        if rail in rails:
            # AGX Orin measures the GPU and the CPU apart from its 5 V rail.
            beside = sum(w for name, w in rails.items() if name.startswith(("VDD_GPU", "VDD_CPU")))
            return rails[rail] + (beside if rail == "VIN_SYS_5V0" else 0.0)
    return sum(rails.values()) if rails else None


class PowerMeter:
    """Measures with tegrastats while its block runs; `watts` is the mean, None without a Jetson."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    @property
    def watts(self) -> float | None:
        return sum(self._values) / len(self._values) if self._values else None

    def __enter__(self) -> PowerMeter:
        tool = shutil.which("tegrastats")
        if tool is not None:
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [tool, "--interval", str(_INTERVAL_MS)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                self._thread = threading.Thread(target=self._read, daemon=True)
                self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None or self._thread is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            watts = parse_watts(line)
            if watts is not None:
                self._values.append(watts)
