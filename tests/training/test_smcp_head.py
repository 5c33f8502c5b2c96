"""SMCP's head: what it computes, and that the split computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.smcp.head import Classifier, Head, HeadSettings, border_masks, load_head

FORMS = [
    HeadSettings("paper", True, 32),
    HeadSettings("official", True, 32),
    HeadSettings("paper", False, 32),
]
SIZES = [(1, 1), (2, 2), (1, 5), (7, 6), (13, 17), (40, 41)]
CHANNELS = 12


def given(
    settings: HeadSettings, size: tuple[int, int], kind: torch.dtype, ways: int = 3
) -> tuple[Head, Tensor, Tensor]:
    torch.manual_seed(1)
    head = Head(CHANNELS, settings).to(kind)
    for parameter in head.parameters():  # biases at zero would hide where they belong
        torch.nn.init.normal_(parameter, std=0.15 if parameter.dim() > 1 else 0.5)
    return (
        head,
        torch.randn(1, CHANNELS, *size, dtype=kind),
        torch.randn(ways, CHANNELS, dtype=kind),
    )


@torch.no_grad()
def by_hand(head: Head, features: Tensor, prototype: Tensor) -> Tensor:
    """The definition once more, one picture ``[1, C, h, w]`` and prototype ``[C]`` at a time."""
    weights = head.state_dict()

    def conv(name: str, x: Tensor, padding: int = 1, dilation: int = 1) -> Tensor:
        own = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.conv2d(x, *own, padding=padding, dilation=dilation)

    tiled = prototype[None, :, None, None] * torch.ones_like(features[:, :1])
    x = conv("fuse", torch.cat([features, tiled], 1)).relu()
    if head.settings.pyramid:
        half = F.avg_pool2d(x, 3, 2, 1)
        levels = [x, half, F.avg_pool2d(half, 3, 2, 1)]
        seen = [conv(f"levels.{n}", level).relu() for n, level in enumerate(levels)]
        x = sum(F.interpolate(s, x.shape[-2:], mode="bilinear") for s in seen)
        if head.settings.form == "official":
            x = conv("deepen.1", conv("deepen.0", x).relu()).relu()
        for n in (0, 1):
            inner = conv(f"blocks.{n}.0", x, padding=0).relu()
            inner = conv(f"blocks.{n}.2", inner).relu()
            x = (x + conv(f"blocks.{n}.4", inner, padding=0)).relu()
    rates = enumerate((6, 12, 18, 24))
    return sum(conv(f"classifier.parts.{n}", x, rate, rate) for n, rate in rates)  # type: ignore[return-value]


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 6), (40, 41)])
def test_the_head_is_what_the_paper_says(settings: HeadSettings, size: tuple[int, int]) -> None:
    head, features, prototypes = given(settings, size, torch.float64)
    found = head(features.expand(3, -1, -1, -1), prototypes)
    assert found.shape == (3, 2, *size)
    for row, prototype in zip(found, prototypes, strict=True):
        torch.testing.assert_close(
            row[None], by_hand(head, features, prototype), rtol=1e-10, atol=0
        )


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "allowed"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@torch.no_grad()
def test_the_split_is_exact(
    settings: HeadSettings, size: tuple[int, int], kind: torch.dtype, allowed: float
) -> None:
    head, features, prototypes = given(settings, size, kind)
    whole = head(features.expand(3, -1, -1, -1), prototypes)
    query, shares = head.query_share(features), head.prototype_share(prototypes)
    assert query.shape == (1, 32, *size) and shares.shape == (3, 32, 9)
    found = head.from_shares(query, shares)
    scale = float(whole.abs().max())
    assert scale > 0.1
    assert float((found - whole).abs().max()) <= allowed * scale
    # a query for each row is the same
    again = head.from_shares(query.expand(3, -1, -1, -1), shares)
    assert float((again - found).abs().max()) <= allowed * scale


def test_the_split_has_the_same_gradient() -> None:
    head, features, prototypes = given(FORMS[0], (5, 4), torch.float64)
    head(features.expand(3, -1, -1, -1), prototypes).square().sum().backward()
    expected = [p.grad for p in head.parameters()]
    head.zero_grad()
    shares = head.prototype_share(prototypes)
    head.from_shares(head.query_share(features), shares).square().sum().backward()
    for own, other in zip(head.parameters(), expected, strict=True):
        torch.testing.assert_close(own.grad, other, rtol=1e-9, atol=1e-12)


def test_taps_outside_of_the_map_are_left_out() -> None:
    assert border_masks(1, 1)[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    masks = border_masks(3, 4).reshape(9, 3, 4)
    assert masks[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 1, 1]
    assert masks[:, 2, 1].tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert masks[:, 1, 2].tolist() == [1] * 9


def test_its_size_is_the_papers() -> None:
    with torch.device("meta"):
        counts = {
            (form, pyramid): sum(
                p.numel() for p in Head(512, HeadSettings(form, pyramid)).parameters()
            )
            for form, pyramid in (("paper", True), ("official", True), ("paper", False))
        }
    first = 9 * 1024 * 512 + 512
    classifier = 4 * (9 * 512 * 2 + 2)
    three = 9 * 512 * 512 + 512
    block = 512 * 64 + 64 + 9 * 64 * 64 + 64 + 64 * 512 + 512
    assert counts["paper", False] == first + classifier
    assert counts["paper", True] == first + 3 * three + 2 * block + classifier
    assert counts["official", True] == counts["paper", True] + 2 * three


def test_the_classifier_begins_small_and_the_rest_keeps_the_signal() -> None:
    torch.manual_seed(0)
    head = Head(32, HeadSettings(width=64))
    for part in head.classifier.parts:
        assert float(part.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert float(head.levels[0].weight.detach().std()) == pytest.approx(
        (2 / (9 * 64)) ** 0.5, rel=0.1
    )
    assert Classifier(8, 5)(torch.zeros(2, 8, 3, 3)).shape == (2, 5, 3, 3)


# ---- from files ----


@pytest.mark.parametrize("form", FORMS)
def test_a_head_is_read_by_its_tensors(form: HeadSettings) -> None:
    head, features, prototypes = given(form, (4, 4), torch.float32)
    tensors = {f"head.{k}": v for k, v in head.state_dict().items()} | {"encoder.x": torch.ones(1)}
    again = load_head(tensors)
    assert again.settings == form
    assert torch.equal(again(features, prototypes[:1]), head(features, prototypes[:1]))


def test_what_is_no_head_is_refused() -> None:
    tensors = {
        f"head.{k}": v for k, v in given(FORMS[1], (4, 4), torch.float32)[0].state_dict().items()
    }
    del tensors["head.levels.1.bias"]
    with pytest.raises(ValueError, match=r"head\.levels\.1\.bias: expected .*got no such tensor"):
        load_head(tensors)
    tensors = {"head.extra": torch.ones(1), **tensors, "head.levels.1.bias": torch.ones(32)}
    with pytest.raises(ValueError, match=r"head\.extra: expected no such tensor, got"):
        load_head(tensors)
    with pytest.raises(ValueError, match="got 0 of a head"):
        load_head({"encoder.x": torch.ones(1)})


@pytest.mark.parametrize("width", [0, 4, 12])
def test_widths_that_blocks_cannot_narrow_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="width: expected a multiple of 8"):
        HeadSettings(width=width)
