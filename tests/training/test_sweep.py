"""Queues of runs: done ones are left alone, interrupted ones resumed, failed ones tried again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from tests.training.conftest import WriteSet, row
from tests.training.test_run import TINY
from training.__main__ import main, parse
from training.checkpoint import save_checkpoint
from training.sweep import command, only_one, progress, read_sweep, table

SWEEP = """
[[runs]]
name = "tiny"
method = "panet"
settings = "tiny.toml"
vary = { "trainer.seed" = [0, 1], "panet.scale" = [10.0] }
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


def words(sweep: Path, data: Path, out: Path, *more: str) -> list[str]:
    options = ["sweep", str(sweep), "--data-root", str(data), "--out", str(out)]
    return [*options, "--threads", "1", "--workers", "0", *more]


def test_every_combination_is_a_run(sweep: Path) -> None:
    runs = read_sweep(sweep)
    assert [run.name for run in runs] == ["tiny-seed0-scale10.0", "tiny-seed1-scale10.0"]
    assert runs[1].changes == ("trainer.seed=1", "panet.scale=10.0")
    assert runs[1].settings.trainer.seed == 1


def test_what_all_runs_of_a_row_share_is_not_in_their_names(sweep: Path) -> None:
    sweep.write_text(f'{SWEEP}set = {{ "trainer.iterations" = 7 }}\n')
    runs = read_sweep(sweep)
    assert [run.name for run in runs] == ["tiny-seed0-scale10.0", "tiny-seed1-scale10.0"]
    assert runs[0].changes == ("trainer.iterations=7", "trainer.seed=0", "panet.scale=10.0")
    assert [run.settings.trainer.iterations for run in runs] == [7, 7]


def test_lists_vary_too_and_runs_are_told_where_their_latents_are(
    sweep: Path, tmp_path: Path
) -> None:
    sweep.write_text(
        SWEEP.replace('"panet"', '"spfl"').replace(
            '"panet.scale" = [10.0]', '"spfl.gamma" = [[0.0, 0.0], [0, 0.0, 0.0]]'
        )
    )
    runs = read_sweep(sweep)
    assert [run.name for run in runs][:2] == [
        "tiny-seed0-gamma0.0_0.0",
        "tiny-seed0-gamma0_0.0_0.0",
    ]
    assert runs[0].settings.own.gamma == (0.0, 0.0)
    options = parse(words(sweep, tmp_path, tmp_path, "--latents-root", str(tmp_path / "latents")))
    given = command(runs[0], options)
    assert given[given.index("--latents-root") + 1] == str(tmp_path / "latents")
    assert "spfl.gamma=[0.0, 0.0]" in given
    assert "--latents-root" not in command(runs[0], parse(words(sweep, tmp_path, tmp_path)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "panet"', 'method = "pant"', "method: expected one of .*panet"),
        ("vary", "very", "expected name, method, settings and vary"),
        ("[0, 1]", "0", "vary: expected lists of values by field"),
        ('method = "panet"', 'method = "panet"\nset = [1]', "set: expected values by field"),
        ("panet.scale", "panet.scala", r"panet\.scala: expected one of"),
        ("[[runs]]", "[[run]]", r"expected tables \[\[runs\]\]"),
        ("tiny.toml", "none.toml", "expected a settings file"),
        ("[0, 1]", "[1, 1]", "names that differ"),
    ],
)
def test_a_file_that_is_wrong_is_refused_before_anything_runs(
    sweep: Path, old: str, new: str, message: str
) -> None:
    sweep.write_text(SWEEP.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_sweep(sweep)


def test_a_queue_is_worked_through_once(
    sweep: Path, write_set: WriteSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = write_set(row(1), row(2)), tmp_path / "runs"
    first = read_sweep(sweep)[0]
    assert main(words(sweep, data.parent, out, "--status")) == 0
    assert capfd.readouterr().out.count("| waiting | 0 of 1 |") == 2
    # a queue does not end at a run that fails, and tries it again the next time
    picture = data / "images" / "1.png"
    picture.rename(tmp_path / "away.png")
    assert main(words(sweep, data.parent, out)) == 1
    assert capfd.readouterr().out.count("| failed | 0 of 1 |") == 2
    (tmp_path / "away.png").rename(picture)
    assert main(words(sweep, data.parent, out)) == 0
    stamp = (out / first.name / "checkpoint.safetensors").stat().st_mtime_ns
    capfd.readouterr()
    assert main(words(sweep, data.parent, out)) == 0
    assert (out / first.name / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    printed = capfd.readouterr().out
    assert printed.count("| done | 1 of 1 |") == 2 and "==>" not in printed


def test_states_are_told_apart(sweep: Path, tmp_path: Path) -> None:
    run = read_sweep(sweep)[0]
    folder = tmp_path / run.name
    assert progress(run, folder).state == "waiting"
    folder.mkdir()
    (folder / "resume.safetensors").write_bytes(b"")
    options = parse(words(sweep, tmp_path, tmp_path))
    assert progress(run, folder).state == "begun"
    assert command(run, options)[-1] == "--resume"
    (folder / "failed.txt").write_text("")
    assert progress(run, folder).state == "failed"
    rows = [
        {"iteration": 1, "loss": 0.5, "watched": {"a": 40.0, "b": 50.0}, "kept": True},
        {"iteration": 1, "loss": 0.4, "watched": {"a": 1.0, "b": 2.0}, "kept": False},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = {"settings": run.settings.to_json()}
    save_checkpoint(folder / "checkpoint.safetensors", {"x": torch.zeros(1)}, header)
    assert progress(run, folder).state == "done"
    assert f"| {run.name} | done | 1 of 1 | 0.4 | 45.0 |" in table([run], tmp_path)
    # the same folder, after the settings file was changed
    file = tmp_path / "tiny.toml"
    file.write_text(file.read_text().replace("side = 64", "side = 96"))
    (folder / "failed.txt").unlink()
    assert progress(read_sweep(sweep)[0], folder).state == "other settings"


def test_two_sweeps_do_not_share_a_folder(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_one(tmp_path / "runs"):
        assert main(words(sweep, tmp_path, tmp_path / "runs")) == 2
    assert "another sweep is at work" in capsys.readouterr().err


def test_in_the_background_the_log_says_how_it_went(
    sweep: Path, write_set: WriteSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_set(row(1), row(2)), tmp_path / "runs"
    given = words(sweep, data.parent, out, "--background")
    monkeypatch.setattr("sys.argv", ["training", *given])
    assert main(given) == 0
    end = time.monotonic() + 120
    while time.monotonic() < end and "| tiny-seed1" not in (out / "sweep.log").read_text():
        time.sleep(0.2)
    assert (out / "sweep.log").read_text().count("| done | 1 of 1 |") == 2
