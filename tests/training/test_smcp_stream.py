"""Labels of classes beside the ways of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.squares import draw_parts, draw_voc
from training.augment import AugmentSettings
from training.datasets import IGNORE, Sample
from training.episodes import EpisodeSettings, EpisodeSource
from training.run import open_samples
from training.settings import DataSettings
from training.smcp.learner import base_classes

STILL = AugmentSettings(crop=(1.0, 1.0), stretch=0.0, angle=0.0, colour=0.0, grey=0.0, blur=0.0)
ONE_CLASS = EpisodeSettings(side=64, kinds=(1.0, 0.0, 0.0), several=0.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 8).samples


def draws(source: EpisodeSource, count: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    return [view for n in range(count) for view in source.draw(np.random.default_rng(n))]


def test_views_are_those_of_an_episode_without_classes(samples: Sequence[Sample]) -> None:
    """The same crops and colours, so that a run with the classes differs in its loss alone."""
    plain = draws(EpisodeSource(samples, ONE_CLASS))
    for (pixels, mask), (same, masks) in zip(
        plain, draws(EpisodeSource(samples, ONE_CLASS, classes=(1, 2, 3))), strict=True
    ):
        assert (pixels == same).all() and (masks[0] == mask).all()
        assert (masks.shape, masks.dtype) == ((2, 64, 64), np.uint8)


def test_labels_move_with_the_view(samples: Sequence[Sample]) -> None:
    for settings in (ONE_CLASS, replace(ONE_CLASS, augment=AugmentSettings(angle=40.0))):
        seen = set()
        for _, (ways, labels) in draws(EpisodeSource(samples, settings, classes=(1, 2, 3))):
            mine = set(np.unique(labels[ways == 1]))
            assert len(mine) == 1 and mine <= {1, 2, 3}
            assert not np.isin(labels[ways == 0], list(mine)).any()
            assert ((labels == IGNORE) == (ways == IGNORE)).all()
            seen |= set(np.unique(labels)) - {IGNORE}
        assert seen == {0, 1, 2, 3}


def test_classes_are_numbered_by_their_place_and_others_are_unknown(
    samples: Sequence[Sample],
) -> None:
    settings = replace(ONE_CLASS, augment=STILL)
    every = draws(EpisodeSource(samples, settings, classes=(1, 2, 3)))
    some = draws(EpisodeSource(samples, settings, classes=(1, 3)))
    for (_, (_, all_labels)), (_, (_, labels)) in zip(every, some, strict=True):
        expected = np.array([0, 1, IGNORE, 2] + [IGNORE] * 252)[all_labels]
        assert (labels == expected).all()


def test_regions_and_scenes_have_no_classes(samples: Sequence[Sample]) -> None:
    for kinds in ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        settings = replace(ONE_CLASS, kinds=kinds)
        for _, (ways, labels) in draws(EpisodeSource(samples, settings, classes=(1, 2)), 2):
            assert (ways == 1).any() and (labels == IGNORE).all()


def test_auxiliary_pictures_have_none_either(samples: Sequence[Sample]) -> None:
    for _, masks in EpisodeSource(samples, ONE_CLASS, 2, (1, 2)).draw(np.random.default_rng(0))[2:]:
        assert masks.shape == (2, 64, 64) and (masks[1] == IGNORE).all()


@pytest.mark.parametrize("novel", ["drop", "background", "ignore"])
def test_novel_pixels_are_never_a_class_and_never_background(tmp_path: Path, novel: str) -> None:
    """Of fold 0, classes 6 to 8 of VOC's are base, 1 to 3 are novel; one picture shows both."""
    folder = tmp_path / "voc"
    draw_voc(folder)
    first = folder / "masks" / "01.png"
    labels = np.array(Image.open(first))
    labels[20:40, :10] = 2
    Image.fromarray(labels).save(first)
    index = folder / "index.jsonl"
    lines = index.read_text().splitlines()
    lines[1] = lines[1].replace(
        '"classes": [', '"classes": [{"id": 2, "name": "2", "frac": 0.05}, '
    )
    index.write_text("\n".join(lines) + "\n")
    data = DataSettings(("voc",), "pascal-5i", 0, novel)  # type: ignore[arg-type]
    pictures, _ = open_samples(data, tmp_path)
    assert base_classes(pictures) == (6, 7, 8)
    both = [sample for sample in pictures if sample.image.stem == "01"]
    assert len(both) == (novel != "drop")
    for sample in both:
        _, shown = sample.read()
        known = sample.known_labels(shown)
        hidden = labels == 2
        assert hidden.any() and (known[hidden] == IGNORE).all()
        assert (known[~hidden] == shown[~hidden]).all()
        assert (shown[hidden] == (0 if novel == "background" else IGNORE)).all()
        settings = replace(ONE_CLASS, augment=STILL)
        pair = [sample, next(s for s in pictures if s.image.stem == "05")]
        hidden_from_classes_alone = 0
        for _, (ways, found) in draws(EpisodeSource(pair, settings, classes=(6, 7, 8)), 4):
            assert set(np.unique(found)) <= {0, 1, 2, 3, IGNORE}
            hidden_from_classes_alone += int(((found == IGNORE) & (ways == 0)).sum())
        assert (hidden_from_classes_alone > 0) == (novel == "background")


def test_base_classes_are_of_one_set(samples: Sequence[Sample]) -> None:
    assert base_classes(samples) == (1, 2, 3)
    assert base_classes(()) == ()
    other = replace(samples[0], dataset="other")
    with pytest.raises(ValueError, match=r"ids 1 to 3 of other, parts\. Name one set"):
        base_classes([*samples, other])
    with pytest.raises(ValueError, match="ids 1 to 300 of parts"):
        base_classes([*samples, replace(samples[0], classes={300: 0.1})])
    with pytest.raises(ValueError, match="got none"):
        base_classes([replace(samples[0], classes={}), replace(other, classes={})])
