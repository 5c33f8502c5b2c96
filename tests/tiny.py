"""A bundle small enough to break at every byte: average colours of 8 x 8 pixels in 16 channels.

Good enough for a method to find a coloured square, and deterministic to the byte. The golden
vectors come from the double-precision reference, not from what the SDK computes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fsseg_sdk.bundle import write_bundle
from fsseg_sdk.npy import write_npy
from fsseg_sdk.ops import reference

SIZE = (64, 64)
GRID = (8, 8)
CHANNELS = 16
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
EVERY = 3
GOLDEN_SIZE = (24, 32)


def mixing() -> NDArray[np.float32]:
    """[16, 3] weights and a bias as a fourth column; no random generator, so the same for ever."""
    phase = np.arange(CHANNELS * 4, dtype=np.float64).reshape(CHANNELS, 4)
    return np.cos(phase * 1.7 + 0.3).astype(np.float32)


@functools.cache
def tiny_onnx(*, half: bool = False, batch: int | str = "batch") -> bytes:
    """image [batch, 3, 64, 64] -> features [batch, 16, 8, 8]. half: float16 weights behind Cast."""
    weight = mixing()[:, :3].reshape(CHANNELS, 3, 1, 1)
    stored = weight.astype(np.float16) if half else weight
    nodes = [
        helper.make_node("AveragePool", ["image"], ["colour"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["colour", "weight", "bias"], ["mixed"], kernel_shape=[1, 1]),
        helper.make_node("Tanh", ["mixed"], ["features"]),
    ]
    if half:
        nodes.insert(0, helper.make_node("Cast", ["stored"], ["weight"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, CHANNELS, *GRID])],
        [
            numpy_helper.from_array(stored, "stored" if half else "weight"),
            numpy_helper.from_array(mixing()[:, 3].copy(), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def tiny_features(inputs: NDArray[Any]) -> NDArray[np.float64]:
    """What `tiny_onnx` computes, in numpy: [B, 3, 64, 64] -> [B, 16, 8, 8]."""
    pooled = inputs.astype(np.float64).reshape(len(inputs), 3, 8, 8, 8, 8).mean(axis=(3, 5))
    mixed = np.einsum("kc,bchw->bkhw", mixing()[:, :3].astype(np.float64), pooled)
    return np.tanh(mixed + mixing()[:, 3].astype(np.float64)[:, None, None])


def tiny_scene(
    size: tuple[int, int] = (48, 64),
    square: tuple[int, int, int, int] = (16, 12, 40, 36),
    colour: tuple[int, int, int] = (220, 40, 30),
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture [H, W, 3] of a coloured square on speckled grey, and its mask [H, W] of 0 and 1.

    square: left, top, right, bottom.
    """
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    speckle = (rows * 7 + columns * 13) % 32
    image = np.repeat((100 + speckle)[..., None], 3, axis=2).astype(np.uint8)
    left, top, right, bottom = square
    image[top:bottom, left:right] = colour
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return image, mask


def tiny_manifest(
    *,
    method: str = "panet",
    settings: Mapping[str, object] | None = None,
    geometry: str = "squash",
    name: str = "tiny",
    half: bool = False,
    golden: bool = True,
) -> dict[str, Any]:
    """A manifest for `write_bundle`."""
    encoder = {
        "file": "encoder.onnx",
        "inputs": [{"name": "image", "dtype": "float32", "shape": [-1, 3, *SIZE]}],
        "outputs": [{"name": "features", "dtype": "float32", "shape": [-1, CHANNELS, *GRID]}],
        "storage": "float16" if half else "float32",
        "compute": "float32",
    }
    manifest: dict[str, Any] = {
        "name": name,
        "created_with": "fsseg_sdk 0.1.0",
        "method": {"name": method, "settings": dict(settings or {})},
        "input": {"size": list(SIZE), "geometry": geometry, "mean": list(MEAN), "std": list(STD)},
        "features": {"channels": CHANNELS, "grid": list(GRID), "stride": 8.0},
        "graphs": {"encoder": encoder},
        "provenance": {"training": "none: average colours"},
    }
    if golden:
        manifest["golden"] = {
            **{key: f"golden/{key}.npy" for key in ("image", "mask", "features", "labels")},
            "every": EVERY,
        }
    return manifest


def tiny_golden(geometry: str = "squash", scale: float = 20.0) -> dict[str, bytes]:
    """Golden members: panet with its default settings, image and mask as support and as query."""
    image, mask = tiny_scene(GOLDEN_SIZE, (8, 6, 20, 18))
    content = SIZE if geometry == "squash" else (SIZE[0] * 24 // 32, SIZE[1])
    extent = (content[0] * GRID[0] / SIZE[0], content[1] * GRID[1] / SIZE[1])
    inputs = reference.preprocess(image, SIZE, content, MEAN, STD).astype(np.float32)
    features = tiny_features(inputs).astype(np.float32)
    masks = np.stack([mask, 1 - mask])
    weights = reference.grid_weights(masks, GRID, extent)[None].astype(np.float32)
    foreground, background = reference.weighted_pool(features, weights, 1e-12)[0]
    prototypes = np.stack([background, foreground]).astype(np.float32)
    logits = reference.cosine_match(features, prototypes, scale).astype(np.float32)
    labels = reference.upsample_argmax(logits, GOLDEN_SIZE, extent)[0]
    sampled = features[0].reshape(CHANNELS, -1)[:, ::EVERY]
    return {
        "golden/image.npy": write_npy(image),
        "golden/mask.npy": write_npy(mask),
        "golden/features.npy": write_npy(sampled),
        "golden/labels.npy": write_npy(labels),
    }


def tiny_bundle(
    path: Path,
    *,
    method: str = "panet",
    settings: Mapping[str, object] | None = None,
    geometry: str = "squash",
    name: str = "tiny",
    half: bool = False,
    golden: bool = True,
) -> Path:
    """Writes the bundle to `path` and returns it. The same arguments give the same bytes."""
    members = {"encoder.onnx": tiny_onnx(half=half)}
    if golden:
        members.update(tiny_golden(geometry))
    manifest = tiny_manifest(
        method=method, settings=settings, geometry=geometry, name=name, half=half, golden=golden
    )
    write_bundle(path, manifest, members)
    return path
