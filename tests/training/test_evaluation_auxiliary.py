"""Auxiliary pictures in an evaluation: which, how they are used, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsseg_sdk import Segmenter
from tests import tiny
from tests.training.results import result, row, write
from training import evaluate as command
from training import report
from training.datasets import Dataset
from training.evaluation import engine
from training.evaluation.auxiliary import Given, draw_auxiliary, mean_number
from training.evaluation.episodes import draw
from training.evaluation.pool import Pool
from training.evaluation.predictor import How, of_bundle
from training.evaluation.protocols import PANET_417
from training.evaluation.results import read_result
from training.reporting.reading import read_sections
from training.reporting.tables import against, by_fold

from .squares import draw_parts

SQUASHED = replace(PANET_417, side=64, support_ignore="leave out")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_parts(tmp_path_factory.mktemp("squares") / "parts", 20)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"panet": {"scale": 10.0}, "steps": 2, "query_steps": 1, "radius": 0.9}
    path = tmp_path_factory.mktemp("bundle") / "paia.fsseg"
    return tiny.tiny_bundle(path, method="paia", settings=settings, golden=False)


# ---- which pictures ----


def test_auxiliary_pictures_show_the_class_and_are_no_others(parts: Dataset) -> None:
    pool = Pool.of(parts, SQUASHED, 0)
    different = set()
    for shots, ways in ((1, 1), (2, 1), (1, 2)):
        for episode in draw(pool, shots, ways, 0, 12):
            taken = {episode.query, *(key for _, keys in episode.support for key in keys)}
            found = draw_auxiliary(pool, episode, Given(3, 2))
            assert len(found) == ways
            for (identity, _), drawn in zip(episode.support, found, strict=True):
                assert len(set(drawn.right)) == 3 and len(set(drawn.wrong)) == 2
                assert not taken & {*drawn.right, *drawn.wrong}
                assert all(identity in pool.samples[key].classes for key in drawn.right)
                assert all(identity not in pool.samples[key].classes for key in drawn.wrong)
                different.add(drawn.right)
    assert len(different) > 8


def test_fewer_are_the_first_of_more_and_every_draw_is_the_same(parts: Dataset) -> None:
    pool = Pool.of(parts, SQUASHED, 0)
    for episode in draw(pool, 1, 2, 0, 4):
        most = draw_auxiliary(pool, episode, Given(4, 3))
        assert most == draw_auxiliary(pool, episode, Given(4, 3))
        for given in (Given(2, 1), Given(0, 2), Given(3, 0)):
            few = draw_auxiliary(pool, episode, given)
            assert [f.first(given) for f in few] == [m.first(given) for m in most]
            assert all(len(f.first(given)) == sum(given) for f in few)


def test_episodes_draw_apart(parts: Dataset) -> None:
    """By lot for each query, so that no picture serves a class again and again."""
    pool = Pool.of(parts, SQUASHED, 0)
    firsts: dict[int, set[str]] = {}
    for episode in draw(pool, 1, 1, 0, 40):
        ((identity, _),) = episode.support
        firsts.setdefault(identity, set()).add(draw_auxiliary(pool, episode, Given(1))[0].right[0])
    assert len(firsts) == 3 and all(len(keys) >= 5 for keys in firsts.values())


def test_a_class_with_few_pictures_gives_those_that_it_has(parts: Dataset) -> None:
    pool = Pool.of(parts, SQUASHED, 0)
    episodes = draw(pool, 1, 1, 0, 6)
    shown = [len(pool.supports[episode.support[0][0]]) for episode in episodes]
    # support and query show it, too
    assert mean_number(pool, episodes, Given(50, 0)) == pytest.approx(np.mean(shown) - 2)
    assert mean_number(pool, episodes, Given(2, 1)) == 3
    assert mean_number(pool, episodes, Given()) == 0
    first = draw_auxiliary(pool, episodes[0], Given(2, 1))[0].right[0]
    assert 3 > mean_number(pool, episodes, Given(2, 1), {first}) >= 2


# ---- what is measured ----


def test_every_setting_equals_one_episode_as_a_user_runs_it(parts: Dataset, bundle: Path) -> None:
    """To the pixel, with right and wrong pictures, for one and two ways."""
    pool = Pool.of(parts, SQUASHED, 0)
    lists = {(1, 1): draw(pool, 1, 1, 0, 2), (1, 2): draw(pool, 1, 2, 0, 2)}
    numbers = [Given(0, 0), Given(2, 0), Given(2, 1)]
    predictor = of_bundle(str(bundle), How(threads=1))
    counts = engine.measure(predictor, pool, lists, ["dense"], False, numbers)
    segmenter = Segmenter.load(bundle, threads=1)
    seen = set()
    for (shots, ways), episodes in lists.items():
        for given in numbers:
            found = counts.confusions[engine.Setting(shots, ways, "dense", *given)]["native"]
            for episode, counted in zip(episodes, found, strict=True):
                support, unmarked = {}, {}
                drawn = draw_auxiliary(pool, episode, given)
                for (identity, keys), each in zip(episode.support, drawn, strict=True):
                    pixels, labels = pool.samples[keys[0]].read()
                    mask = np.where(labels == 255, 255, labels == identity).astype(np.uint8)
                    support[str(identity)] = (pixels, mask)
                    unmarked[str(identity)] = [
                        str(pool.samples[k].image) for k in each.first(given)
                    ]
                pixels, labels = pool.samples[episode.query].read()
                task = segmenter.prepare(support, auxiliary=unmarked if sum(given) else None)
                labelled = task.segment(pixels).raw_labels
                for way in range(ways + 1):
                    assert counted[:, way].sum() == ((labelled == way) & (labels != 255)).sum()
                seen.add(labelled.tobytes())
    assert len(seen) > len(lists[1, 1]) + len(lists[1, 2])  # the pictures have a say


def test_a_broken_auxiliary_picture_is_an_error_or_left_out(
    parts: Dataset, bundle: Path, tmp_path: Path
) -> None:
    pool = Pool.of(parts, SQUASHED, 0)
    lists = {(1, 1): draw(pool, 1, 1, 0, 1)}
    (drawn,) = draw_auxiliary(pool, lists[1, 1][0], Given(2))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    key = drawn.right[0]
    samples = {**pool.samples, key: replace(pool.samples[key], image=broken)}
    pool = replace(pool, samples=samples)
    predictor = of_bundle(str(bundle), How(threads=1))
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read"):
        engine.measure(predictor, pool, lists, ["dense"], False, [Given(2)])
    counts = engine.measure(predictor, pool, lists, ["dense"], True, [Given(2)])
    assert list(counts.broken) == [key]
    assert len(counts.confusions[engine.Setting(1, 1, "dense", 2)]["native"]) == 1


# ---- the command and the report ----


def words(data: Dataset, folder: Path, *more: str) -> list[str]:
    path = str(data.samples[0].image.parents[1])
    lists = ["--lists", str(folder / "lists"), "--json", str(folder / "out.json")]
    episodes = ["--folds", "0", "--shots", "1", "--runs", "1", "--episodes", "5", "--threads", "1"]
    return ["--data", path, *episodes, *lists, *more]


def test_rows_tables_and_a_page_know_the_numbers(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(parts, tmp_path, "--auxiliary", "0,2,40", "--wrong-auxiliary", "0,1")
    assert command.main([str(bundle), *asked]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1-way 1-shot dense, U = 2 + 1 wrong" in printed
    assert "U = 40: not all classes have so many;" in printed
    rows = read_result(tmp_path / "out.json")["rows"]
    native = [r for r in rows if r["resolution"] == "native"]
    numbers = [(r["auxiliary"], r["wrong"]) for r in native]
    assert sorted(numbers) == [(u, w) for u in (0, 2, 40) for w in (0, 1)]
    assert all(
        r["auxiliary_mean"] == sum(n) for r, n in zip(native, numbers, strict=True) if n[0] < 3
    )
    assert all(8 < r["auxiliary_mean"] < 20 for r in native if r["auxiliary"] == 40)
    (section,) = read_sections([str(tmp_path / "out.json")])
    table = by_fold(section, section.settings()[0])
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| tiny",
        "| tiny, U = 0 + 1 wrong",
        "| tiny, U = 2",
        "| tiny, U = 2 + 1 wrong",
        "| tiny, U = 40",
        "| tiny, U = 40 + 1 wrong",
    ]
    page = [str(tmp_path / "out.json"), "--page", str(tmp_path / "page.png"), "--each", "1"]
    page += ["--data", str(parts.samples[0].image.parents[1]), "--model", str(bundle)]
    page += ["--lists", str(tmp_path / "lists"), "--method", "tiny, U = 2 + 1 wrong"]
    assert report.main(page) == 0
    assert "differs from the result's by 0.0 points" in capsys.readouterr().out


def test_methods_that_take_no_such_pictures_are_refused(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(parts, tmp_path, "--auxiliary", "2")
    assert command.main([str(bundle), *asked, "--method", "panet"]) == 2
    assert "--auxiliary: method panet learns from labelled pictures only" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([str(bundle), *words(parts, tmp_path, "--auxiliary", "51")])
    assert "--auxiliary: expected 0 to 50, got 51" in capsys.readouterr().err


def test_a_part_of_another_number_is_refused(
    parts: Dataset,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.results, "write_result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main([str(bundle), *words(parts, tmp_path, "--auxiliary", "2")])
    assert command.main([str(bundle), *words(parts, tmp_path, "--auxiliary", "3")]) == 2
    assert "another evaluation: auxiliary was [[2, 0]], now [[3, 0]]" in capsys.readouterr().err


ENTRIES = [(0, f"p{n}", 6, 40, 100) for n in range(5)]
BETTER = [(0, f"p{n}", 6, 50, 100) for n in range(5)]


def test_a_number_is_compared_with_a_method_without(tmp_path: Path) -> None:
    """Older results say nothing of auxiliary pictures."""
    rows = [
        row(1, BETTER if number else ENTRIES, 40.0 + number, auxiliary=number, wrong=0)
        for number in (0, 2, 5)
    ]
    files = [
        write(tmp_path / "a.json", result("panet", row(1, ENTRIES, 40.0))),
        write(tmp_path / "b.json", result("paia", *rows)),
    ]
    (section,) = read_sections(files)
    table = against(section, section.settings()[0], section.method("panet"))
    assert table is not None
    assert "| paia, U = 2 | +10.0 [+10.0, +10.0] |" in table
    assert "| paia | +0.0 [+0.0, +0.0], not resolved |" in table
    out = tmp_path / "out"
    assert report.main([*files, "--baseline", "panet", "--out", str(out)]) == 0
    assert (out / "auxiliary-voc2012-panet-417.png").stat().st_size > 5000
    assert "auxiliary-voc2012" in (out / "report.md").read_text()
    assert report.main([files[0], "--out", str(tmp_path / "one")]) == 0
    assert not (tmp_path / "one" / "auxiliary-voc2012-panet-417.png").exists()
