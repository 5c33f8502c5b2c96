"""Fine-tuning: encoders are cut in two without a change, and the method does what methods must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fsseg_sdk import InputError
from fsseg_sdk.methods import NamedGraph
from fsseg_sdk.methods.base import PROPERTIES
from tests.methods import test_conformance as suite
from tests.methods.harness import CHANNELS, GRID, Case, draw_query, draw_shots
from tests.training.squares import draw_voc
from training.checkpoint import save_checkpoint
from training.encoders import build_encoder, encoder_record
from training.evaluation.models import of_checkpoint
from training.evaluation.predictor import How
from training.evaluation.protocols import PROTOCOLS
from training.finetune.method import TAIL, Finetune, TailGraph
from training.finetune.predictor import finetune_predictor
from training.finetune.split import split
from training.finetune.tuning import FinetuneSettings, tune


def tail() -> nn.Module:
    """Two layers that keep what they are given, nearly: features are told apart before tuning."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(CHANNELS, CHANNELS, k, padding=k // 2) for k in (3, 1))
    for conv in (first, second):
        nn.init.normal_(conv.weight, std=0.02)
        with torch.no_grad():
            middle = conv.kernel_size[0] // 2
            conv.weight[:, :, middle, middle] += torch.eye(CHANNELS)
    return nn.Sequential(first, second)


@dataclass(frozen=True)
class TunedCase(Case):
    @property
    def graphs(self) -> Mapping[str, NamedGraph]:
        return {TAIL: TailGraph(tail())}


FAST = FinetuneSettings(steps=12)
CASES = [TunedCase(Finetune(), FAST), TunedCase(Finetune(), replace(FAST, tail_rate=0.0, l2=1e-3))]
CHECKS = [
    name
    for name in dir(suite.TestEveryMethod)
    if name.startswith("test_") and name != "test_declarations"  # it is in no registry
]


@pytest.mark.parametrize("case", CASES, ids=["tail", "classifier"])
@pytest.mark.parametrize("name", CHECKS)
def test_what_every_method_must_do(case: Case, name: str) -> None:
    getattr(suite.TestEveryMethod(), name)(case)


@pytest.mark.parametrize("case", CASES, ids=["tail", "classifier"])
def test_what_it_declares(case: Case) -> None:
    assert case.method.properties <= set(PROPERTIES) and case.method.name == "finetune"
    suite.test_deterministic(case)
    suite.test_a_support_segments_itself(case)
    shots, _ = draw_shots([0, 1])
    state = case.summarise(shots)
    case.method.check(state, CHANNELS, GRID)
    with pytest.raises(InputError, match="tail_input"):
        case.method.check(state, CHANNELS + 1, GRID)


def test_the_tail_is_tuned_and_the_graphs_own_stays() -> None:
    case = CASES[0]
    graphs = case.graphs
    before = {k: v.clone() for k, v in graphs[TAIL].module.state_dict().items()}  # type: ignore[attr-defined]
    shots, _ = draw_shots([0, 1])
    state = case.method.summarise(shots, FAST, graphs)
    fitted: Any = case.method.fit(state, 2, FAST, graphs)
    after = graphs[TAIL].module.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(before[name], after[name]) for name in before)
    tuned = fitted.tuned.tail.state_dict()
    assert all(not torch.equal(before[name], tuned[name]) for name in before)
    kept: Any = CASES[1].method.fit(state, 2, CASES[1].settings, graphs)
    assert all(torch.equal(before[n], t) for n, t in kept.tuned.tail.state_dict().items())
    query, _ = draw_query(2)
    assert np.abs(fitted.match(query).logits - kept.match(query).logits).max() > 1e-3


def test_every_class_weighs_the_same_if_asked_to() -> None:
    """One cell against all others: the classifier of the one is learned all the same."""
    torch.manual_seed(1)
    picture = torch.randn(4, 5, 5)
    weights = torch.ones(1, 2, 5, 5)
    weights[0, 1] = 0
    weights[0, :, 2, 2] = torch.tensor([0.0, 1e-3])
    found = {}
    for balanced in (True, False):
        settings = FinetuneSettings(steps=40, balanced=balanced)
        logits = tune(nn.Identity(), [picture], weights, settings).logits(picture[None])[0]
        found[balanced] = float((logits[1] - logits[0])[2, 2])
    assert found[True] > 0 > found[False]


