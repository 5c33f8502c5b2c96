"""State dicts with the names and shapes of public pretrained files, written down by rule.

Tensors are on torch's meta device, which costs nothing; ``filled`` gives them numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def meta(shapes: Shapes) -> State:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def filled(state: State, seed: int = 0) -> State:
    """Random numbers under which signals neither grow nor vanish; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            result[name] = torch.tensor(7)
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1 and name not in ("pos_embed", "cls_token"):
            values *= (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            values = 0.75 + 0.1 * values.abs()
        else:
            values *= 0.1
        result[name] = values
    return result


def norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (width,) for part in parts}, f"{name}.num_batches_tracked": ()}


def layer(name: str, out: int, *rest: int) -> Shapes:
    """A layer with a bias."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def vgg16() -> State:
    shapes: Shapes = {}
    channels, number = 3, 0
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, *(512, 512, 512, 0) * 2):
        if width:
            shapes |= layer(f"features.{number}", width, channels, 3, 3)
            channels = width
        number += 2 if width else 1
    shapes |= layer("classifier.0", 4096, 25088) | layer("classifier.3", 4096, 4096)
    return meta(shapes | layer("classifier.6", 1000, 4096))


def resnet(depth: int, stem: str = "7x7") -> State:
    """torchvision's; or with PSPNet's deep stem, its names flat ("deep") or nested ("nested")."""
    shapes: Shapes = {}
    if stem == "7x7":
        shapes |= {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
        channels = 64
    else:
        flat = stem == "deep"
        for number, (inner, outer) in enumerate(((3, 64), (64, 64), (64, 128))):
            shapes[f"conv{number + 1}.weight" if flat else f"conv1.{3 * number}.weight"] = (
                outer,
                inner,
                3,
                3,
            )
            shapes |= norm(f"bn{number + 1}" if flat else f"conv1.{3 * number + 1}", outer)
        if not flat:
            shapes = {k: v for k, v in shapes.items() if not k.startswith("conv1.7.")}
            shapes |= norm("bn1", 128)
        channels = 128
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    for index, count in enumerate(blocks):
        width = 64 * 2**index
        kernels = (3, 3) if depth == 18 else (1, 3, 1)
        outs = (width, width) if depth == 18 else (width, width, 4 * width)
        for block in range(count):
            name, inner = f"layer{index + 1}.{block}", channels
            for number, (kernel, out) in enumerate(zip(kernels, outs, strict=True), 1):
                shapes[f"{name}.conv{number}.weight"] = (out, inner, kernel, kernel)
                shapes |= norm(f"{name}.bn{number}", out)
                inner = out
            if block == 0 and (channels != outs[-1] or index > 0):
                shapes[f"{name}.downsample.0.weight"] = (outs[-1], channels, 1, 1)
                shapes |= norm(f"{name}.downsample.1", outs[-1])
            channels = outs[-1]
    return meta(shapes | layer("fc", 1000, channels))


def mobilenet_v2() -> State:
    shapes: Shapes = {"features.0.0.weight": (32, 3, 3, 3)} | norm("features.0.1", 32)
    channels = 32
    for number, (expansion, out) in enumerate(_mobilenet_blocks(), 1):
        width, unit = channels * expansion, 0
        name = f"features.{number}.conv"
        if expansion != 1:
            shapes[f"{name}.0.0.weight"] = (width, channels, 1, 1)
            shapes |= norm(f"{name}.0.1", width)
            unit = 1
        shapes[f"{name}.{unit}.0.weight"] = (width, 1, 3, 3)
        shapes |= norm(f"{name}.{unit}.1", width)
        shapes[f"{name}.{unit + 1}.weight"] = (out, width, 1, 1)
        shapes |= norm(f"{name}.{unit + 2}", out)
        channels = out
    shapes |= {"features.18.0.weight": (1280, 320, 1, 1)} | norm("features.18.1", 1280)
    return meta(shapes | layer("classifier.1", 1000, 1280))


def _mobilenet_blocks() -> Iterator[tuple[int, int]]:
    for out, count in ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)):
        for _ in range(count):
            yield (1 if out == 16 else 6), out


def vit(width: int, depth: int = 12, patch: int = 16, grid: int = 14, style: str = "timm") -> State:
    """style: "timm", "dino" (no head), "dinov2" (layer scale, mask token), "dinov2 registers",
    "timm registers" (the same as timm keeps it)."""
    shapes: Shapes = {"cls_token": (1, 1, width)}
    shapes["pos_embed"] = (1, grid**2 + (style != "timm registers"), width)
    shapes |= layer("patch_embed.proj", width, 3, patch, patch) | layer("norm", width)
    for block in range(depth):
        name = f"blocks.{block}"
        shapes |= layer(f"{name}.norm1", width) | layer(f"{name}.norm2", width)
        shapes |= layer(f"{name}.attn.qkv", 3 * width, width)
        shapes |= layer(f"{name}.attn.proj", width, width)
        shapes |= layer(f"{name}.mlp.fc1", 4 * width, width)
        shapes |= layer(f"{name}.mlp.fc2", width, 4 * width)
        if "dinov2" in style or "registers" in style:
            shapes |= {f"{name}.ls1.gamma": (width,), f"{name}.ls2.gamma": (width,)}
    if style == "timm":
        shapes |= layer("head", 1000, width)
    if style.startswith("dinov2"):
        shapes["mask_token"] = (1, width)
    if "registers" in style:
        name = "reg_token" if style.startswith("timm") else "register_tokens"
        shapes[name] = (1, 4, width)
    return meta(shapes)
