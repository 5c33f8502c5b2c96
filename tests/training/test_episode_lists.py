"""Lists of episodes as files: of what they were drawn, line by line, and where they lie."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from training.datasets import Sample
from training.evaluation import episodes as command
from training.evaluation.episodes import draw
from training.evaluation.fold import _lists
from training.evaluation.lists import FOLDER, FewShot, facts_of, folder_of, load, write
from training.evaluation.options import add_data, numbers, open_data
from training.evaluation.pool import Pool
from training.evaluation.protocols import HSNET_400, PANET_417

from .conftest import row
from .folders import save_picture, write_fss, write_voc
from .test_protocols import pool, voc

GOOD = {"query": "0000", "support": {"11": ["0003"]}}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"query": "9999"}, "'9999' is not in the test pool"),
        ({"support": {"11": ["0001"]}}, "'0001' does not show class 11"),
        ({"support": {"11": ["0000"]}}, "the query '0000' is among the supports"),
        ({"support": {"11": ["0003", "0006"]}}, "1 classes with 1 supports"),
        ({"support": {"3": ["0003"]}}, "class 3 is not novel"),
        ({"support": {"12": ["0001"]}}, "shows none of the classes"),
        ({"support": {"dog": ["0003"]}}, "invalid literal"),
        ({"support": None}, "items"),
    ],
)
def test_a_broken_line_is_refused(broken: dict[str, object], reason: str, tmp_path: Path) -> None:
    path, own = tmp_path / "list.jsonl", pool()
    facts = json.dumps(facts_of(own, 1, 1, 0, 2))
    path.write_text(f"{facts}\n{json.dumps(GOOD)}\n{json.dumps(GOOD | broken)}\n")
    with pytest.raises(ValueError, match=rf"list\.jsonl, line 3: .*{reason}"):
        load(path, own, 1, 1, 0)


def test_a_support_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path, own = tmp_path / "list.jsonl", pool()
    twice = {"query": "0000", "support": {"11": ["0003", "0003"]}}
    path.write_text(json.dumps(facts_of(own, 2, 1, 0, 1)) + "\n" + json.dumps(twice) + "\n")
    with pytest.raises(ValueError, match="line 2: a support stands there twice"):
        load(path, own, 2, 1, 0)


def test_a_line_without_a_field_or_json_is_refused(tmp_path: Path) -> None:
    path, own = tmp_path / "list.jsonl", pool()
    facts = json.dumps(facts_of(own, 1, 1, 0, 1))
    for line, reason in (('{"query": "0000"}', "lacks 'support'"), ("{", "Expecting")):
        path.write_text(f"{facts}\n{line}\n")
        with pytest.raises(ValueError, match=f"line 2: {reason}"):
            load(path, own, 1, 1, 0)
    path.write_text(facts + "\n")
    with pytest.raises(ValueError, match="expected episodes"):
        load(path, own, 1, 1, 0)
    with pytest.raises(FileNotFoundError, match=r"training\.evaluation\.episodes"):
        load(tmp_path / "none.jsonl", own, 1, 1, 0)


def test_a_list_of_something_else_is_refused(tmp_path: Path) -> None:
    path, own = tmp_path / "list.jsonl", pool()
    write(path, [FewShot("0000", ((11, ("0003",)),))], facts_of(own, 1, 1, 0, 1))
    assert len(load(path, own, 1, 1, 0)) == 1
    with pytest.raises(ValueError, match="line 1: shots: expected 2, got 1"):
        load(path, own, 2, 1, 0)
    with pytest.raises(ValueError, match="line 1: protocol: expected 'hsnet-400'"):
        load(path, pool(HSNET_400), 1, 1, 0)


def test_numbers() -> None:
    assert numbers("0-3") == [0, 1, 2, 3]
    assert numbers("1,5,2-3") == [1, 5, 2, 3]
    for wrong in ("one", "3-1", "1,5-2", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="1,5 or 0-3"):
            numbers(wrong)


def test_a_list_of_a_larger_set_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """All of its episodes are in the pool of the larger one; but they are not that one's lists."""
    path, own = tmp_path / "list.jsonl", pool()
    write(path, draw(own, 1, 1, 0, 9), facts_of(own, 1, 1, 0, 9))
    larger = Pool.of(voc(90), PANET_417, 2)
    assert {*own.samples} < {*larger.samples}
    with pytest.raises(ValueError, match=r"line 1: pictures: expected 90, got 60.*--lists"):
        load(path, larger, 1, 1, 0)
    with pytest.raises(ValueError, match="line 1: seed: expected 1, got 0"):
        load(path, own, 1, 1, 1)