def test_nothing_to_tune_on() -> None:
    one, weights = torch.randn(4, 3, 3), torch.zeros(1, 2, 3, 3)
    for balanced in (True, False):
        settings = FinetuneSettings(steps=2, balanced=balanced)
        with pytest.raises(InputError, match="all weights are 0"):
            tune(nn.Identity(), [one], weights, settings)
        with pytest.raises(InputError, match="one picture of a single cell"):
            tune(nn.Identity(), [one[:, :1, :1]], torch.ones(1, 2, 1, 1), settings)
    two = tune(nn.Identity(), [one[:, :1, :1]] * 2, torch.ones(2, 2, 1, 1), FAST)
    assert bool(two.logits(one[None, :, :1, :1]).isfinite().all())
    shots, _ = draw_shots([0])
    state = CASES[0].summarise(shots)
    state.arrays["tail_weights"][:] = 0
    with pytest.raises(InputError, match="all weights are 0"):
        CASES[0].fit(state)


def test_without_a_module_there_is_nothing_to_tune() -> None:
    shots, _ = draw_shots([0])
    state = CASES[0].summarise(shots)
    with pytest.raises(InputError, match="finetune_tail"):
        Finetune().fit(state, 1, FAST, {TAIL: object()})  # type: ignore[dict-item]


# ---- cutting encoders ----


@pytest.mark.parametrize(
    ("name", "settings", "first"),
    [
        ("resnet18", {}, "block.conv1.weight"),
        ("resnet18", {"stem": "deep", "last_relu": True, "taps": ["layer2"]}, "block.conv1.weight"),
        ("vgg16", {"taps": ["conv2"]}, "0.weight"),
        ("vgg16_smcp", {"output_stride": 16}, "0.0.weight"),
        ("vit_tiny_keys", {"blocks": [0, 2]}, "block.norm1.weight"),
        (
            "vit_tiny_keys",
            {"blocks": [1], "registers": 2, "normalise": False},
            "block.norm1.weight",
        ),
    ],
)
def test_trunk_and_tail_are_the_encoder(name: str, settings: dict[str, Any], first: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, settings).eval()
    trunk, rest = split(encoder)
    image = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        expected = encoder(image)
        assert torch.equal(rest(trunk(image)), expected)
    assert next(iter(rest.state_dict())) == first
    assert (trunk.mean, trunk.std, trunk.multiple) == (encoder.mean, encoder.std, encoder.multiple)
    with torch.no_grad():  # the tail is a copy
        next(rest.parameters()).add_(1)
        assert torch.equal(encoder(image), expected)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mobilenet_v2", {}),
        ("vit_tiny_tokens", {"blocks": [1]}),
        ("resnet18", {"taps": ["layer1", "layer2"]}),
    ],
)
def test_other_encoders_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"method finetune: .*got {name}"):
        split(build_encoder(name, settings))


# ---- a checkpoint, from pictures to labels ----


def test_a_checkpoint_is_evaluated_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"blocks": [1]}
    encoder = build_encoder("vit_tiny_keys", settings)
    protocol = replace(PROTOCOLS["panet-417"], side=64)
    stored = {"name": "nearest", "settings": {"panet": {"scale": 9.0}}}
    facts = {"name": "mine", "encoder": "vit_tiny_keys"}
    how = How(changes={"steps": 3}, method="finetune")
    path = tmp_path / "run" / "checkpoint.safetensors"
    header = {"encoder": encoder_record("vit_tiny_keys", settings), "method": stored}
    tensors = {f"encoder.{name}": t for name, t in encoder.state_dict().items()}
    save_checkpoint(path, tensors, {**header, "settings": {}})
    predictor = of_checkpoint(path, protocol, how)
    assert predictor.facts["method"] == "finetune" and not predictor.takes_auxiliary
    assert predictor.facts["settings"]["steps"] == 3
    assert predictor.facts["settings"]["panet"]["scale"] == 9.0
    samples = draw_voc(tmp_path / "voc", 4).samples
    pixels, labels = samples[0].read()
    rows = predictor.summarise(pixels, [(labels == 1).astype(np.uint8)])
    found = predictor.segment(pixels, [rows], [labels.shape, (32, 40)])
    assert [one.shape for one in found] == [labels.shape, (32, 40)]
    assert predictor.timed(pixels, [rows]) > 0
    with pytest.raises(ValueError, match="inputs of one size"):
        finetune_predictor(encoder, stored, PROTOCOLS["mlc-native"], facts, how)
    with pytest.raises(ValueError, match="no_such"):
        finetune_predictor(encoder, stored, protocol, facts, How(changes={"no_such": 1}))
