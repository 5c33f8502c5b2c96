"""``python -m benchmarks gpu online_mlp``: the online classifier beside its training loop in torch.

7,200 cells of two maps, 1,024 channels, 300 hidden units, 2 classes, 10 iterations: 88.5 GFLOP in
the two large products. The loop is benchmarks.online_mlp's, on the device. Before anything is
timed, losses and labels are compared with the loop in double precision with the same dropout masks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import online_mlp as shapes
from benchmarks.gpu_device import Device
from benchmarks.online_mlp import CLASSES, DROPOUT, MOMENTUM, RATE
from fsseg_sdk import ops
from fsseg_sdk.ops.counter import dropout_mask

TARGETS_MS = (0.4, 0.6)  # of bf16: with Hopper's instructions, and portable
TARGETS = {"fp32": 4.0, "bf16": 2.0}
BASELINES = (
    "Baselines: torch.nn.Linear, ReLU, dropout 0.5 (torch's layer) or none, log_softmax, backward, "
    "torch.optim.SGD with momentum; all iterations in one CUDA graph ('graph') or as called "
    "('eager'). fp32: TF32 off. tf32: fp32 with TF32 allowed. bf16: autocast to bfloat16. "
    "Parameters are float32 and there are no input gradients anywhere."
)


class Inputs:
    """Two maps whose cells belong to two classes that can nearly be told apart, and a query."""

    def __init__(self, device: Device, channels: int, side: int, hidden: int, steps: int) -> None:
        rng = np.random.default_rng(0)
        self.channels, self.side, self.hidden, self.steps = channels, side, hidden, steps
        centres = rng.standard_normal((CLASSES, channels), dtype=np.float32)
        classes = rng.integers(0, CLASSES, (3, side, side))
        noise = rng.standard_normal((3, channels, side, side), dtype=np.float32)
        maps = noise * (9 if channels > 512 else 2) + centres[classes].transpose(0, 3, 1, 2)
        maps /= np.linalg.norm(maps, axis=1, keepdims=True) / 3.0
        one = (classes[:2, None] == np.arange(CLASSES)[None, :, None, None]).astype(np.float32)
        targets = one / (CLASSES * one.sum(axis=(0, 2, 3), keepdims=True))
        self.start = ops.online_mlp_start(channels, hidden, CLASSES)
        there = partial(torch.tensor, device=device.kind)
        self.maps, self.query, self.targets = there(maps[:2]), there(maps[2:]), there(targets)
        cells = 2 * side * side
        self.x = self.maps.permute(0, 2, 3, 1).reshape(cells, channels).contiguous()
        self.t = self.targets.permute(0, 2, 3, 1).reshape(cells, CLASSES).contiguous()
        self.masks = [
            there(dropout_mask(0, i, np.arange(cells), hidden, DROPOUT).astype(np.float32) * 2)
            for i in range(steps)
        ]
        self.first = [there(array) for array in self.start]
        self.there = ops.Mlp(*(device.array(t) for t in self.first))

    def fit(self, device: Device, dropout: float, precision: str, dtype: torch.dtype) -> Any:
        """The op, ready to be called: features of this dtype."""
        samples = [(device.array(self.maps.to(dtype)), device.array(self.targets))]
        return partial(
            ops.online_mlp_fit,
            samples,
            self.there,
            iterations=self.steps,
            learning_rate=RATE,
            momentum=MOMENTUM,
            dropout=dropout,
            precision=precision,
        )


def loop(given: Inputs, dropout: str, kind: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The loop as one writes it; weights, losses. dropout: "none", "layer" or "masks".

    kind: "fp64", "fp32", or "bf16", which is autocast.
    """
    dtype = torch.float64 if kind == "fp64" else torch.float32
    x, t = given.x.to(dtype), given.t.to(dtype)
    w1, b1, w2, b2 = weights = [p.to(dtype).clone().requires_grad_() for p in given.first]
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM)
    losses = []
    for iteration in range(given.steps):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind == "bf16"):
            hidden = torch.relu(torch.nn.functional.linear(x, w1, b1))
            if dropout == "layer":
                hidden = torch.nn.functional.dropout(hidden, DROPOUT)
            elif dropout == "masks":
                hidden = hidden * given.masks[iteration].to(dtype)
            logits = torch.nn.functional.linear(hidden, w2, b2)
        loss = -(t * torch.log_softmax(logits.to(dtype), dim=1)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return [p.detach() for p in weights], torch.stack(losses)


def check(device: Device, given: Inputs) -> dict[str, Any]:
    """Losses and labels against the loop in double, both with the same masks."""
    weights, losses = loop(given, "masks", "fp64")
    w1, b1, w2, b2 = weights
    x = given.query.double().reshape(given.channels, -1)
    expected = (w2 @ torch.relu(w1 @ x + b1[:, None]) + b2[:, None]).argmax(0).cpu().numpy()
    query, true = device.array(given.query), losses.cpu().numpy()
    found: dict[str, Any] = {}
    for precision, dtype in _KINDS:
        fitted = given.fit(device, DROPOUT, precision, dtype)()
        scores: Any = ops.online_mlp_scores(query, fitted.mlp, precision=precision)
        labels = scores.to_host()[0].argmax(axis=0).reshape(-1)
        overlap = min(
            float(np.sum((labels == k) & (expected == k)) / np.sum((labels == k) | (expected == k)))
            for k in range(CLASSES)
        )
        error = float(np.max(np.abs(fitted.losses.to_host() / true - 1)))
        right = error <= 1e-2 and overlap >= (0.99 if not device.emulated else 0.9)
        found[_name(precision, dtype)] = {"labels": overlap, "losses": error, "right": right}
    return found


_KINDS = (
    ("fp32", torch.float32),
    ("bf16", torch.float32),
    ("fp32", torch.float16),
    ("bf16", torch.float16),
)


def _name(precision: str, dtype: torch.dtype) -> str:
    return f"{precision} of {'fp16' if dtype == torch.float16 else 'fp32'} features"


def run(device: Device, limits: dict[str, float]) -> dict[str, Any]:
    tiny = device.emulated
    sizes = (40, 6, 12, 3) if tiny else (shapes.CHANNELS, shapes.SIDE, shapes.HIDDEN, 10)
    given = Inputs(device, *sizes)
    errors = check(device, given)
    result: dict[str, Any] = {
        "sizes": dict(zip(("channels", "side", "hidden", "iterations"), sizes, strict=True)),
        "flops": 4.0 * given.steps * given.x.numel() * given.hidden,
        "check": errors,
        "passed": all(row["right"] for row in errors.values()),
        "baselines": BASELINES,
        "seconds": {},
        "failures": {},
    }
    for kind in ("fp32", "bf16"):  # torch's own agreement, to be seen beside ours
        true = loop(given, "masks", "fp64")[1]
        off = (loop(given, "masks", kind)[1].double() / true - 1).abs().max()
        result["check"][f"torch {kind}"] = {"losses": float(off), "right": True}
    if not device.timed or not result["passed"]:
        return result
    seconds = result["seconds"]
    for precision, dtype in _KINDS:
        for name, dropout in (("dropout 0.5", DROPOUT), ("no dropout", 0.0)):
            call = given.fit(device, dropout, precision, dtype)
            seconds[f"{_name(precision, dtype)}, {name}"] = device.graph_seconds([call], 4)
    for kind in ("fp32", "tf32", "bf16"):
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        for name, layer in (("dropout 0.5", "layer"), ("no dropout", "none")):
            call = partial(loop, given, layer, "bf16" if kind == "bf16" else "fp32")
            timings = {
                "graph": partial(device.graph_seconds, [call], 1),
                "eager": partial(device.event_seconds, call, 2),
            }
            for form, timing in timings.items():
                label = f"torch loop {kind} {form}, {name}"
                try:
                    seconds[label] = timing()
                except RuntimeError as error:
                    result["failures"][label] = str(error)
        torch.backends.cuda.matmul.allow_tf32 = False
    result["ratios"] = _ratios(seconds)
    result["rates"] = {
        name: result["flops"] / s for name, s in seconds.items() if "torch" not in name
    }
    result["of_matrix_rate"] = {
        name: rate / limits[name[:4]] for name, rate in result["rates"].items()
    }
    return result


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    """The loop under a CUDA graph over the op, of the same precision and dropout."""
    found = {}
    for name in ("dropout 0.5", "no dropout"):
        for kind in TARGETS:
            theirs = seconds.get(f"torch loop {kind} graph, {name}")
            if theirs is not None:
                ours = seconds[f"{kind} of fp32 features, {name}"]
                found[f"{kind} graph, {name}"] = theirs / ours
    return found


def table(result: dict[str, Any]) -> list[list[str]]:
    cells = [["online_mlp", "labels' IoU", "losses off by"]]
    for name, row in result["check"].items():
        overlap = f"{row['labels']:.4f}" if "labels" in row else "-"
        wrong = "" if row["right"] else " WRONG"
        cells.append([name, overlap, f"{row['losses']:.1e}{wrong}"])
    for name, seconds in result["seconds"].items():
        kind = name[:4]
        rate = f"{result['flops'] / seconds / 1e12:.1f} TFLOP/s"
        if name in result["rates"]:
            rate += f", {100 * result['of_matrix_rate'][name]:.0f} % of torch.mm's {kind}"
            if kind == "bf16":
                rate += f" (targets {TARGETS_MS[0]:g} and {TARGETS_MS[1]:g} ms)"
        cells.append([name, f"{seconds * 1e3:.3f} ms", rate])
    for name, ratio in result.get("ratios", {}).items():
        target = TARGETS[name[:4]]
        verdict = "yes" if ratio >= target else "NO"
        cells.append([f"torch loop {name}", f"{ratio:.2f}x", f"target {target:g}x: {verdict}"])
    for name, said in result["failures"].items():
        cells.append([name, "failed", said.splitlines()[0][:80]])
    return cells