def test_a_list_with_other_classes_is_refused(tmp_path: Path) -> None:
    """--fewest says which classes are asked for, with or without a list."""
    path, own = tmp_path / "list.jsonl", pool()
    write(path, draw(own, 1, 1, 0, 9), facts_of(own, 1, 1, 0, 9))
    with pytest.raises(ValueError, match=r"classes: expected \[11, 12, 13, 14, 15\].*--lists"):
        load(path, pool(fewest=2), 1, 1, 0)


def test_lists_of_another_pool_are_not_mixed_up(tmp_path: Path) -> None:
    path, own = tmp_path / "list.jsonl", pool()
    val = Pool.of(voc(), PANET_417, 2, 2, "val")
    assert {s.split for s in val.samples.values()} == {"val"}
    facts = facts_of(val, 1, 1, 0, 9)
    assert facts["pool"] == "val"
    assert "pool" not in facts_of(own, 1, 1, 0, 9)
    write(path, draw(val, 1, 1, 0, 9), facts)
    assert len(load(path, val, 1, 1, 0)) == 9
    with pytest.raises(ValueError, match="pool: expected 'all', got 'val'"):
        load(path, own, 1, 1, 0)


def test_only_the_shipped_set_has_the_shipped_lists() -> None:
    shipped = replace(pool(), data="voc2012", pictures=3426)
    assert folder_of(shipped) == FOLDER
    assert folder_of(replace(shipped, pictures=12031)) == FOLDER / "voc2012-12031"
    assert folder_of(replace(shipped, which="val")) == FOLDER / "voc2012-3426-val"
    assert folder_of(pool()) == FOLDER / "voc-60"


def test_longer_lists_than_usual_can_be_asked_for(tmp_path: Path) -> None:
    def asked(episodes: int) -> argparse.Namespace:
        facts = {"ways": [1], "shots": [1], "runs": 1, "lists": tmp_path}
        return argparse.Namespace(**facts, episodes=episodes)

    lists, _ = _lists(asked(1200), pool())
    assert len(lists[1, 1][0]) == 1200
    shorter, _ = _lists(asked(7), pool())
    assert shorter[1, 1][0] == lists[1, 1][0][:7]
    with pytest.raises(ValueError, match=r"got 1200.*--lists: longer"):
        _lists(asked(1201), pool())


def test_where_a_longer_list_begins() -> None:
    assert draw(pool(), 1, 1, 1, 60)[:9] == draw(pool(), 1, 1, 1, 9)
    own = pool(HSNET_400)
    assert draw(own, 1, 1, 0, 60)[:9] == draw(own, 1, 1, 0, 9)
    assert draw(own, 1, 1, 1, 60)[:9] != draw(own, 1, 1, 1, 9)


def test_the_command_draws_what_is_asked(
    tmp_path: Path, write_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(*(row(n) for n in range(6)))
    options = ["--data", str(folder), "--out", str(tmp_path / "lists"), "--runs", "2"]
    assert command.main([*options, "--folds", "0", "--shots", "1,7", "--episodes", "5"]) == 0
    assert "0 have them" in capsys.readouterr().out  # seven shots of six pictures
    names = [f"panet-417-fold0-1shot-seed{seed}.jsonl" for seed in (0, 1)]
    assert sorted(p.name for p in (tmp_path / "lists").iterdir()) == names
    lines = (tmp_path / "lists" / names[0]).read_text().splitlines()
    assert len(lines) == 6
    assert command.main([*options, "--folds", "2"]) == 2
    assert "one fold" in capsys.readouterr().err
    assert command.main([*options, "--folds", "0,2"]) == 2
    for wrong in ("--shots=16", "--ways=0", "--runs=0", "--shots=2-1"):
        with pytest.raises(SystemExit):
            command.main([*options, wrong])


def data_of(folder: Path, *more: str) -> tuple[Sample, ...]:
    parser = argparse.ArgumentParser()
    add_data(parser)
    return open_data(parser.parse_args(["--data", str(folder), *more])).samples


def test_sets_open_as_they_do_elsewhere(tmp_path: Path) -> None:
    """A broken mask, the index's place and FSS-1000's test classes."""
    fss = write_fss(tmp_path / "fss", ["a", "b"])
    (tmp_path / "names.txt").write_text("b\n")
    named = ["--test-list", str(tmp_path / "names.txt"), "--cache", str(tmp_path / "kept")]
    samples = data_of(fss, *named, "--workers", "0")
    assert {s.image.parent.name for s in samples if s.split == "test"} == {"b"}
    assert len(list((tmp_path / "kept").iterdir())) == 1
    broken = write_voc(tmp_path, {"2007_000001": [(1, 2, 5)]}, {"2007_000002": [(1, 2, 5)]})
    save_picture(broken / "SegmentationClass" / "2007_000001.png")
    with pytest.raises(ValueError, match="2007_000001"):
        data_of(broken)
    assert len(data_of(broken, "--skip-broken")) == 1
