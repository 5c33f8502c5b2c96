"""Files of weights: what is read, and what is said of those that do not fit."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training import pretrained
from training.encoders import StateDictError, build_encoder, load_backbone, read_weights


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    return pretrained.filled(pretrained.resnet(18))


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "teacher"])
def test_torch_files_are_read(
    nested: str | None, tmp_path: Path, resnet: dict[str, Tensor]
) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save({nested: resnet, "epoch": 3} if nested else resnet, path)
    assert all(torch.equal(v, resnet[k]) for k, v in read_weights(path).items())


def test_half_precision_safetensors_load(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file({k: v.half() if v.dim() > 1 else v for k, v in resnet.items()}, str(path))
    encoder = build_encoder("resnet18")
    load_backbone(encoder, read_weights(path))
    assert encoder.conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.conv1.weight, resnet["conv1.weight"].half().float())


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_prefixes_of_wrappers_are_dropped(prefix: str, resnet: dict[str, Tensor]) -> None:
    wrapped = {prefix + k: v for k, v in resnet.items()}
    wrapped["module.head.mlp.0.weight"] = torch.zeros(2, 2)
    encoder = build_encoder("resnet18")
    load_backbone(encoder, wrapped)
    assert torch.equal(encoder.layer3[1].bn2.bias, resnet["layer3.1.bn2.bias"])


class Code:
    """Runs when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def test_files_that_hold_code_are_refused(tmp_path: Path) -> None:
    for name, write in (("a.pth", torch.save), ("b.pth", None)):
        path = tmp_path / name
        if write:
            write({"w": Code(tmp_path / "ran")}, path)
        else:
            path.write_bytes(pickle.dumps({"w": Code(tmp_path / "ran")}))
        with pytest.raises(ValueError, match=rf"{name}: expected a state dict.*Save model"):
            read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name}: expected a file of weights, found none"):
        read_weights(path)
    for content in (b"", b"not weights at all", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: expected a state dict"):
            read_weights(path)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content in ({"epoch": 3}, torch.zeros(3), [1, 2]):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"expected a state dict, got \w+ without tensors"):
            read_weights(path)


R18, R50, R101 = (pretrained.resnet(depth) for depth in (18, 50, 101))
VGG = {k: v for k, v in pretrained.vgg16().items() if k.startswith("features")}
VIT, DINOV2 = pretrained.vit(192), pretrained.vit(384, patch=14, grid=37, style="dinov2")


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        # every tensor of a ResNet-50 is in a ResNet-101, too
        ("resnet50", R101, r"^state dict: .* 255 of another network: layer3\.6\.conv1\.weight"),
        ("resnet101", R50, r" 255 missing: layer3\.6\.conv1\.weight, .*, \.\.\.\.$"),
        (
            "resnet50",
            R18,
            r"another shape: layer1\.0\.conv1\.weight \(expected \[64, 64, 1, 1\]",
        ),
        ("resnet50", pretrained.resnet(50, "deep"), r"10 of another network: conv2\.weight"),
        ("resnet50_deep", R50, r"10 missing: conv2\.weight.*conv1\.weight \(.* \[64, 3, 7, 7\]\)"),
        ("vgg16", R50, r"26 missing: features\.0\.weight"),
        ("fcn32s", VGG, r"4 missing: classifier\.0\.weight"),
        ("mobilenet_v2", VIT, r"78 missing: features\.0\.0\.weight"),
        (
            "vit_tiny_keys",
            pretrained.vit(384),
            r"cls_token \(.* \[1, 1, 192\], got \[1, 1, 384",
        ),
        ("vit_tiny_detail", pretrained.vit(384), r"tensors of vit_tiny_detail, got 152 others"),
        ("vit_small_keys", DINOV2, r"24 of another network: blocks\.0\.ls1\.gamma"),
        ("dinov2_small_tokens", pretrained.vit(384), r"24 missing: blocks\.0\.ls1\.gamma"),
        ("vit_tiny_keys", pretrained.vit(192, depth=24), r"144 of another network: blocks\.12"),
        ("resnet18", {}, r"expected the 75 tensors of resnet18, got 0 others\. 75 missing"),
    ],
)
def test_what_differs_is_named(name: str, state: dict[str, Tensor], message: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    with pytest.raises(StateDictError) as error:
        encoder.load_imagenet(state)
    assert re.search(message, str(error.value)), str(error.value)


@pytest.mark.parametrize(
    ("name", "state", "remedy"),
    [
        ("mobilenet_v2", VIT, "They fit vit_tiny_detail, vit_tiny_keys, vit_tiny_tokens."),
        ("resnet50", pretrained.resnet(50, "nested"), "They fit resnet50_deep."),
        ("resnet18", {"head.weight": torch.zeros(2, 2)}, "They fit no encoder with its default"),
    ],
)
def test_the_encoder_that_fits_is_named(name: str, state: dict[str, Tensor], remedy: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    with pytest.raises(StateDictError) as error:
        load_backbone(encoder, state)
    assert remedy in str(error.value)


def test_dinov2_weights_need_a_place_for_their_registers() -> None:
    state = pretrained.vit(384, patch=14, grid=37, style="dinov2 registers")
    with torch.device("meta"):
        with pytest.raises(StateDictError, match="1 of another network: register_tokens"):
            build_encoder("dinov2_small_tokens").load_imagenet(state)
        load_backbone(build_encoder("dinov2_small_tokens", {"registers": 4}), state)


def test_one_missing_tensor_is_named(resnet: dict[str, Tensor]) -> None:
    state = {k: v for k, v in resnet.items() if k != "layer2.0.bn1.running_var"}
    encoder = build_encoder("resnet18")
    before = encoder.conv1.weight.clone()
    with pytest.raises(StateDictError, match=r"1 missing: layer2\.0\.bn1\.running_var\."):
        encoder.load_imagenet(state)
    assert torch.equal(encoder.conv1.weight, before)  # nothing was loaded


def test_half_folded_weights_are_refused() -> None:
    state = pretrained.mobilenet_v2()
    state.pop("features.3.conv.1.1.running_mean")
    with torch.device("meta"):
        encoder = build_encoder("mobilenet_v2")
    with pytest.raises(StateDictError, match=r"2 missing: features\.3\.conv\.2\.weight"):
        encoder.load_imagenet(state)


def test_what_an_encoder_cuts_off_is_left_out(resnet: dict[str, Tensor]) -> None:
    encoder = build_encoder("resnet18", {"taps": ["layer1"]})
    load_backbone(encoder, resnet)
    assert torch.equal(encoder.layer1[1].conv2.weight, resnet["layer1.1.conv2.weight"])
    # and an encoder's own tensors load again
    load_backbone(build_encoder("resnet18", {"taps": ["layer1"]}), encoder.state_dict())
