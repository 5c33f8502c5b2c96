"""The head in three parts gives the logits of the definition, in double precision."""

from __future__ import annotations

import pytest
import torch

from training.smcp.head import Classifier, Head, HeadSettings
from training.smcp.split import HEAD, PROTOTYPE, QUERY, TapClassifier, split_head

GRIDS = [(1, 1), (2, 2), (1, 5), (7, 4), (26, 31)]


@pytest.mark.parametrize("grid", GRIDS)
def test_taps_are_the_classifier(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    classifier = Classifier(10, 2)
    for part in classifier.parts:
        torch.nn.init.normal_(part.bias)  # type: ignore[arg-type]
    taps = TapClassifier(classifier).double()
    x = torch.randn(2, 10, *grid, dtype=torch.float64)
    found, expected = taps(x), classifier.double()(x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("form", ["paper", "official"])
@torch.no_grad()
def test_parts_are_the_head(form: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = Head(6, HeadSettings(form, width=16)).eval()  # type: ignore[arg-type]
    parts = {name: module.double() for name, module in split_head(head, grid).items()}
    head = head.double()
    features = torch.randn(2, 6, *grid, dtype=torch.float64)
    prototypes = torch.randn(3, 6, dtype=torch.float64)
    shares, query = parts[PROTOTYPE](prototypes), parts[QUERY](features)
    for one in range(2):
        found = parts[HEAD](query[one : one + 1], shares)
        expected = head(features[one : one + 1].expand(3, -1, -1, -1), prototypes)
        assert (found - expected).abs().max() <= 1e-10 * max(1.0, float(expected.abs().max()))


def test_the_head_is_left_as_it_is() -> None:
    head = Head(4, HeadSettings(width=8))
    before = {key: tensor.clone() for key, tensor in head.state_dict().items()}
    parts = split_head(head, (5, 5))
    with torch.no_grad():
        for parameter in parts[HEAD].parameters():
            parameter.zero_()
    assert isinstance(head.classifier, Classifier)
    assert all(torch.equal(tensor, before[key]) for key, tensor in head.state_dict().items())
