"""The protocol: fixed episodes, figures checked by hand, the same code that users run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.opened import tiny_segmenter
from training.datasets import Dataset, Sample
from training.evaluation import (
    Episode,
    Outcome,
    ProtocolSettings,
    evaluate,
    list_episodes,
    paired_interval,
    with_absent,
)


@pytest.fixture(scope="module")
def samples(drawn: Path) -> tuple[Sample, ...]:
    return Dataset.open(drawn).samples


def sample(dataset: str, name: str, *classes: int, fraction: float = 0.1) -> Sample:
    return Sample(
        dataset,
        Path(f"{name}.png"),
        Path(name),
        "val",
        dict.fromkeys(classes, fraction),
        "",
        None,
    )


def outcome(*parts: tuple[str, int, str, int, int]) -> Outcome:
    """Of (data set, class, query, intersection, union)."""
    support = sample("s", "support", 1)
    return Outcome(
        [
            Episode(name, identity, support, sample(name, query))
            for name, identity, query, *_ in parts
        ],
        np.array([part[3] for part in parts]),
        np.array([part[4] for part in parts]),
        np.zeros(len(parts)),
    )


def test_episodes_are_the_same_for_the_same_seed(samples: tuple[Sample, ...]) -> None:
    episodes = list_episodes(samples)
    assert episodes == list_episodes(samples)
    assert episodes != list_episodes(samples, ProtocolSettings(seed=1))


def test_episodes_show_the_class_in_two_pictures(samples: tuple[Sample, ...]) -> None:
    settings = ProtocolSettings(pictures=5, classes=2, least_fraction=0.02)
    episodes = list_episodes(samples, settings)
    queries = [episode.query.key for episode in episodes]
    assert len(set(queries)) <= 5
    assert max(queries.count(key) for key in queries) == 2
    for episode in episodes:
        assert episode.support is not episode.query
        assert not episode.absent
        for picture in (episode.support, episode.query):
            assert picture.classes[episode.identity] >= 0.02


def test_a_class_of_one_picture_is_not_asked_for() -> None:
    assert list_episodes([sample("a", "1", 1), sample("a", "2", 2)]) == []
    assert len(list_episodes([sample("a", "1", 1), sample("a", "2", 1, 2)])) == 2


def test_absent_pictures_never_show_the_class(samples: tuple[Sample, ...]) -> None:
    episodes = list_episodes(samples)
    both = with_absent(episodes, samples)
    assert both[::2] == episodes
    for present, absent in zip(both[::2], both[1::2], strict=True):
        assert absent.absent
        assert (absent.support, absent.identity) == (present.support, present.identity)
        assert present.identity not in absent.query.classes
    assert both == with_absent(episodes, samples)


def test_absent_pictures_come_from_another_set_where_all_show_the_class() -> None:
    own, other = [sample("a", "1", 1), sample("a", "2", 1, fraction=1e-6)], sample("b", "3", 1)
    episode = Episode("a", 1, own[0], own[1])
    assert with_absent([episode], own) == []
    assert with_absent([episode], [*own, other])[1].query is other


def test_mean_iou_by_hand() -> None:
    """Class 1 of a: (2 + 4) / (10 + 10) = 0.3; class 2: 0.5; so a has 0.4, b 0.8."""
    result = outcome(
        ("a", 1, "p", 2, 10), ("a", 1, "q", 4, 10), ("a", 2, "p", 5, 10), ("b", 1, "r", 8, 10)
    )
    assert result.mean_iou() == pytest.approx(60)
    assert result.of("a").mean_iou() == pytest.approx(40)
    assert result.of("b").mean_iou() == pytest.approx(80)
    assert result.mean_iou(np.array([0.0, 2.0, 1.0, 1.0])) == pytest.approx(62.5)


def test_the_interval_is_zero_for_equal_outcomes() -> None:
    result = outcome(*(("a", n % 2, f"p{n}", n, 12) for n in range(12)))
    assert paired_interval(result, result, repeats=20) == (0, 0, 0)


def test_the_interval_holds_a_difference_of_all_pictures() -> None:
    worse = outcome(*(("a", 1, f"p{n}", 4 + n % 3, 10) for n in range(30)))
    better = outcome(*(("a", 1, f"p{n}", 6 + n % 2, 10) for n in range(30)))
    difference, low, high = paired_interval(better, worse, repeats=200)
    assert difference == pytest.approx(15)
    assert 0 < low < difference < high < 30
    assert paired_interval(better, worse, repeats=200) == (difference, low, high)


def test_other_episodes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same episodes"):
        paired_interval(outcome(("a", 1, "p", 1, 2)), outcome(("a", 1, "q", 1, 2)))


def test_evaluation_runs_what_users_run(samples: tuple[Sample, ...]) -> None:
    segmenter = tiny_segmenter()
    episodes = with_absent(list_episodes(samples, ProtocolSettings(pictures=2, classes=1)), samples)
    result = evaluate(segmenter, episodes)
    assert result.episodes == episodes
    for index, episode in enumerate(episodes):
        pixels, labels = episode.support.read()
        answer = segmenter.segment(pixels, labels == episode.identity, episode.query.read()[0])
        truth = (episode.query.read()[1] == episode.identity) & (not episode.absent)
        assert result.intersections[index] == np.count_nonzero(answer.mask & truth)
        assert result.unions[index] == np.count_nonzero(answer.mask | truth)
        assert result.presence[index] == pytest.approx(next(iter(answer.present.values())))
        if episode.absent:
            assert result.intersections[index] == 0


def test_ignored_pixels_do_not_count(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """With the whole query ignored, nothing is right or wrong."""
    episode = list_episodes(samples)[0]
    labels = np.full_like(episode.support.read()[1], 255)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    shown = replace(episode, query=episode.support)
    ignored = replace(shown, query=replace(episode.support, mask=tmp_path / "mask.png"))
    result = evaluate(tiny_segmenter(), [shown, ignored])
    assert result.unions[0] > result.intersections[0] > 0
    assert (result.intersections[1], result.unions[1]) == (0, 0)
