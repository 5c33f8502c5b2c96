"""Encoders: shapes, published sizes, and that they start where the pretrained weights stand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.encoders import ENCODERS, build_encoder, load_backbone
from training.encoders.detail import ViTDetail
from training.encoders.vit import ViTKeys, ViTSettings

SMALL = ViTSettings(width=48, depth=4, heads=3, grid=4, blocks=(1, 3))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_channels_and_stride_are_what_the_encoder_says(name: str) -> None:
    encoder = build_encoder(name).eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, 96, 128))
    assert features.shape == (1, encoder.channels, 96 // encoder.stride, 128 // encoder.stride)
    assert torch.isfinite(features).all()


def test_unknown_encoder_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"vit_tiny_keys.*got 'resnet5'"):
        build_encoder("resnet5")


def test_resnet50_has_the_published_size() -> None:
    encoder = build_encoder("resnet50")
    assert sum(p.numel() for p in encoder.parameters()) == 8_543_296  # 8.543 M with the 7x7 stem
    with torch.no_grad():
        assert encoder.eval()(torch.zeros(1, 3, 473, 473)).shape == (1, 1024, 60, 60)


def test_resnet_batch_norm_stays_frozen_in_training() -> None:
    encoder = build_encoder("resnet50").train()
    before = encoder.bn1.running_mean.clone()
    encoder(torch.randn(2, 3, 64, 64) + 3)
    assert torch.equal(encoder.bn1.running_mean, before)


def test_resnet_features_are_signed() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        features = build_encoder("resnet50").eval()(torch.randn(1, 3, 64, 64))
    assert (features < 0).any()  # the last ReLU is left out


def test_keys_are_normalised_per_block() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        features = ViTKeys(SMALL).eval()(torch.randn(1, 3, 64, 96))
    assert features.shape == (1, 96, 4, 6)
    for part in features.split(48, dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(1, 4, 6))


def test_position_embeddings_at_the_trained_grid_are_untouched() -> None:
    vit = ViTKeys(SMALL)
    assert vit.position(4, 4) is vit.pos_embed
    assert vit.position(7, 5).shape == (1, 36, 48)


def test_detail_starts_at_the_raw_keys() -> None:
    torch.manual_seed(0)
    encoder = ViTDetail(SMALL, channels=96, width=16).eval()
    images = torch.randn(3, 3, 64, 64)
    encoder.start_from_keys(images, whiten=0, centre=0)
    with torch.no_grad():
        keys, features = encoder.vit(images), encoder(images)
    # all directions are kept, so projecting is a rotation, and a rotation keeps every inner product
    expected = F.interpolate(keys, scale_factor=2.0, mode="bilinear", align_corners=False).flatten(
        2
    )
    got = features.flatten(2)
    torch.testing.assert_close(got.mT @ got, expected.mT @ expected, rtol=1e-4, atol=1e-4)


def test_weights_that_lack_tensors_are_refused() -> None:
    vit = ViTKeys(SMALL)
    state = dict(vit.state_dict())
    state.pop("pos_embed")
    with pytest.raises(ValueError, match="pos_embed"):
        load_backbone(vit, state)


def test_weights_with_more_tensors_load() -> None:
    vit, other = ViTKeys(SMALL), ViTKeys(SMALL)
    load_backbone(other, {**vit.state_dict(), "head.weight": torch.zeros(2, 2)})
    assert torch.equal(other.pos_embed, vit.pos_embed)
