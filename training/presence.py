"""Fit the absent-class score: a small logistic model on the runtime's descriptors of a match.

Platt scaling (Platt, 1999) with several inputs instead of one: pictures with and without the
class, half and half, every data set with equal weight. What is fitted is what the runtime
computes, through the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Segmenter
from fsseg_sdk.methods import get as get_method
from fsseg_sdk.methods.presence import DESCRIPTORS
from fsseg_sdk.methods.settings import settings_from_json
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import Sample
from training.evaluation import (
    Episode,
    ProtocolSettings,
    auroc,
    calibration_error,
    evaluate,
    list_episodes,
    with_absent,
)
from training.heads import head_graphs
from training.remembering import RememberingGraph
from training.torch_graph import TorchGraph, trained_encoder

# Chosen on pictures of the training sets, fitted on one set and tried on the other: each helps, and
# none depends on the scale of one encoder alone.
CHOSEN: tuple[str, ...] = (
    "top_cosine_to_self",
    "top_margin_to_self",
    "won_cosine_to_self",
    "won_fraction",
    "scene_to_self",
    "prototype_cosine",
)

# of a method that judges presence by its own logits: it has no support's scores to compare with
CHOSEN_OF_LOGITS = ("top_margin", "won_fraction", "won_margin")

FEWEST = 8  # episodes that a fit is made from
THRESHOLD = 0.4  # below it a class is ruled out, and its mask is empty: to miss costs more


@dataclass(frozen=True)
class PresenceFit:
    """Coefficients for a bundle's settings, and how well they do on what they were fitted on."""

    settings: dict[str, Any]
    scores: NDArray[np.float64]


def fit_presence(
    described: NDArray[np.float32],
    present: NDArray[np.bool_],
    groups: Sequence[str],
    names: Sequence[str] = CHOSEN,
    ridge: float = 1e-2,
) -> PresenceFit:
    """Logistic regression by Newton's method.

    Args:
        described: ``[E, D]`` descriptors of episodes, columns in the order of ``DESCRIPTORS``.
        present: ``[E]`` whether the query shows the class.
        groups: ``[E]`` data set of each; sets count alike, whatever their size.
        names: descriptors to use.
        ridge: weight decay of the coefficients in standard units, bias excepted.
    """
    order = list(DESCRIPTORS)
    raw = described[:, [order.index(name) for name in names]].astype(np.float64)
    mean, scale = raw.mean(0), np.maximum(raw.std(0), 1e-6)
    inputs = np.concatenate([(raw - mean) / scale, np.ones((len(raw), 1))], 1)
    labels = np.asarray(groups)
    weight = np.zeros(len(raw))
    for name in np.unique(labels):
        for value in (True, False):
            rows = (labels == name) & (present == value)
            weight[rows] = 1 / max(1, rows.sum())
    weight *= 1 / weight.sum()
    decay = np.full(inputs.shape[1], ridge)
    decay[-1] = 0.0
    coefficients = np.zeros(inputs.shape[1])
    for _ in range(50):
        score = 1 / (1 + np.exp(-inputs @ coefficients))
        gradient = inputs.T @ (weight * (score - present)) + decay * coefficients
        curvature = (inputs * (weight * score * (1 - score))[:, None]).T @ inputs + np.diag(
            decay + 1e-9
        )
        step = np.linalg.solve(curvature, gradient)
        coefficients -= step
        if np.abs(step).max() < 1e-9:
            break
    settings = {
        "names": list(names),
        "mean": [round(float(v), 6) for v in mean],
        "scale": [round(float(v), 6) for v in scale],
        "weights": [round(float(v), 6) for v in coefficients[:-1]],
        "bias": round(float(coefficients[-1]), 6),
        "threshold": THRESHOLD,
    }
    return PresenceFit(settings, 1 / (1 + np.exp(-inputs @ coefficients)))


def calibrate(
    checkpoint: Path | str,
    samples: Sequence[Sample],
    side: int,
    background_parts: int,
    refine_weak: bool,
) -> str:
    """Fit the score on pictures of ``samples`` and store it with the method in the checkpoint.

    Half the queries lack the class; half of those come from the support's own set, half from any.
    ``background_parts`` and ``refine_weak`` become the method's settings; both are the runtime's
    (`fsseg_sdk.methods.panet.PanetSettings`), no part of the training. A method that makes no match
    (oslsm) judges presence by its own answer and has neither.
    Returns a sentence with what the fit does on the episodes that it was made from.

    Raises:
        ValueError: too few episodes.
    """
    encoder, header = trained_encoder(checkpoint)
    method = get_method(header["method"]["name"])
    graph = RememberingGraph(TorchGraph(encoder, (side, side)))
    grid = (int(graph.outputs[0].shape[2]), int(graph.outputs[0].shape[3]))
    graphs: dict[str, Any] = {"encoder": graph}
    judge, names = header["method"], CHOSEN
    settings, matched = _judging(header["method"])
    if matched:
        settings.update(background_parts=background_parts, refine_weak=refine_weak)
        if method.graphs:  # a head has no say in presence, so the match alone will do
            judge = {"name": "panet", "settings": settings}
    else:
        graphs |= head_graphs(checkpoint, method.name, grid)
        names = CHOSEN_OF_LOGITS
    entry = {
        "method": judge,
        "input": {
            "size": [side, side],
            "geometry": "squash",
            "mean": list(encoder.mean),
            "std": list(encoder.std),
        },
        "features": {"channels": encoder.channels, "grid": list(grid)},
    }
    episodes = calibration_episodes(samples)
    if len(episodes) < FEWEST:
        raise ValueError(
            f"expected pictures for {FEWEST} episodes with and without a class, got "
            f"{len(episodes)}. Classes need two pictures, and a picture that does not show them."
        )
    outcome = evaluate(Segmenter(graphs, entry), episodes, "presence")
    present = np.array([not episode.absent for episode in episodes])
    fit = fit_presence(outcome.described, present, [e.dataset for e in episodes], names)
    settings["presence"] = fit.settings
    # what the runtime would refuse must not take the place of what it takes
    settings_from_json(method.settings_type, header["method"]["settings"], "method.settings")
    tensors, _ = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, tensors, header)
    return (
        f"{len(episodes)} episodes of {len({e.dataset for e in episodes})} sets: AUROC "
        f"{auroc(fit.scores, present):.3f}, calibration error "
        f"{calibration_error(fit.scores, present):.3f}; stored in {checkpoint}"
    )


def _judging(method: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The part of a manifest's method entry that presence belongs to, made if it is not there, and
    whether that is the settings of a match."""
    stored: dict[str, Any] = method["settings"]
    known = {field.name for field in fields(get_method(method["name"]).settings_type)}
    if "panet" in known:
        own: dict[str, Any] = stored.setdefault("panet", {})
        return own, True
    return stored, "background_parts" in known


def calibration_episodes(samples: Sequence[Sample], pictures: int = 120) -> list[Episode]:
    """Up to ``pictures`` queries of each set, with and without the class."""
    episodes: list[Episode] = []
    for name in sorted({sample.dataset for sample in samples}):
        own = [sample for sample in samples if sample.dataset == name]
        found = list_episodes(own, ProtocolSettings(pictures=pictures, classes=2))
        episodes += with_absent(found[::2], samples, source="own")
        episodes += with_absent(found[1::2], samples, source="any")
    return episodes
