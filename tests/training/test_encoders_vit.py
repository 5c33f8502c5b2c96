"""ViTs: keys and tokens by hand, positions, and the names of timm, DINO and DINOv2."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import pretrained
from training.encoders import build_encoder, load_backbone

TINY = {"width": 48, "depth": 4, "heads": 3, "grid": 4, "patch": 8}


def loaded(state: dict[str, Tensor], name: str = "vit_tiny_keys", **settings: Any) -> Any:
    encoder = build_encoder(name, {**TINY, "blocks": [1, 3], **settings})
    load_backbone(encoder, state)
    return encoder.eval()


def state_dict(style: str = "timm", **shape: int) -> dict[str, Tensor]:
    state = pretrained.vit(**{"width": 48, "depth": 4, "patch": 8, "grid": 4, **shape}, style=style)
    return pretrained.filled(state)


def written_out(state: dict[str, Tensor], image: Tensor, heads: int = 3) -> dict[str, list[Tensor]]:
    """Keys and tokens ``[B, N, C]`` after each block, from the attention's formula."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], 1)
    x = x + state["pos_embed"]
    if "register_tokens" in state:
        registers = state["register_tokens"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
    found: dict[str, list[Tensor]] = {"keys": [], "tokens": [], "normed": []}
    for block in range(4):
        name = f"blocks.{block}"
        whole = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        found["keys"].append(whole[..., 48:96])
        heads_of = whole.reshape(len(x), -1, 3, heads, 48 // heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads_of
        attention = (query @ key.mT / (48 / heads) ** 0.5).softmax(-1)
        mixed = (attention @ value).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{name}.attn.proj") * state.get(f"{name}.ls1.gamma", 1.0)
        hidden = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x = x + linear(hidden, f"{name}.mlp.fc2") * state.get(f"{name}.ls2.gamma", 1.0)
        found["tokens"].append(x)
        found["normed"].append(norm(x, "norm"))
    return found


def on_grid(tokens: Tensor, first: int = 1) -> Tensor:
    return tokens[:, first:].mT.reshape(len(tokens), -1, 4, 4)


@pytest.mark.parametrize("what", ["keys", "tokens", "normed"])
@pytest.mark.parametrize("style", ["timm", "dinov2", "dinov2 registers"])
def test_features_are_those_of_the_formula(what: str, style: str) -> None:
    state = state_dict(style)
    form = {"layer_scale": style != "timm", "registers": 4 if "registers" in style else 0}
    features = "keys" if what == "keys" else "tokens"
    encoder = loaded(state, features=features, final_norm=what == "normed", normalise=False, **form)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        got = encoder(image)
    found = written_out(state, image)[what]
    expected = torch.cat([on_grid(found[b], 1 + form["registers"]) for b in (1, 3)], 1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_features_are_normalised_per_block() -> None:
    state = state_dict()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = loaded(state)(image)
        raw = loaded(state, normalise=False)(image)
    assert features.shape == (1, 96, 8, 12)
    for part, unscaled in zip(features.split(48, 1), raw.split(48, 1), strict=True):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(1, 8, 12))
        torch.testing.assert_close(part, F.normalize(unscaled, dim=1))


def test_nothing_is_computed_that_nothing_uses() -> None:
    keys = build_encoder("vit_tiny_keys", {**TINY, "blocks": [2]})
    assert {k for k in keys.state_dict() if k.startswith("blocks.2")} == {
        f"blocks.2.{layer}.{part}" for layer in ("norm1", "attn.qkv") for part in ("weight", "bias")
    }
    assert not any(k.startswith(("blocks.3", "norm.")) for k in keys.state_dict())


def test_position_embeddings_at_the_trained_grid_are_untouched() -> None:
    vit = loaded(state_dict())
    assert vit.position(4, 4) is vit.pos_embed
    assert vit.position(7, 5).shape == (1, 36, 48)
    assert torch.equal(vit.position(7, 5)[:, 0], vit.pos_embed[:, 0])


def test_position_embeddings_are_resampled_smoothly() -> None:
    """A ramp over the columns stays one."""
    vit = loaded(state_dict())
    ramp = torch.linspace(0, 3, 4).repeat(4)[:, None].expand(16, 48)
    with torch.no_grad():
        vit.pos_embed[0, 1:] = ramp
        wide = vit.position(4, 8)[0, 1:].reshape(4, 8, 48)
    inner = wide[:, 2:6, 0]
    torch.testing.assert_close(
        inner, (torch.arange(2, 6) / 2 - 0.25).expand(4, 4), atol=0.1, rtol=0
    )
    assert torch.equal(wide[0], wide[3])


@pytest.mark.parametrize("side", [(30, 32), (32, 33)])
def test_a_picture_that_patches_do_not_fill_is_refused(side: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 8, got \(3\d, 3\d\)"):
        loaded(state_dict())(torch.zeros(1, 3, *side))


def test_positions_of_another_grid_are_resampled_on_loading() -> None:
    larger = loaded(state_dict(grid=6), grid=6)
    smaller = loaded(state_dict(grid=6))
    assert smaller.pos_embed.shape == (1, 17, 48)
    torch.testing.assert_close(smaller.pos_embed, larger.position(4, 4))


def test_timm_and_dinov2_registers_are_one_model() -> None:
    """timm takes the class token's position into the token, and drops it from the positions."""
    theirs = state_dict("dinov2 registers")
    timm = {k: v for k, v in theirs.items() if k not in ("register_tokens", "mask_token")}
    timm["reg_token"] = theirs["register_tokens"]
    timm["cls_token"] = theirs["cls_token"] + theirs["pos_embed"][:, :1]
    timm["pos_embed"] = theirs["pos_embed"][:, 1:]
    assert set(timm) == set(pretrained.vit(48, 4, 8, 4, "timm registers"))
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        one, other = (
            loaded(state, "dinov2_small_tokens", registers=4)(image) for state in (theirs, timm)
        )
    torch.testing.assert_close(one, other)


def test_blocks_in_chunks_load() -> None:
    state = state_dict("dinov2")
    form = {"name": "dinov2_small_tokens", "blocks": [3]}
    chunked = {
        k.replace("blocks.", f"blocks.{int(k.split('.')[1]) // 2}.") if "blocks" in k else k: v
        for k, v in state.items()
    }
    assert "blocks.1.3.norm1.weight" in chunked
    one, other = (loaded(s, **form).state_dict() for s in (state, chunked))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("vit_small_keys", pretrained.vit(384)),
        ("vit_base_tokens", pretrained.vit(768)),
        ("dino_small_keys", pretrained.vit(384, style="dino")),
        ("dino_base_keys", pretrained.vit(768, style="dino")),
        ("dinov2_small_tokens", pretrained.vit(384, patch=14, grid=37, style="dinov2")),
        ("dinov2_base_tokens", pretrained.vit(768, patch=14, grid=37, style="dinov2")),
    ],
)
def test_public_files_fit(name: str, state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
        load_backbone(encoder, state)
    assert encoder.mean == ((0.5, 0.5, 0.5) if name.startswith("vit") else (0.485, 0.456, 0.406))


def test_detail_starts_at_the_raw_keys() -> None:
    torch.manual_seed(0)
    vit = {"width": 48, "depth": 4, "heads": 3, "grid": 4, "blocks": [1, 3]}
    encoder = build_encoder("vit_tiny_detail", {"vit": vit, "channels": 96, "width": 16}).eval()
    images = torch.randn(3, 3, 64, 64)
    encoder.start_from_keys(images, whiten=0, centre=0)
    with torch.no_grad():
        keys, got = encoder.vit(images), encoder(images).flatten(2)
    # all directions are kept, so projecting is a rotation, and a rotation keeps every inner product
    larger = F.interpolate(keys, scale_factor=2.0, mode="bilinear", align_corners=False)
    expected = larger.flatten(2)
    torch.testing.assert_close(got.mT @ got, expected.mT @ expected, rtol=1e-4, atol=1e-4)
