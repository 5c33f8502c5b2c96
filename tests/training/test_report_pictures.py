"""Plots show something; a page shows the episodes that were measured, with the same IoU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk import Box
from tests import tiny
from tests.training.results import result, row, write
from training import evaluate, report
from training.evaluation.results import read_result
from training.reporting import plots
from training.reporting.chosen import chosen
from training.reporting.measured import Row
from training.reporting.page import marked_labels
from training.reporting.reading import read_sections

ENTRIES = [(0, f"p{n}", 6, 30 + n, 100) for n in range(10)]


def rows(gain: float = 0.0) -> list[dict[str, Any]]:
    return [
        row(fold, ENTRIES, 40.0 + shots + gain, shots=shots, annotation=kind)
        for fold in (1, 2)
        for shots in (1, 5)
        for kind in ("dense", "scribble")
    ]


def colours(path: Path, least: int = 20) -> set[tuple[int, ...]]:
    """The colours of more than ``least`` pixels that are no grey."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(colour) for colour in found[counts > least].tolist() if len(set(colour)) > 1}


BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)


def test_plots_show_each_method(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.json", result("raw", *rows())),
        write(tmp_path / "b.json", result("net", *rows(10.0))),
    ]
    (tmp_path / "names.txt").write_text("later\n")
    for name in ("run", "waiting"):
        (tmp_path / name).mkdir()
    log = [{"iteration": n, "loss": 1 / n, "watched": {"voc": 9.0 * n}} for n in (1, 2, 3)]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log))
    out = tmp_path / "out"
    words = ["--expected", str(tmp_path / "names.txt"), "--curves"]
    words += [str(tmp_path / name) for name in ("run", "waiting")]
    assert report.main([*files, "--out", str(out), *words]) == 0
    end = "voc2012-panet-417.png"
    for name in (f"shots-{end}", f"annotations-{end}", f"time-{end}"):
        assert colours(out / name) >= {BLUE, ORANGE}, name
        assert f"]({name})" in (out / "report.md").read_text()
    assert colours(out / "curves.png") >= {BLUE}
    assert "that are not yet run: waiting." in (out / "report.md").read_text()
    assert "| bus | 1 |" in (out / "classes.md").read_text()


