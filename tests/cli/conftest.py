"""A small bundle, pictures and a task; the command line in this process or in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fsseg_sdk.cli import main
from tests.tiny import tiny_bundle, tiny_scene

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@dataclass(frozen=True)
class Place:
    """A folder with bundle.fsseg, support.png, mask.png, task.task, queries/ (four pictures)."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        suffixes = {"bundle": ".fsseg", "support": ".png", "mask": ".png", "task": ".task"}
        return self.folder / f"{name}{suffixes.get(name, '')}"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Made once; tests that write into it use `place`."""
    folder = tmp_path_factory.mktemp("made")
    place = Place(folder)
    tiny_bundle(place.bundle)
    image, mask = tiny_scene()
    Image.fromarray(image).save(place.support)
    Image.fromarray(mask * 255).save(place.mask)
    place.queries.mkdir()
    for number in range(4):
        left = 20 + 10 * number
        picture, _ = tiny_scene((120, 160), (left, 20, left + 40, 70))
        Image.fromarray(picture).save(place.queries / f"q{number}.png")
    arguments = ["--class", "square", str(place.support), str(place.mask)]
    code = main(["prepare", *arguments, "--bundle", str(place.bundle), "--out", str(place.task)])
    assert code == 0
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same files, reached through a folder of the test's own, which is the current one."""
    for source in made.folder.iterdir():
        if source.is_dir():
            (tmp_path / source.name).mkdir()
            for inner in source.iterdir():
                os.link(inner, tmp_path / source.name / inner.name)
        else:
            os.link(source, tmp_path / source.name)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse, as the entry point would pass it on
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def command(*arguments: object) -> list[str]:
    """The command line as a process of its own."""
    return [sys.executable, "-m", "fsseg_sdk.cli", *map(str, arguments)]


def obey_interrupts() -> None:
    """In a process that is about to start: its parent may run in the background, where shells have
    Ctrl-C ignored, and Python then leaves it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_process(arguments: Sequence[object], **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **settings,
    )
