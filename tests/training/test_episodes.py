"""Episodes: each depends on its seed and number alone, and holds what its kind says."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.conftest import WriteSet, row
from training.augment import AugmentSettings
from training.batches import StepStream
from training.datasets import Dataset
from training.episodes import EpisodeSettings, EpisodeSource
from training.learner import Share

SIDE = 64
CLASS, REGION, SCENE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
MIXED = (1.0, 1.0, 1.0)
Kinds = tuple[float, float, float]


def source(folder: Path, kinds: Kinds, several: float = 0.4) -> EpisodeSource:
    return EpisodeSource(Dataset.open(folder).samples, EpisodeSettings(SIDE, kinds, several))


def take(
    episodes: EpisodeSource, count: int, start: int = 0, workers: int = 0, seed: int = 5
) -> list[tuple[Tensor, Tensor]]:
    stream = StepStream([Share(episodes, 1)], seed, start)
    loader = torch.utils.data.DataLoader(stream, None, num_workers=workers)
    return [(pixels, masks) for pixels, masks in islice(loader, count)]


def same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


def test_episodes_do_not_depend_on_workers_or_on_where_a_run_resumes(drawn: Path) -> None:
    episodes = source(drawn, MIXED)
    whole = take(episodes, 9)
    assert same(whole, take(source(drawn, MIXED), 9))
    assert same(whole, take(episodes, 9, workers=1))
    assert same(whole, take(episodes, 9, workers=2))
    assert same(whole[4:], take(episodes, 5, start=4))
    assert same(whole[4:], take(episodes, 5, start=4, workers=2))
    assert not same(whole, take(episodes, 9, seed=6))
    assert not same(whole[:1], whole[1:2])


@pytest.mark.parametrize("kinds", [CLASS, REGION, SCENE])
@pytest.mark.parametrize("several", [0.0, 1.0])
def test_shapes_and_labels(drawn: Path, kinds: Kinds, several: float) -> None:
    most = 0
    for pixels, masks in take(source(drawn, kinds, several), 12):
        assert (pixels.shape, pixels.dtype) == ((2, SIDE, SIDE, 3), torch.uint8)
        assert (masks.shape, masks.dtype) == ((2, SIDE, SIDE), torch.uint8)
        labels = set(masks.unique().tolist()) - {255}
        assert labels <= set(range(EpisodeSettings().most_ways + 1))
        for mask in masks:
            assert ((mask > 0) & (mask < 255)).any()  # there is something to find in both
        most = max(most, *labels)
    assert most == 1 if several == 0 else most > 1


def test_no_more_ways_than_asked_for(drawn: Path) -> None:
    settings = EpisodeSettings(SIDE, REGION, several=1.0, most_ways=2)
    episodes = EpisodeSource(Dataset.open(drawn).samples, settings)
    largest = [int(masks[masks < 255].max()) for _, masks in take(episodes, 8)]
    assert max(largest) == 2


def test_ways_are_classes_that_both_pictures_show(drawn: Path) -> None:
    # whole pictures, so nothing is cut off
    still = AugmentSettings(crop=(1.0, 1.0), stretch=0.0, angle=0.0)
    settings = EpisodeSettings(SIDE, CLASS, several=1.0, augment=still)
    episodes, counts = EpisodeSource(Dataset.open(drawn).samples, settings), []
    for number in range(12):
        views = episodes.draw(np.random.default_rng(number))
        ways = [set(np.unique(mask).tolist()) - {0, 255} for _, mask in views]
        assert ways[0] == ways[1] == set(range(1, len(ways[0]) + 1))
        counts.append(len(ways[0]))
    assert min(counts) == 1 < max(counts)


def test_ignored_pixels_stay_ignored(write_set: WriteSet) -> None:
    folder = write_set(row(1), row(2))
    labels = np.full((40, 60), 255, np.uint8)
    labels[10:30, 20:40] = 1
    for number in (1, 2):
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    for _, masks in take(source(folder, CLASS), 6):
        assert set(masks.unique().tolist()) == {1, 255}


def test_kinds_that_are_not_asked_for_are_not_drawn(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kinds, absent in (
        (CLASS, ("_region_pair",)),
        (REGION, ("_class_pair",)),
        (SCENE, ("_class_pair", "_region_pair")),
    ):
        with monkeypatch.context() as patch:
            for name in absent:
                patch.setattr(EpisodeSource, name, None)
            take(source(drawn, kinds), 6)


def test_scenes_need_no_pictures() -> None:
    assert len(take(EpisodeSource((), EpisodeSettings(SIDE, SCENE)), 2)) == 2


def test_class_episodes_need_a_class_with_two_pictures(drawn: Path) -> None:
    with pytest.raises(ValueError, match="two pictures"):
        EpisodeSource(Dataset.open(drawn).samples[:1], EpisodeSettings(SIDE, CLASS))


@pytest.mark.parametrize(
    ("field", "value"),
    [("side", 48), ("kinds", (0.0, 0.0, 0.0)), ("kinds", (1.0, -1.0, 1.0))],
)
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        EpisodeSettings(**{field: value})  # type: ignore[arg-type]
