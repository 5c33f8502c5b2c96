"""A method's head as graphs of a bundle, and whether the runtime computes with them what torch
does: by itself, and as a whole from pictures to scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.onnx_graph import fold_norms, graph_to_onnx, round_to_half
from export.parity import Parity, compare, worst_of
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph
from training.heads import CONDITIONER, EMBEDDING, Part
from training.scenes import draw_pair
from training.smcp.head import Head
from training.smcp.split import TAPS, TorchHeadGraph
from training.torch_graph import TorchGraph

EPISODES, SIDE = 3, 96  # of drawn scenes, for the whole


def round_head(head: nn.Module, size: tuple[int, int]) -> None:
    """As `round_to_half`, after `fold_norms` of what sees images (of this size). The weights of
    smcp's classifier are stored as one, whatever each of them has."""
    if any(isinstance(layer, nn.BatchNorm2d) for layer in head.modules()):
        fold_norms(head, torch.zeros(1, 3, *size))
    round_to_half(head)
    if isinstance(head, Head):
        round_to_half(head.classifier, least=TAPS)


def head_to_onnx(parts: Mapping[str, Part]) -> dict[str, bytes]:
    """The graphs by name; classes and pictures free, sizes fixed."""
    graphs = {}
    for name, part in parts.items():
        infos = {info.name: info for info in part.spec.inputs}
        free = {name for name, info in infos.items() if info.shape[0] == -1}
        examples = {
            name: torch.zeros(2 if name in free else info.shape[0], *info.shape[1:])
            for name, info in infos.items()
        }
        (output,) = part.spec.outputs
        graphs[name] = graph_to_onnx(part.module.eval(), examples, output.name, free)
    return graphs


def check_head(
    head: nn.Module,
    graphs: Mapping[str, Graph],
    features: NDArray[np.float32],
    images: NDArray[np.float32],
) -> Parity:
    """The definition in torch against its graphs: on ``features [B, C, h, w]``, or, where it reads
    pictures, on ``images [B, 3, H, W]`` of which more and more is masked."""
    if isinstance(head, Head):
        return check_split(head, graphs, features)
    name = CONDITIONER if CONDITIONER in graphs else EMBEDDING
    kept = [images.copy() for _ in range(3)]
    kept[1][:, :, : images.shape[2] // 3] = 0
    kept[2][:] = 0
    given = np.concatenate(kept) if name == CONDITIONER else features
    with torch.no_grad():
        expected = head(torch.from_numpy(given)).float().numpy()
    graph = graphs[name]
    results = []
    for rows in (slice(None), slice(1), slice(-1, None)):
        found = graph.run({graph.inputs[0].name: given[rows]})[graph.outputs[0].name]
        results.append(compare(expected[rows], found, largest(expected)))
    return worst_of(results)


def check_split(head: Head, graphs: Mapping[str, Graph], features: NDArray[np.float32]) -> Parity:
    """SMCP's definition, prototypes tiled and concatenated, against the split graphs.

    ``features [B, C, h, w]`` meet prototypes out of all of them: the mean of a patch, a cell, and
    none at all.
    """
    flat = features.transpose(1, 0, 2, 3).reshape(features.shape[1], -1)
    patch = features[0, :, : features.shape[2] // 2 + 1].mean(axis=(1, 2))
    prototypes = np.stack([patch, flat[:, -1], np.zeros_like(patch)]).astype(np.float32)
    shares = graphs["smcp_prototype"].run({"prototypes": prototypes})["shares"]
    query = graphs["smcp_query"].run({"features": features})["query"]
    results = []
    for index in range(len(features)):
        one = torch.from_numpy(features[index : index + 1]).expand(len(prototypes), -1, -1, -1)
        with torch.no_grad():
            expected = head(one, torch.from_numpy(prototypes)).numpy()
        for rows in (slice(None), slice(1)):
            feeds = {"query": query[index : index + 1], "shares": shares[rows]}
            found = graphs["smcp_head"].run(feeds)["logits"]
            results.append(compare(expected[rows], found, largest(expected)))
    return worst_of(results)


def check_whole(
    encoder: Any,
    parts: Mapping[str, Part],
    graphs: Mapping[str, Graph],
    manifest: Mapping[str, Any],
) -> Parity:
    """The method on drawn episodes, with torch's encoder and head and with `graphs`: its scores
    before upsampling. One class, and two."""
    size = manifest["input"]["size"]
    twins: Mapping[str, Graph] = {
        "encoder": TorchGraph(encoder, (size[0], size[1])),
        **{name: TorchHeadGraph(part.module, part.spec) for name, part in parts.items()},
    }
    torch_segmenter, segmenter = (Segmenter(own, manifest, threads=1) for own in (twins, graphs))
    results = []
    for seed in range(EPISODES):
        (shown, families), (query, _) = draw_pair(np.random.default_rng(seed), SIDE)
        support = {"first": [(shown, families == 1)]}
        if seed and (families == 2).any():
            support["second"] = [(shown, families == 2)]
        expected, found = (
            s.prepare(support).segment(query).logits for s in (torch_segmenter, segmenter)
        )
        results.append(compare(expected, found, largest(expected)))
    return worst_of(results)


def largest(logits: NDArray[np.float32]) -> float:
    """Of which rounding is a share: a logit near 0 is the difference of large numbers."""
    return max(1.0, float(np.abs(logits).max()))
