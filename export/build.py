"""A checkpoint as a bundle: graph, parity, golden vectors, provenance; all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.head import check_head, check_whole, head_to_onnx, round_head
from export.manifest import manifest_of
from export.onnx_graph import fold_norms, round_to_half, store_half, to_onnx
from export.parity import Parity, check_graph, worst_of
from export.plain import plain
from export.settings import ExportError, ExportSettings
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph
from fsseg_sdk.bundle import write_bundle
from fsseg_sdk.image import read_image
from fsseg_sdk.npy import write_npy
from fsseg_sdk.verify import VerifyReport, verify_bundle
from training.heads import Part, parts_of, trained_module
from training.scenes import draw_pair
from training.torch_graph import trained_encoder

GOLDEN_SIDE = 96


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near the runtime came to torch: with the encoder, and, where the
    method has a head, with the head by itself and with both as a whole."""

    path: Path
    size: int
    digest: str
    parities: Mapping[str, Parity]
    verified: VerifyReport

    @property
    def parity(self) -> Parity:
        """The worst of them."""
        return worst_of(list(self.parities.values()))

    def __str__(self) -> str:
        checks = "\n".join(f"  {check.name}: {check.detail}" for check in self.verified.checks)
        agreed = "\n".join(
            f"  torch and {self.verified.backend}, {name}: largest difference "
            f"{parity.max_abs:.2g}, {parity.worst:.1%} of what is allowed"
            for name, parity in self.parities.items()
        )
        return (
            f"{self.path}: {self.size / 1e6:.2f} MB, digest {self.digest[:16]}\n{agreed}\n{checks}"
        )


def export_bundle(
    checkpoint: Path | str, out: Path | str, settings: ExportSettings
) -> ExportReport:
    """Write the bundle of a checkpoint.

    Raises:
        ExportError: torch and ONNX Runtime disagree, or the finished bundle does not verify;
            nothing is written then.
        ValueError: the file is not a checkpoint of this project.
    """
    out = Path(out)
    if out.suffix != ".fsseg":
        raise ExportError(f"{out}: expected a name that ends in .fsseg")
    encoder, header = trained_encoder(checkpoint)
    if any(side % encoder.multiple for side in settings.input_size):
        raise ValueError(
            f"input_size: expected multiples of {encoder.multiple} for the encoder "
            f"{header['encoder']['name']}, got {settings.input_size}"
        )
    method = header["method"]["name"]
    head = trained_module(checkpoint, method)
    half = settings.storage == "float16"
    if half:
        fold_norms(encoder, torch.zeros(1, 3, *settings.input_size))
        round_to_half(encoder)
        if head is not None:
            round_head(head, settings.input_size)
    grid = _grid(encoder, settings.input_size)
    parts: dict[str, Part] = {}
    if head is not None:
        own = (encoder.channels, settings.input_size, settings.storage)
        parts = parts_of(head, method, grid, *own)
    specs = {
        "encoder": _encoder_spec(encoder, grid, settings),
        **{name: part.spec for name, part in parts.items()},
    }
    manifest = manifest_of(encoder, grid, specs, header, settings)
    made = {"encoder": to_onnx(encoder, settings.input_size), **head_to_onnx(parts)}
    # computed beforehand, since TensorRT and OpenVINO cannot resize positions as torch does
    data = {name: plain(graph).SerializeToString() for name, graph in made.items()}
    if half:
        data = {name: store_half(graph) for name, graph in data.items()}
    graphs = {name: _open(graph, specs[name]) for name, graph in data.items()}
    image, mask = _golden_scene()
    inputs = _inputs(encoder, settings.input_size, image)
    parities = {"encoder": check_graph(encoder, graphs["encoder"], inputs)}
    if head is not None:
        features = graphs["encoder"].run({"image": inputs})["features"]
        parities["head"] = check_head(head, graphs, features, inputs)
        parities["whole"] = check_whole(encoder, parts, graphs, manifest)
    for name, parity in parities.items():
        if not parity.ok:
            raise ExportError(
                f"torch and ONNX Runtime disagree by {parity.max_abs:.3g}, {parity.worst:.3g} "
                f"times what is allowed ({name}); no bundle was written"
            )
    members = {specs[name].file: graph for name, graph in data.items()}
    members.update(_golden(graphs, manifest, image, mask))
    # beside the target under another name, so that a bundle that fails its own check never takes
    # the good one's place
    partial = out.with_name(f"{out.stem}.partial.fsseg")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        digest = write_bundle(partial, manifest, members)
        verified = verify_bundle(partial, threads=1)
        if not verified.ok:
            failed = [check for check in verified.checks if not check.ok]
            raise ExportError(f"the bundle does not verify: {failed}; it was not written")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return ExportReport(out, out.stat().st_size, digest, parities, verified)


@torch.no_grad()
def _grid(encoder: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Of the features of an input of that size."""
    shape = encoder(torch.zeros(1, 3, *size)).shape
    return int(shape[-2]), int(shape[-1])


def _encoder_spec(encoder: Any, grid: tuple[int, int], settings: ExportSettings) -> GraphSpec:
    image = TensorInfo("image", "float32", (-1, 3, *settings.input_size))
    features = TensorInfo("features", "float32", (-1, encoder.channels, *grid))
    return GraphSpec("encoder.onnx", (image,), (features,), settings.storage)


def _open(data: bytes, spec: GraphSpec) -> Graph:
    return open_graph(data, spec, backend="onnxruntime", device="cpu", precision="fp32", threads=1)


def _golden_scene() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A drawn picture ``[GOLDEN_SIDE, GOLDEN_SIDE, 3]`` and the mask (0, 1) of marks in it."""
    picture, families = draw_pair(np.random.default_rng(3), GOLDEN_SIDE)[0]
    return picture, (families == 1).astype(np.uint8)


def _inputs(encoder: Any, size: tuple[int, int], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two normalised inputs: the drawn scene, and noise, which reaches what a scene does not."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    rows = np.arange(size[0]) * image.shape[0] // size[0]
    columns = np.arange(size[1]) * image.shape[1] // size[1]
    pixels = np.stack([image[rows][:, columns].astype(np.float32), noise]) / 255
    normal: NDArray[np.float32] = ((pixels - encoder.mean) / encoder.std).astype(np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def _golden(
    graphs: Mapping[str, Graph],
    manifest: dict[str, Any],
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
) -> dict[str, bytes]:
    """What the runtime computes for the scene.

    Torch has agreed by now, so this is what a user's machine must repeat.
    """
    segmenter = Segmenter(graphs, manifest, threads=1)
    features = segmenter._core.encoder.encode([read_image(image)]).features[0]
    result = segmenter.segment(image, mask, image)
    every = manifest["golden"]["every"]
    return {
        "golden/image.npy": write_npy(image),
        "golden/mask.npy": write_npy(mask),
        "golden/features.npy": write_npy(features.reshape(len(features), -1)[:, ::every].copy()),
        "golden/labels.npy": write_npy(result.raw_labels),
    }
