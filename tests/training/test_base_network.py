"""The base network and the Siamese one, and the nearest cell that both are watched by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsseg_sdk import methods
from fsseg_sdk.methods.rows import labelled_rows
from fsseg_sdk.methods.settings import settings_from_json
from fsseg_sdk.methods.state import State
from tests.training.runs import SMALL, changed, check_resuming
from tests.training.squares import draw_parts, draw_voc
from tests.training.test_oslsm import ONE_CLASS, Colours
from training.base import Base, BaseSettings
from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint
from training.datasets import IGNORE, Sample
from training.datasets.folds import BaseOnly, fold_of
from training.encoders import build_encoder
from training.learner import Example, Learner
from training.methods import METHODS
from training.nearest import cell_labels, nearest_logits
from training.prototypes import grid_weights
from training.run import some_images
from training.siamese import Siamese, SiameseSettings, load_embedding
from training.trainer import Trainer

RUN = changed(
    replace(SMALL, episodes=ONE_CLASS),
    optimizer={"clip": 0.0},
    trainer={"iterations": 4, "watch": 2},
)
OWN: dict[str, Any] = {"base": BaseSettings(), "siamese": SiameseSettings(dimensions=8)}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return draw_parts(tmp_path_factory.mktemp("parts") / "parts", 8).samples


def make(
    method: str, folder: Path, samples: Sequence[Sample], settings: Any = RUN, **own: Any
) -> Trainer:
    torch.manual_seed(0)
    settings = replace(settings, method=method, own=replace(OWN[method], **own))
    encoder = build_encoder("mobilenet_v2")
    setup = METHODS[method].setup(encoder, settings, samples, None)
    setup.learner.start(None, lambda: some_images(encoder, samples, settings.episodes, 0, count=4))
    return Trainer(folder, setup.learner, settings, samples, samples, setup.provenance)


def batch(trainer: Trainer) -> list[Tensor]:
    return next(Batches(StepStream(trainer.shares, 0), 0))


@pytest.fixture(scope="module")
def trainer(samples: Sequence[Sample], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """For tests that only look at its batches of one class."""
    return make("siamese", tmp_path_factory.mktemp("trainer"), samples)


@pytest.mark.parametrize("method", ["base", "siamese"])
def test_a_run_that_was_cut_off_has_the_bits_of_an_unbroken_one(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def made(name: str) -> Trainer:
        return make(method, tmp_path / ("cut" if name == "again" else name), samples)

    whole = check_resuming(made, tmp_path, monkeypatch)
    tensors, header = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert header["method"]["settings"] == {"panet": {}}
    known = methods.get(header["method"]["name"])
    settings_from_json(known.settings_type, header["method"]["settings"], "settings")
    own = sorted(name for name in tensors if not name.startswith("encoder."))
    if method == "siamese":
        assert header["method"]["name"] == "siamese" and own == ["embedding.weight"]
        features = torch.randn(2, 96, 3, 3)
        trained: Any = whole.average
        twin = load_embedding(tmp_path / "whole" / "checkpoint.safetensors")
        assert torch.equal(twin(features), trained.embedding(features)) and not twin.training
    else:
        assert header["method"]["name"] == "nearest" and header["classes"] == [1, 2, 3]
        assert "classifier.1.weight" in own and "classifier.0.running_var" in own
        with pytest.raises(ValueError, match="expected a checkpoint of method siamese"):
            load_embedding(tmp_path / "whole" / "checkpoint.safetensors")


# ---- the base network ----


def test_base_classes_are_told_apart_pixel_by_pixel(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    trainer = make("base", tmp_path, samples)
    learner = Base(Colours(), BaseSettings(), (1, 2, 3)).eval()
    pixels, masks = batch(trainer)
    assert masks.shape == (2, 2, 2, 64, 64)
    sums, count = torch.tensor(0.0), 0
    for b in range(2):
        for n in range(2):
            logits = learner.classifier(learner.features(pixels[b, n][None]))
            large = F.interpolate(logits, (64, 64), mode="bilinear")[0]
            label = masks[b, n, 1].long()
            known = label != IGNORE
            chosen = large.log_softmax(0).gather(0, label.clamp_max(3)[None])[0]
            sums, count = sums - chosen[known].sum(), count + int(known.sum())
    assert {0, 1, 2, 3} <= set(masks[:, :, 1].unique().tolist())
    loss = learner(pixels, masks).detach()
    assert float(loss) == pytest.approx(float(sums.detach() / count), rel=1e-4)


def test_squares_are_learned(samples: Sequence[Sample], tmp_path: Path) -> None:
    torch.manual_seed(0)
    stream = Batches(StepStream(make("base", tmp_path, samples).shares, 0), 0)
    learner = Base(Colours(), BaseSettings(), (1, 2, 3))
    optimizer, losses = torch.optim.Adam(learner.parameters(), 0.05), []
    for _ in range(30):
        loss = learner(*next(stream))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_in_a_fold_the_base_classes_alone(tmp_path: Path) -> None:
    found, fold = draw_voc(tmp_path / "voc").samples, fold_of("pascal-5i", 1)
    pool = [BaseOnly.of(sample, fold, 0) for sample in fold.training_pool(found)]
    learner = make("base", tmp_path / "run", pool).learner
    assert learner.classes == (1, 2, 3)  # 6 to 8 are novel
    assert learner.get_submodule("classifier.1").out_channels == 4


@pytest.mark.parametrize(
    ("method", "parts", "own", "message"),
    [
        ("base", {"episodes": {"kinds": (1.0, 0.0, 1.0)}}, {}, "episodes.kinds: expected"),
        ("siamese", {"episodes": {"several": 0.5}}, {}, "several: expected episodes of one"),
        ("siamese", {}, {"dimensions": 97}, "siamese.dimensions: expected 96 at most"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    samples: Sequence[Sample],
    tmp_path: Path,
    method: str,
    parts: dict[str, Any],
    own: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        make(method, tmp_path, samples, changed(RUN, **parts), **own)
    for wrong in ({"dimensions": 0}, {"background_pairs": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SiameseSettings(**wrong)
    with pytest.raises(ValueError, match="dropout"):
        BaseSettings(dropout=1.0)


def test_classes_of_two_sets_are_refused(samples: Sequence[Sample], tmp_path: Path) -> None:
    others = [replace(sample, dataset="others") for sample in samples]
    for some in ([*samples, *others], [replace(s, classes={}) for s in samples]):
        with pytest.raises(ValueError, match=r"data\.sets: expected classes of one data set"):
            make("base", tmp_path, some)


# ---- the Siamese network ----


def test_pairs_of_cells_are_judged(trainer: Trainer) -> None:
    pixels, masks = batch(trainer)
    weight = 0.25
    own = SiameseSettings(dimensions=2, background_pairs=weight)
    learner = Siamese(Colours(), own)
    expected = []
    for b in range(2):
        cells, kinds = [], []
        for n in range(2):
            embedded = learner.embedding(learner.features(pixels[b, n][None]))[0].flatten(1).T
            regions = torch.stack([masks[b, n] == 0, masks[b, n] == 1])[None].float()
            kinds.append(cell_labels(regions, (8, 8))[0].flatten())
            cells.append(embedded)
        sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
        for i in range(64):
            for j in range(64):
                if min(kinds[0][i], kinds[1][j]) < 0:
                    continue
                cosine = F.cosine_similarity(cells[0][i], cells[1][j], dim=0)
                same = bool(kinds[0][i] == kinds[1][j])
                probability = torch.sigmoid(10 * (cosine - 0.5))
                own_weight = weight if same and kinds[0][i] == 0 else 1.0
                part = -(probability if same else 1 - probability).log()
                sums[same][0] += own_weight * float(part.detach())
                sums[same][1] += own_weight
        expected += [total / most for total, most in sums.values()]
    with torch.no_grad():
        learner.verdict.log_scale.fill_(np.log(10.0))
        assert float(learner(pixels, masks)) == pytest.approx(np.mean(expected), rel=1e-3)


def test_the_embedding_begins_with_the_cosines_of_features(
    samples: Sequence[Sample], trainer: Trainer, tmp_path: Path
) -> None:
    learner: Any = make("siamese", tmp_path, samples, dimensions=48).learner.eval()
    pixels, _ = batch(trainer)
    with torch.no_grad():
        features = learner.features(pixels[0, :1])
        found = F.normalize(learner.embedding(features).flatten(2), dim=1)[0]
        expected = F.normalize(features.flatten(2), dim=1)[0]
    assert (found.T @ found - expected.T @ expected).abs().max() < 0.05


# ---- the nearest cell ----


def test_cells_are_labelled_as_in_the_runtime() -> None:
    generator = torch.Generator().manual_seed(0)
    for case in range(12):
        shown = torch.zeros(36, 30, dtype=torch.bool)
        size = (1, 3, 9, 30)[case % 4]
        top, left = (
            int(torch.randint(0, 37 - size if size < 30 else 1, (), generator=generator)),
            0,
        )
        shown[top : top + size, left : left + size] = True
        unknown = torch.zeros_like(shown)
        unknown[:12] = case % 3 == 0
        masks = torch.stack([~shown & ~unknown, shown & ~unknown]).float()[None]
        if not masks[0, 1].any():
            continue
        weights = grid_weights(masks, (6, 5))[0].clamp_min(0)
        cells = torch.randn(1, 4, 30, generator=generator)
        flat = weights.flip(0).flatten(1)[None]  # foreground first
        state = State(np.zeros(1, np.int64), {"cells": cells.numpy(), "cell_weights": flat.numpy()})
        rows, group = labelled_rows(state, 1).grouped()
        labels = cell_labels(masks, (6, 5))[0].flatten()
        for value in (0, 1):
            expected = cells[0].T[labels == value]
            assert np.array_equal(rows[group == value], expected.numpy())


def test_the_watched_answer_is_the_nearest_cell(samples: Sequence[Sample]) -> None:
    torch.manual_seed(2)
    asked, features = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 8, 8)
    masks = torch.zeros(1, 2, 64, 64)
    masks[0, 1, 8:24, 8:24], masks[0, 0, 32:] = 1, 1
    found = nearest_logits(asked, features, masks)
    labels = cell_labels(masks, (8, 8))[0]
    for row in range(4):
        for column in range(4):
            for value in (0, 1):
                cosines = F.cosine_similarity(
                    asked[0, :, row, column, None], features[0][:, labels == value], dim=0
                )
                assert float(found[0, value, row, column]) == pytest.approx(
                    20 * float(cosines.max()), abs=1e-4
                )
    example = Example(features, torch.zeros(1, 64, 64, 3, dtype=torch.uint8), masks)
    learner: Learner = Base(Colours(), BaseSettings(), (1,))
    assert torch.equal(learner.respond(asked, example), found)
    nothing = nearest_logits(asked, features, torch.zeros_like(masks))
    assert bool((nothing == -20).all())
