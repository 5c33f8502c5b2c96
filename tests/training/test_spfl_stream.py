"""Extra pictures of SPFL: labels stay where they belong, a step depends on its number alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.latents import CLASSES, COLOURS, write_latents
from tests.training.squares import draw_parts
from training.batches import Batches, StepStream
from training.datasets import Sample
from training.episodes import EpisodeSettings, EpisodeSource
from training.learner import Share
from training.spfl.latents import Latents
from training.spfl.stream import LatentSource, ViewSettings, nearest, strong_view

SIDE = 64
PLAIN = ViewSettings(colour=0.0, grey=0.0, blur=0.0, cutout=0.0)


def painted(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose colours are its labels, of two levels; the second is the first's halves."""
    generator = np.random.default_rng(height)
    patches = generator.integers(0, 6, ((height + 7) // 8, (width + 7) // 8)).astype(np.uint8)
    fine = patches.repeat(8, 0).repeat(8, 1)[:height, :width]
    return COLOURS[fine], np.stack([fine, fine // 2])


@pytest.mark.parametrize(("height", "width"), [(80, 120), (64, 64), (41, 33)])
def test_labels_stay_on_what_they_label(height: int, width: int) -> None:
    pixels, labels = painted(height, width)
    seen = set()
    for number in range(30):
        view, moved = strong_view(np.random.default_rng(number), pixels, labels, SIDE, PLAIN)
        assert view.shape == (SIDE, SIDE, 3) and view.dtype == np.uint8
        assert moved.shape == (2, SIDE, SIDE) and moved.dtype == np.uint8
        assert np.array_equal(moved[1], moved[0] // 2)
        # pixels at the patches' borders are mixed
        off = np.abs(view[..., None, :].astype(int) - COLOURS).sum(-1)
        assert np.mean(off.argmin(-1) == moved[0]) > 0.85
        seen.add(view.tobytes())
    assert len(seen) == 30


def test_every_change_leaves_labels_that_were_there() -> None:
    pixels, labels = painted(80, 120)
    labels[:, :8] = 255
    strong = ViewSettings(cutout=1.0, grey=1.0, blur=1.0)
    for number in range(20):
        view, moved = strong_view(np.random.default_rng(number), pixels, labels, SIDE, strong)
        assert set(np.unique(moved)) <= {*np.unique(labels), 255}
        assert ((moved[0] == 255) == (moved[1] == 255)).all()
        assert np.ptp(view[moved[0] != 255].astype(int), axis=1).max() <= 1


def test_what_is_cut_out_is_unknown() -> None:
    pixels, labels = painted(64, 64)
    for area in (0.02, 0.1, 0.4):
        settings = replace(PLAIN, cutout=1.0, cutout_area=(area, area))
        for number in range(10):
            view, moved = strong_view(np.random.default_rng(number), pixels, labels, 128, settings)
            hole = moved[0] == 255
            assert 0.6 * area < hole.mean() < 1.05 * area
            assert len(np.unique(view[hole], axis=0)) == 1


def test_nearest_takes_the_label_under_the_middle() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(1, 2, 6)
    assert nearest(labels, 3).tolist() == [[[1, 3, 5], [7, 9, 11], [7, 9, 11]]]
    assert np.array_equal(nearest(np.eye(5, dtype=np.uint8)[None], 5)[0], np.eye(5))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("crop", (0.0, 1.0), "crop: expected two rising fractions"),
        ("cutout_area", (0.5, 0.1), "cutout_area: expected two rising fractions"),
        ("blur", 1.5, "blur: expected 0 to 1"),
        ("stretch", -1.0, "stretch: expected 0 or more"),
    ],
)
def test_views_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewSettings(**{field: value})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 6).samples


@pytest.fixture(scope="module")
def shares(samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> list[Share]:
    """Two pairs and four extra pictures a step."""
    folder = write_latents(tmp_path_factory.mktemp("latents") / "parts", samples)
    episodes = EpisodeSource(samples, EpisodeSettings(SIDE, (1.0, 0.0, 0.0)))
    extra = LatentSource(samples, Latents.open(folder), SIDE, ViewSettings())
    return [Share(episodes, 2), Share(extra, 4)]


Step = list[torch.Tensor]


def steps(
    shares: list[Share], count: int, first: int = 0, workers: int = 0, **more: int
) -> list[Step]:
    batches = Batches(StepStream(shares, 7, first, **more), workers)
    return [next(batches) for _ in range(count)]


def same(one: list[Step], other: list[Step]) -> bool:
    return all(
        torch.equal(a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def test_a_step_depends_on_its_number_alone(shares: list[Share]) -> None:
    whole = steps(shares, 5)
    assert [tuple(part.shape) for part in whole[0]] == [
        (2, 2, SIDE, SIDE, 3),
        (2, 2, SIDE, SIDE),
        (4, 1, SIDE, SIDE, 3),
        (4, 1, len(CLASSES), SIDE, SIDE),
    ]
    assert same(whole[3:], steps(shares, 2, first=3))
    assert same(whole, steps(shares, 5, workers=2))
    pictures = [picture for step in whole for picture in step[2]]
    assert not any(torch.equal(a, b) for a, b in pairwise(pictures))


def test_processes_share_a_step(shares: list[Share]) -> None:
    whole, parts = steps(shares, 3, 1), [steps(shares, 3, 1, rank=r, processes=2) for r in (0, 1)]
    for number, step in enumerate(whole):
        for place, part in enumerate(step):
            shared = torch.stack([parts[0][number][place], parts[1][number][place]], 1)
            assert torch.equal(shared.flatten(0, 1), part)


def test_pairs_are_the_same_with_and_without_extra_pictures(shares: list[Share]) -> None:
    alone = steps(shares[:1], 3)
    assert same([step[:2] for step in steps(shares, 3)], alone)


def test_extra_pictures_are_all_pictures(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    """Evenly: each of six is drawn about as often, with its own labels."""
    folder = write_latents(tmp_path / "parts", samples)
    still = replace(PLAIN, crop=(1.0, 1.0), stretch=0.0, flip=0.0)
    latents = Latents.open(folder)
    source = LatentSource(samples, latents, SIDE, still)
    expected = {nearest(latents.labels(s.key), SIDE).tobytes() for s in samples}
    drawn = [
        draw[0][1].tobytes() for draw in (source.draw(np.random.default_rng(n)) for n in range(60))
    ]
    assert set(drawn) == expected and len(expected) == 6
    assert max(drawn.count(one) for one in expected) < 20


def test_the_first_draws_are_not_those_of_the_pairs(shares: list[Share]) -> None:
    """Both sources count from 0; with one generator they would choose alike."""

    class Lots:
        def draw(self, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
            return [(rng.integers(0, 255, (1, 1, 3)), rng.integers(0, 255, (1, 1)))]

    stream = StepStream([Share(Lots(), 1), Share(Lots(), 1)], 3)
    pair, extra = islice(stream, 2)
    assert not torch.equal(pair[0], extra[0])  # type: ignore[index]