def test_what_has_one_value_is_not_plotted(tmp_path: Path) -> None:
    one = row(1, ENTRIES, 40.0, ms_per_query=None)
    (section,) = read_sections([write(tmp_path / "a.json", result("raw", one))])
    for draw in (plots.over_shots, plots.over_annotations, plots.over_time):
        assert not draw(section, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_times_come_from_other_results_or_not_at_all(tmp_path: Path) -> None:
    """None of another measurement stands beside them: "net" has no time here."""
    files = [
        write(tmp_path / "a.json", result("raw", row(1, ENTRIES, 40.0))),
        write(tmp_path / "b.json", result("net", row(1, ENTRIES, 50.0))),
    ]
    timed = result("panet", row(1, ENTRIES[:1], 10.0, ms_per_query=7.0))
    timed["protocol"] = "oslsm-1000"
    quick = write(tmp_path / "quick.json", timed)
    out = ["--out", str(tmp_path)]
    assert report.main([*files, *out]) == 0
    both = (tmp_path / "report.md").read_text()
    assert both.count(" 50 |") == 2
    assert report.main([*files, *out, "--times", f"raw={quick}"]) == 0
    written = (tmp_path / "report.md").read_text()
    assert written.count(" 7 |") == 1 and written.count(" 50 |") == 0
    assert colours(tmp_path / "time-voc2012-panet-417.png") >= {BLUE}
    assert ORANGE not in colours(tmp_path / "time-voc2012-panet-417.png")
    assert report.main([*files, *out, "--times", str(tmp_path / "none.json")]) == 2


def test_a_method_without_a_fold_is_not_drawn(tmp_path: Path) -> None:
    parts = [part for part in rows(10.0) if part["fold"] == 1]
    files = [
        write(tmp_path / "a.json", result("raw", *rows())),
        write(tmp_path / "b.json", result("net", *parts)),
    ]
    (section,) = read_sections(files)
    assert plots.drawn(section) == ["raw"]
    assert report.main([*files, "--out", str(tmp_path)]) == 0
    written = (tmp_path / "report.md").read_text()
    assert "Not in the plots, since a fold is not yet run: net." in written


def measured(entries: list[tuple[int, str, int, int, int]], ways: int = 1) -> Row:
    made = row(1, entries, 0.0, ways=ways)
    lists = {"run": 0, "query": 1, "class": 2}
    figures = {name: [entry[at] for entry in entries] for name, at in lists.items()}
    setting: Any = type("Setting", (), {"ways": ways})
    return Row(Path("x"), 1, setting, made, figures, {})


def test_episodes_are_chosen_by_rank() -> None:
    """IoU 0, 10 .. 90 in a shuffled order: ranks 90, 50 and 10 % are 90, 50 and 10."""
    order = [3, 9, 0, 5, 1, 7, 2, 8, 6, 4]
    made = measured([(0, f"p{n}", 6, 10 * n, 100) for n in order])
    assert chosen(made, 1) == [
        ("good", order.index(9), 90.0),
        ("median", order.index(5), 50.0),
        ("bad", order.index(1), 10.0),
    ]
    # the next one up; above the best there is none, so the next below
    assert [iou for _, _, iou in chosen(made, 2)] == [90, 80, 50, 60, 10, 20]


def test_a_query_is_shown_once() -> None:
    made = measured([(0, "p" if n < 9 else "q", 6, 10 * n, 100) for n in range(10)])
    assert [iou for _, _, iou in chosen(made, 2)] == [90, 80]


def test_ways_of_an_episode_count_together() -> None:
    made = measured([(0, "p", 6, 10, 100), (0, "p", 7, 70, 100)], ways=2)
    assert chosen(made, 1) == [("good", 0, 40.0)]


def test_what_is_marked_in_a_support() -> None:
    mask = np.array([[0, 1], [255, 1]], np.uint8)
    assert marked_labels(mask, (2, 2), 2).tolist() == [[0, 2], [0, 2]]
    assert marked_labels(Box(0, 0, 1, 2), (2, 2), 1).tolist() == [[1, 0], [1, 0]]


@pytest.fixture(scope="module", params=["panet", "srofb"])
def evaluated(
    request: pytest.FixtureRequest, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The tiny bundle on the drawn pictures, with its own method and with another."""
    folder = tmp_path_factory.mktemp("evaluated")
    bundle = tiny.tiny_bundle(folder / "tiny.fsseg")
    words = ["--data", str(drawn), "--folds", "0", "--shots", "1", "--runs", "2"]
    words += ["--episodes", "20", "--annotation", "dense,box-component", "--threads", "1"]
    words += ["--lists", str(folder / "lists"), "--json", str(folder / "tiny.json")]
    words += ["--method", request.param]
    assert evaluate.main([str(bundle), *words]) == 0
    return {"folder": folder, "bundle": bundle, "json": folder / "tiny.json", "data": drawn}


def page_of(evaluated: dict[str, Any], path: Path, *words: str) -> int:
    own = [str(evaluated["json"]), "--page", str(path), "--data", str(evaluated["data"])]
    own += ["--lists", str(evaluated["folder"] / "lists")]
    return report.main([*own, "--model", str(evaluated["bundle"]), *words])


def test_a_page_shows_what_was_measured(
    evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page_of(evaluated, tmp_path / "page.png", "--each", "1") == 0
    assert "differs from the result's by 0.0 points" in capsys.readouterr().out
    with Image.open(tmp_path / "page.png") as opened:
        assert opened.width == plots.WIDTH * 150
        assert opened.height > 3 * 100
        assert np.asarray(opened.convert("L")).std() > 20


def test_a_page_needs_the_same_model_and_lists(
    evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.tiny_bundle(tmp_path / "other.fsseg", geometry="fit")
    assert page_of(evaluated, tmp_path / "page.png", "--model", str(other)) == 2
    assert "expected the model that" in capsys.readouterr().err
    content = read_result(evaluated["json"])
    for entries in content["lists"].values():
        entries["query"] = entries["query"][::-1]
    changed = evaluated | {"json": write(tmp_path / "changed.json", content)}
    assert page_of(changed, tmp_path / "page.png") == 2
    assert "expected the episodes of" in capsys.readouterr().err
    content = read_result(evaluated["json"])
    content["data"]["pictures"] = 9
    changed = evaluated | {"json": write(tmp_path / "changed.json", content)}
    assert page_of(changed, tmp_path / "page.png") == 2
    assert "data: expected parts with 9 pictures" in capsys.readouterr().err
    assert not (tmp_path / "page.png").exists()
