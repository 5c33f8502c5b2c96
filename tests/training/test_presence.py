"""Fitting the absent-class score: a rule that is there is found, every data set has one voice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fsseg_sdk import Segmenter
from fsseg_sdk.errors import InputError
from fsseg_sdk.methods import get
from fsseg_sdk.methods.presence import DESCRIPTORS, PresenceModel
from fsseg_sdk.methods.settings import settings_from_json
from tests.training import test_base_network, test_oslsm
from tests.training.squares import draw_parts
from training import presence
from training.checkpoint import load_checkpoint, save_checkpoint
from training.presence import calibrate, fit_presence

NAMES = ("top_margin", "won_fraction")
COLUMN = list(DESCRIPTORS).index("top_margin")


def described(count: int, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal((count, len(DESCRIPTORS)))
    return noise.astype(np.float32)


def test_a_separable_rule_is_recovered() -> None:
    rows = described(400) * 0.05
    present = rows[:, COLUMN] > 0.02
    fit = fit_presence(rows, present, ["a"] * 400, NAMES, ridge=1e-4)
    assert ((fit.scores > 0.5) == present).mean() > 0.97
    weights = dict(zip(fit.settings["names"], fit.settings["weights"], strict=True))
    assert weights["top_margin"] > 10 * abs(weights["won_fraction"])


def test_the_settings_give_the_scores_in_the_runtime() -> None:
    rows = described(300) * 0.05 + 3
    present = np.random.default_rng(1).random(300) < 1 / (1 + np.exp(-30 * (rows[:, COLUMN] - 3)))
    fit = fit_presence(rows, present, ["a"] * 300, NAMES)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in fit.settings.items()}
    np.testing.assert_allclose(PresenceModel(**settings).score(rows), fit.scores, atol=2e-4)


def test_what_tells_nothing_scores_one_half() -> None:
    rows = described(2000)
    present = np.arange(2000) % 4 == 0  # a quarter: present and absent count alike
    scores = fit_presence(rows, present, ["a"] * 2000, NAMES).scores
    assert abs(float(scores.mean()) - 0.5) < 0.02
    assert float(scores.std()) < 0.1


def test_sets_count_alike_whatever_their_size() -> None:
    """Two sets that contradict each other cancel, though one has ten times the episodes."""
    small, large = described(100), np.tile(described(100), (10, 1))
    rule = small[:, COLUMN] > 0
    rows = np.concatenate([small, large])
    present = np.concatenate([rule, np.tile(~rule, 10)])
    fit = fit_presence(rows, present, ["small"] * 100 + ["large"] * 1000, NAMES)
    np.testing.assert_allclose(fit.scores, 0.5, atol=1e-6)
    mixed = fit_presence(rows, present, ["one"] * 1100, NAMES)
    assert float(np.abs(mixed.scores - 0.5).max()) > 0.3


@pytest.mark.parametrize("method", ["oslsm", "base", "siamese"])
def test_checkpoints_that_came_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What is stored is what the runtime takes, and takes as a calibration."""
    samples = draw_parts(tmp_path / "parts", 8).samples
    if method == "oslsm":
        test_oslsm.make(tmp_path, samples).save()
    else:
        test_base_network.make(method, tmp_path, samples).save()
    file = tmp_path / "checkpoint.safetensors"
    tensors, header = load_checkpoint(file)
    name = header["method"]["name"]
    header["method"]["settings"] = {}  # as checkpoints were that know no panet
    save_checkpoint(file, tensors, header)
    before = file.read_bytes()

    used: list[Segmenter] = []
    plain = presence.evaluate

    def spied(segmenter: Segmenter, *rest: Any) -> Any:
        used.append(segmenter)
        return plain(segmenter, *rest)

    monkeypatch.setattr(presence, "evaluate", spied)
    monkeypatch.setattr(presence, "THRESHOLD", 2.0)  # refused, and nothing is written
    with pytest.raises(InputError, match="threshold"):
        calibrate(file, samples, 64, 3, True)
    assert file.read_bytes() == before
    monkeypatch.setattr(presence, "THRESHOLD", 0.25)
    assert "AUROC" in calibrate(file, samples, 64, 3, True)
    stored = load_checkpoint(file)[1]["method"]
    assert stored["name"] == name
    settings: Any = settings_from_json(get(name).settings_type, stored["settings"], "settings")
    assert used[-1].method == {"oslsm": "oslsm", "base": "nearest", "siamese": "panet"}[method]
    if method == "oslsm":
        assert settings.presence.threshold == 0.25
        assert settings.presence.names == presence.CHOSEN_OF_LOGITS
    else:
        assert settings.panet.presence.threshold == 0.25
        assert (settings.panet.background_parts, settings.panet.refine_weak) == (3, True)
