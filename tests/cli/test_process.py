"""The command line as a process: how it starts, and how it ends when others end it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fsseg_sdk import __version__
from tests.tiny import tiny_scene

from .conftest import Place, Run, command, environment, obey_interrupts, run_process

COMMANDS = ("prepare", "segment", "video", "benchmark", "bundle", "task", "doctor")


def test_help_names_every_command(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    assert [name for name in COMMANDS if f"\n    {name}" not in done.out] == []
    assert "exit codes" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(run: Run, name: str) -> None:
    deeper = {"bundle": ["verify"], "task": ["info"]}.get(name, [])
    done = run(name, *deeper, "--help")
    assert done.code == 0
    assert "--json" in done.out


def test_help_and_version_load_no_runtime() -> None:
    """Nothing that takes time is imported before a command is known."""
    code = (
        "import sys\n"
        "from fsseg_sdk.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'PIL', 'onnxruntime', 'cv2', 'torch', 'fsseg_sdk.segmenter', 'fsseg_sdk.ops'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert run_process(["--version"]).stdout == f"fsseg_sdk {__version__}\n"


def test_no_command_or_a_wrong_one_is_a_wrong_call() -> None:
    for arguments in ([], ["segmnt"], ["segment"], ["doctor", "--jsn"]):
        done = run_process(arguments)
        assert done.returncode == 2, arguments
        assert "usage: fsseg" in done.stderr and "Traceback" not in done.stderr


def test_a_whole_run(place: Place) -> None:
    arguments = ["segment", "queries", "--task", place.task, "--bundle", place.bundle]
    done = run_process([*arguments, "--out", "found", "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["segmented"] == 4
    assert "[####" not in done.stderr, "no progress bar where stderr is no terminal"


def test_a_reader_who_leaves_is_no_error(place: Place) -> None:
    process = subprocess.Popen(
        command("bundle", "info", place.bundle, "--json"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert errors == ""


def test_sigint_between_pictures(place: Place) -> None:
    """A real signal to a real process with a folder that would take minutes."""
    many = place.folder / "many"
    many.mkdir()
    Image.fromarray(tiny_scene((720, 960), (300, 200, 500, 500))[0]).save(many / "0000.png")
    for number in range(1, 3000):
        (many / f"{number:04d}.png").hardlink_to(many / "0000.png")
    process = subprocess.Popen(
        command("segment", "many", "--task", place.task, "--bundle", place.bundle, "--out", "out"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_interrupts,
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    report = json.loads(Path("out/report.json").read_text())
    done = [entry["files"] for entry in report["queries"]]
    assert 3 <= len(done) < 3000 and report["summary"]["complete"] is False
    for files in done:
        for name in files.values():
            assert Path("out", name).stat().st_size > 0
    assert not list(Path("out").glob(".*"))
