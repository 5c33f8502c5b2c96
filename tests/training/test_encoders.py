"""All encoders: what they say of themselves is true, and a name with settings says it all."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.data import weights_root
from training.encoders import (
    ENCODERS,
    build_encoder,
    encoder_record,
    encoder_settings,
    load_backbone,
    read_weights,
)
from training.encoders.__main__ import main
from training.encoders.table import VARIANTS, measure, nearest_side

FORMS: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in ENCODERS), *VARIANTS]
TINY_VIT = {"width": 48, "depth": 4, "heads": 3, "grid": 4, "blocks": [1, 3]}
CHEAP: list[tuple[str, dict[str, Any]]] = [
    ("resnet18", {}),
    ("resnet18", {"taps": ["layer1", "layer3", "layer4"], "output_stride": 16, "stem": "deep"}),
    ("mobilenet_v2", {}),
    ("mobilenet_v2", {"taps": ["features.3", "features.17"], "batch_norm": "trained"}),
    ("vgg16", {"taps": ["conv2", "conv4"]}),
    ("vgg16", {"taps": ["conv1"], "pool": 2}),
    ("vit_tiny_keys", TINY_VIT),
    ("dinov2_small_tokens", {**TINY_VIT, "registers": 4, "normalise": False}),
    ("vit_tiny_detail", {"vit": TINY_VIT, "channels": 64, "width": 16}),
]


@pytest.mark.parametrize(("name", "changes"), FORMS)
def test_channels_and_stride_are_what_the_encoder_says(name: str, changes: dict[str, Any]) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, changes).eval()
        side = encoder.multiple * 32
        features = encoder(torch.zeros(1, 3, side, side * 2))
    assert features.shape == (
        1,
        encoder.channels,
        side // encoder.stride,
        2 * side // encoder.stride,
    )
    assert encoder.name == name


@pytest.mark.parametrize(("name", "changes"), CHEAP)
def test_features_have_that_shape_and_are_finite(name: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, changes).eval()
    height, width = 4 * 16, 6 * 16
    if encoder.multiple == 14:
        height, width = 4 * 14, 6 * 14
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, height, width))
    expected = (2, encoder.channels, height // encoder.stride, width // encoder.stride)
    assert features.shape == expected
    assert torch.isfinite(features).all()
    assert features.std() > 1e-4


@pytest.mark.parametrize("side", [417, 473])
def test_grids_are_those_of_the_papers(side: int) -> None:
    grids = {}
    for name in ("vgg16", "vgg16_smcp", "fcn32s", "resnet50_deep", "mobilenet_v2"):
        grids[name] = measure(name, {}, [side]).costs[0].grid
    up, down = -(-side // 8), side // 8
    assert grids == {
        "vgg16": (up, up),
        "vgg16_smcp": (down, down),  # 52x52 at 417, as in its code
        "fcn32s": (side // 32, side // 32),
        "resnet50_deep": (up, up),  # 60x60 at 473, as in MLC
        "mobilenet_v2": (up, up),
    }


@pytest.mark.parametrize(("name", "changes"), CHEAP)
def test_a_record_in_json_builds_the_same_encoder(name: str, changes: dict[str, Any]) -> None:
    record = json.loads(json.dumps(encoder_record(name, changes)))
    encoders = []
    for arguments in ({"name": name, "settings": changes}, record):
        torch.manual_seed(1)
        encoders.append(build_encoder(**arguments))
    one, other = encoders
    assert str(one) == str(other)
    assert one.settings == other.settings == encoder_settings(name, changes)
    mine, yours = one.state_dict(), other.state_dict()
    assert list(mine) == list(yours)
    assert all(torch.equal(mine[key], yours[key]) for key in mine)


def test_the_shipped_encoders_keep_their_names_and_sizes() -> None:
    """Checkpoints depend on these names, and on their default settings."""
    with torch.device("meta"):
        found = {n: build_encoder(n) for n in ("vit_tiny_detail", "vit_tiny_keys", "mobilenet_v2")}
    states = {name: encoder.state_dict() for name, encoder in found.items()}
    assert len(states["vit_tiny_detail"]) == 156
    assert list(states["vit_tiny_detail"])[:3] == [
        "vit.cls_token",
        "vit.pos_embed",
        "vit.patch_embed.proj.weight",
    ]
    assert {k for k in states["vit_tiny_detail"] if k.startswith("vit.blocks.11")} == {
        f"vit.blocks.11.{layer}.{part}"
        for layer in ("norm1", "attn.qkv")
        for part in ("weight", "bias")
    }
    assert set(states["vit_tiny_keys"]) == {
        key[4:] for key in states["vit_tiny_detail"] if key.startswith("vit.")
    }
    assert states["vit_tiny_detail"]["project.weight"].shape == (256, 576, 1, 1)
    assert all(".running" not in key for key in states["mobilenet_v2"])
    assert len(states["mobilenet_v2"]) == 2 * (1 + 2 + 12 * 3)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet5", {}, r"vit_tiny_keys.*got 'resnet5'"),
        ("resnet50", {"stern": "deep"}, r"settings of resnet50\.stern.*depth, taps"),
        ("resnet50", {"stem": "5x5"}, r"'7x7', 'deep'.*'5x5'"),
        ("resnet50", {"depth": 18}, r"resnet50\.depth: expected 50, got 18"),
        ("resnet50", {"taps": ["layer3", "layer2"]}, r"taps: expected some of layer1"),
        ("resnet50", {"taps": []}, r"taps"),
        ("resnet50", {"output_stride": 4}, r"output_stride: expected 8, 16 or 32, got 4"),
        ("vgg16", {"pool": 4}, r"pool: expected 2 or 3, got 4"),
        ("vgg16", {"dropout": 1.0}, r"dropout"),
        ("mobilenet_v2", {"taps": ["features.18"]}, r"features\.17, in that order"),
        ("mobilenet_v2", {"output_stride": "8"}, r"mobilenet_v2\.output_stride.*'8'"),
        ("vit_tiny_keys", {"blocks": [12]}, r"blocks 0\.\.11"),
        ("vit_tiny_keys", {"blocks": [9, 6]}, r"rising"),
        ("vit_tiny_keys", {"heads": 5}, r"multiple of heads"),
        ("vit_tiny_keys", {"final_norm": True}, r"final_norm"),
        ("vit_tiny_keys", {"grid": 0}, r"grid: expected 1 or more"),
        ("vit_tiny_keys", {"registers": -1}, r"registers"),
        ("vit_tiny_detail", {"vit": {"patch": 8}}, r"vit\.patch: expected 16, got 8"),
        ("vit_tiny_detail", {"vit": {"widht": 8}}, r"vit_tiny_detail\.vit\.widht"),
        ("vit_tiny_detail", {"channels": 577}, r"channels: expected 1 to 576"),
        ("vit_tiny_detail", {"width": 2}, r"width: expected 4 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(name, changes)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50", "resnet50_v1_layers1to3"),
        ("mobilenet_v2", "mobilenet_v2_bnfolded"),
        ("vit_tiny_keys", "vit_tiny_patch16_224"),
        ("vit_tiny_tokens", "vit_tiny_patch16_224"),
        ("vit_tiny_detail", "vit_tiny_patch16_224"),
    ],
)
def test_real_weights_load(name: str, file: str) -> None:
    root = weights_root()
    if root is None:
        pytest.skip("no weights beside the checkout")
    state = read_weights(root / f"{file}.safetensors")
    encoder = build_encoder(name)
    load_backbone(encoder, state)
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = encoder.eval()(image)
    assert torch.isfinite(features).all()
    own = getattr(encoder, "vit", encoder).state_dict()
    shared = [k for k in own if k in state and own[k].shape == state[k].shape]
    assert len(shared) >= len(own) - sum("tracked" in k for k in own)
    assert all(torch.equal(own[k], state[k].float()) for k in shared)


def test_costs_agree_with_arithmetic() -> None:
    side, grid, width = 64, 4, 192
    tokens = grid * grid + 1
    whole = 2 * tokens * 12 * width * width + 2 * 2 * tokens * tokens * width
    last = 2 * tokens * width * width  # keys alone
    patches = 2 * grid * grid * width * 3 * 16 * 16
    row = measure("vit_tiny_keys", {}, [side])
    assert row.costs[0].flops == 11 * whole + last + patches
    assert (row.channels, row.stride, row.costs[0].grid) == (3 * width, 16, (grid, grid))
    one = measure("vgg16", {"taps": ["conv1"]}, [32])
    assert one.costs[0].flops == 2 * 32 * 32 * 9 * (3 * 64 + 64 * 64)
    assert one.parameters == 9 * (3 * 64 + 64 * 64) + 128


def test_the_table_says_at_which_size_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        dino = build_encoder("dinov2_small_tokens", TINY_VIT)
    assert [nearest_side(dino, side) for side in (417, 473, 6)] == [420, 476, 14]
    assert main(["resnet18", "vit_tiny_keys", "--sides", "100", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| encoder | channels | stride | M parameters | grid at 100 |")
    assert lines[2].startswith("| resnet18 | 256 | 8 | 2.783 | 13x13 |")
    assert "(96)" in lines[3]
    assert lines[4].startswith("| resnet18, stem deep |")
    assert main(["resnet18", "--settings", '{"output_stride": 16}', "--sides", "96"]) == 0
    assert "resnet18, output_stride 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet5"], "got 'resnet5'"),
        (["resnet18", "--settings", "[]"], "expected a JSON object"),
        (["resnet18", "--settings", "{"], "Expecting"),
        (["--settings", "{}"], "expected one NAME"),
        (["resnet18", "--sides", "8"], "expected 32 or more"),
    ],
)
def test_the_table_refuses(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
