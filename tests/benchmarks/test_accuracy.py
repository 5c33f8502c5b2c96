"""The accuracy benchmark on drawn sets: what it counts, what it leaves out, what it says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import absent, accuracy, auxiliary, models
from benchmarks import sets as sets_module
from benchmarks.mosaics import CELLS, in_mosaics, object_share
from fsseg_sdk import Segmenter
from training.datasets import Dataset
from training.evaluation import (
    Episode,
    Outcome,
    ProtocolSettings,
    evaluate,
    list_episodes,
    with_absent,
)
from training.remembering import RememberingGraph

from .conftest import write_set


@pytest.fixture(scope="module")
def report(bundle: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("accuracy")
    folders = [str(sets / name) for name in ("squares", "pairs", "voc2012", "missing")]
    arguments = ["--data", *folders, "--bundle", str(bundle), "--mosaics", "2"]
    files = ["--json", str(out / "a.json"), "--plot", str(out / "a.png")]
    assert accuracy.main([*arguments, *files]) == 0
    assert (out / "a.png").read_bytes()[:4] == b"\x89PNG"
    found: dict[str, Any] = json.loads((out / "a.json").read_text())
    return found


def test_the_average_is_that_of_the_held_out_sets(report: dict[str, Any]) -> None:
    rows = {row["set"]: row for row in report["iou"]["rows"]}
    assert {name: row["seen"] for name, row in rows.items()} == {
        "squares": False,
        "pairs": False,
        "voc2012": True,
    }
    assert rows["squares"]["episodes"] == 20  # pictures without a class are not asked
    assert rows["pairs"]["episodes"] == 8
    assert report["iou"]["average"]["bundle"] == pytest.approx(
        (rows["squares"]["iou"]["bundle"] + rows["pairs"]["iou"]["bundle"]) / 2
    )
    assert rows["squares"]["iou"]["bundle"] > 50  # colours are what the tiny encoder sees


def test_it_says_what_the_figures_are_not(
    report: dict[str, Any], bundle: Path, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "not PASCAL-5i" in report["caveat"]
    assert any("missing" in line for line in report["left_out"])
    assert len(report["iou"]["notes"]) == len(models.RAW)
    assert report["options"]["data"][0] == "squares"
    assert str(sets) not in json.dumps(report)
    assert report["machine"]["packages"]["numpy"] == np.__version__
    only = ["--data", str(sets / "voc2012"), "--bundle", str(bundle), "--sections", "weak"]
    assert accuracy.main(only) == 1
    text = capsys.readouterr().out
    assert "not PASCAL-5i" in text
    assert "left out: none of the folders" in text


def test_a_set_of_the_provenance_is_seen_too(sets: Path) -> None:
    opened, left_out = sets_module.open_sets([sets / "squares"], None, trained_on=["squares"])
    assert opened == []
    assert "squares" in left_out[0]


def test_weak_labels_and_tiles_are_measured(report: dict[str, Any]) -> None:
    average = report["weak"]["average"]
    assert set(average) == {"mask", "box", "box, refined", "scribble", "scribble, refined"}
    assert average["mask"] == pytest.approx(report["iou"]["average"]["bundle"])
    assert average["box"] == pytest.approx(average["mask"])  # squares are their boxes
    assert average["box, refined"] > average["box"]  # refining does something
    [first, second, difference, low, high] = report["weak"]["differences"][0]
    assert (first, second) == ("box, refined", "box")
    assert low <= difference <= high
    tile = report["tile"]
    assert tile["cost"]["tile=None"]["windows"] == 1 < tile["cost"]["tile=True"]["windows"]
    row = next(row for row in tile["rows"] if row["size"] == "all")
    assert row["episodes"] == 2
    assert row["iou"]["tile=True"] > row["iou"]["tile=None"] + 5  # squares of 11 x 11 pixels


def test_every_method_is_measured_with_its_cost(report: dict[str, Any]) -> None:
    found = report["methods"]
    assert set(found["average"]) >= {"panet", "paia", "srofb", "srofb-fast", "nearest", "logreg"}
    assert next(iter(found["average"])) == "panet"
    assert found["average"]["panet"] == pytest.approx(report["iou"]["average"]["bundle"])
    assert found["average"]["srofb"] > 50
    others = [name for name in found["average"] if name != "panet"]
    assert [pair[:2] for pair in found["differences"]] == [[name, "panet"] for name in others]
    assert found["match_ms"]["srofb"] > found["match_ms"]["panet"] > 0
    assert "times that of panet" in found["notes"][1]


def test_auxiliary_pictures_are_given_to_paia_alone(report: dict[str, Any]) -> None:
    average = report["auxiliary"]["average"]
    assert list(average) == ["panet", *auxiliary.GIVEN]
    assert average["panet"] == pytest.approx(report["iou"]["average"]["bundle"])
    assert average["U = 2"] != average["paia, U = 0"]


def test_auxiliary_pictures_show_the_class_or_not_as_asked(sets: Path) -> None:
    samples = Dataset.open(sets / "squares").samples
    for episode in list_episodes(samples, ProtocolSettings(pictures=50)):
        own = [s for s in samples if episode.identity in s.classes]
        few, more = (auxiliary.draw(episode, samples, right, 2, 0) for right in (1, 99))
        assert len(few) == 3
        assert few[0] == more[0]
        assert few[1:] == more[-2:]
        assert {s.key for s in more[:-2]} == {s.key for s in own} - {
            episode.support.key,
            episode.query.key,
        }
        assert not any(episode.identity in s.classes for s in more[-2:])


def test_absent_queries_come_from_where_they_should(report: dict[str, Any]) -> None:
    own = {row["set"]: row for row in report["presence"]["own"]}
    assert own["squares"]["fallbacks"] == 0
    assert own["pairs"]["fallbacks"] == own["pairs"]["absent"] == 8  # all pairs show both
    assert own["pooled"]["present"] == own["pooled"]["absent"] == 28
    mixed = {row["set"]: row for row in report["presence"]["any"]}
    assert 0 < mixed["squares"]["fallbacks"] < 20


def test_with_absent_never_asks_in_a_picture_that_shows_the_class(sets: Path) -> None:
    squares, pairs = (Dataset.open(sets / name).samples for name in ("squares", "pairs"))
    episodes = list_episodes(squares, ProtocolSettings(pictures=50))
    for source in ("own", "any"):
        listed = with_absent(episodes, [*squares, *pairs], source=source)  # type: ignore[arg-type]
        assert [e.absent for e in listed] == [False, True] * len(episodes)
        for episode in listed[1::2]:
            other = episode.query.dataset != episode.dataset
            assert other or episode.identity not in episode.query.classes
        sources = Counter(e.query.dataset for e in listed[1::2])
        assert (sources["pairs"] > 0) == (source == "any")
    assert with_absent(list_episodes(pairs), pairs) == []


def test_kept_and_false_count_scores_at_the_threshold(sets: Path) -> None:
    sample = Dataset.open(sets / "squares").samples[0]
    flags = (False, False, True, True)
    none = np.zeros(4, np.int64)
    outcome = Outcome(
        [Episode("squares", 1, sample, sample, flag) for flag in flags],
        none,
        none,
        np.array([0.9, 0.4, 0.5, 0.1]),
    )
    row = absent.figures("squares", outcome, 0.5)
    assert (row["kept"], row["false"], row["auroc"]) == (0.5, 0.5, 0.75)
    assert "kept" not in absent.figures("squares", outcome, None)


def test_a_memory_that_is_full_forgets_the_oldest(bundle: Path) -> None:
    counted = Counter[float]()
    graph = models.open_bundle(str(bundle), 1)._core.encoder.graph

    class Counting:
        inputs, outputs = graph.inputs, graph.outputs
        backend, device, precision = graph.backend, graph.device, graph.precision

        def run(self, feeds: Any) -> Any:
            counted[float(feeds["image"][0, 0, 0, 0])] += 1
            return graph.run(feeds)

    one = 16 * 8 * 8 * 4
    remembering = RememberingGraph(Counting(), most_bytes=2 * one)
    for value in (1, 2, 1, 3, 1, 2):
        remembering.run({"image": np.full((1, 3, 64, 64), value, np.float32)})
    assert counted == {1.0: 1, 2.0: 2, 3.0: 1}


def test_mosaics_hold_sixteen_pictures_that_show_the_class(sets: Path, bundle: Path) -> None:
    samples = Dataset.open(sets / "squares").samples
    episodes = list_episodes(samples, ProtocolSettings(pictures=50))
    made = in_mosaics(episodes, samples, (64, 64), 3, 0.001)
    assert len(made) == 3
    assert {episode.identity for episode in made} == {1}  # three pictures of class 2 are too few
    for episode in made:
        keys = [piece.key for piece in episode.query.pieces]  # type: ignore[attr-defined]
        assert len(set(keys)) == CELLS
        assert episode.support.key not in keys
        pixels, labels = episode.query.read()
        assert pixels.shape == (256, 256, 3)
        fraction = (labels == 1).mean()
        assert fraction == pytest.approx(episode.query.classes[1], rel=0.1)
        assert object_share(episode) == pytest.approx(fraction / CELLS, rel=0.15)


def test_an_episode_keeps_its_example_in_other_clothes(sets: Path, bundle: Path) -> None:
    """`annotate` is asked once for each support and class, with that class's mask."""
    samples = Dataset.open(sets / "pairs").samples
    episodes = list_episodes(samples) * 2
    seen: list[tuple[str, int, int]] = []

    def annotate(mask: Any, episode: Episode) -> Any:
        seen.append((episode.support.key, episode.identity, int((mask == 1).sum())))
        return mask

    evaluate(Segmenter.load(bundle, threads=1), episodes, annotate=annotate)
    assert len(seen) == len({(e.support.key, e.identity) for e in episodes})
    assert {size for _, _, size in seen} == {22 * 24}


def test_zero_pictures_are_all(tmp_path: Path) -> None:
    write_set(tmp_path / "many", [(1,)] * 9)
    (many,), _ = sets_module.open_sets([tmp_path / "many"], None)
    assert len(many.episodes(ProtocolSettings(pictures=0))) == 9
    assert len(many.episodes(ProtocolSettings(pictures=4))) == 4
