"""online_mlp against torch: the eager training loop, torch.mm on the same shapes, the scores.

    taskset -c 0 python -m benchmarks online_mlp [--json FILE] [--plot FILE] [--seconds S]

One thread, medians of its CPU time; what is compared is called in turn, in one run, with the same
weights and features. 1,024 channels, two maps of 60 x 60 cells, 300 hidden units, 2 classes, 10
iterations: 88.5 GFLOP in the two large products. No input gradients on either side. Before anything
is timed, losses and scores of both are compared, with the same dropout masks: labels must agree in
99 % of the cells (intersection over union) and losses within 1 %.

"with dropout" times torch's own Dropout layer; "with these masks" multiplies by masks made before.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.baselines import two_products  # noqa: E402
from benchmarks.report import bars, where  # noqa: E402
from benchmarks.timing import aligned, machine, medians, write_json  # noqa: E402
from fsseg_sdk import ops  # noqa: E402
from fsseg_sdk.ops.counter import dropout_mask  # noqa: E402

CHANNELS, SIDE, HIDDEN, CLASSES, ITERATIONS = 1024, 60, 300, 2, 10
RATE, MOMENTUM, DROPOUT = 0.1, 0.9, 0.5
PRODUCTS = 2 * 2 * ITERATIONS * 2 * SIDE * SIDE * CHANNELS * HIDDEN  # floating-point operations

TARGETS = {  # of fp32; the two of bf16 count where the processor has AMX
    "rate of torch.mm": 1.0,
    "torch loop with dropout": 1.6,
    "torch loop without dropout": 1.15,
}
AMX_TARGETS = {"torch loop with dropout": 9.0, "torch loop without dropout": 6.5}


class Inputs:
    """Two maps whose cells belong to two classes that can nearly be told apart, and a query."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((CLASSES, CHANNELS), dtype=np.float32)
        classes = rng.integers(0, CLASSES, (3, SIDE, SIDE))
        noise = rng.standard_normal((3, CHANNELS, SIDE, SIDE), dtype=np.float32)
        maps = noise * 9 + centres[classes].transpose(0, 3, 1, 2)
        maps /= np.linalg.norm(maps, axis=1, keepdims=True) / 3.0
        self.features, self.query = aligned(maps[:2]), aligned(maps[2:])
        one = (classes[:2, None] == np.arange(CLASSES)[None, :, None, None]).astype(np.float32)
        self.targets = one / (CLASSES * one.sum(axis=(0, 2, 3), keepdims=True))
        self.mlp = ops.online_mlp_start(CHANNELS, HIDDEN, CLASSES)
        cells = self.features.transpose(0, 2, 3, 1).reshape(-1, CHANNELS)
        self.x = torch.from_numpy(np.ascontiguousarray(cells))
        self.t = torch.from_numpy(self.targets.transpose(0, 2, 3, 1).reshape(-1, CLASSES).copy())
        self.masks = [
            torch.from_numpy(
                dropout_mask(0, i, np.arange(len(cells)), HIDDEN, DROPOUT).astype(np.float32)
                / np.float32(1 - DROPOUT)
            )
            for i in range(ITERATIONS)
        ]


def twin(given: Inputs, dropout: str) -> tuple[Any, list[float]]:
    """The loop as one writes it. dropout: "none", "layer" (torch's own) or "masks"."""
    first, last = torch.nn.Linear(CHANNELS, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    with torch.no_grad():
        for layer, weight, bias in ((first, *given.mlp[:2]), (last, *given.mlp[2:])):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    model = torch.nn.Sequential(first, last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for iteration in range(ITERATIONS):
        hidden = torch.relu(first(given.x))
        if dropout == "layer":
            hidden = torch.nn.functional.dropout(hidden, DROPOUT)
        elif dropout == "masks":
            hidden = hidden * given.masks[iteration]
        loss = -(given.t * torch.log_softmax(last(hidden), dim=1)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return model, losses


def fit(given: Inputs, dropout: float, precision: str) -> ops.MlpFit:
    return ops.online_mlp_fit(
        [(given.features, given.targets)],
        given.mlp,
        iterations=ITERATIONS,
        learning_rate=RATE,
        momentum=MOMENTUM,
        dropout=dropout,
        precision=precision,
        threads=1,
    )


def fast(given: Inputs, precision: str) -> Callable[[], ops.MlpFit]:
    """256 of 3,600 cells, 3 iterations: what a budget for a query allows."""
    keep = np.zeros(SIDE * SIDE, np.float32)
    keep[np.random.default_rng(1).permutation(SIDE * SIDE)[:256]] = SIDE * SIDE / 256
    targets = given.targets[:1] * keep.reshape(1, 1, SIDE, SIDE)
    samples = [(given.features[:1], targets)]
    options: dict[str, Any] = {"precision": precision, "threads": 1}
    return partial(
        ops.online_mlp_fit, samples, given.mlp, iterations=3, learning_rate=RATE, **options
    )


def check(given: Inputs) -> dict[str, float]:
    """Losses and labels of both precisions against the twin with the same masks."""
    model, losses = twin(given, "masks")
    fitted = {precision: fit(given, DROPOUT, precision) for precision in ("fp32", "bf16")}
    with torch.no_grad():
        x = torch.from_numpy(given.query).reshape(CHANNELS, -1).T
        expected = model[1](torch.relu(model[0](x))).argmax(dim=1).numpy()
    result = {}
    for precision, found in fitted.items():
        scores = ops.online_mlp_scores(given.query, found.mlp, precision=precision, threads=1)
        labels = scores[0].argmax(axis=0).reshape(-1)
        overlap = [
            np.sum((labels == k) & (expected == k)) / np.sum((labels == k) | (expected == k))
            for k in range(CLASSES)
        ]
        error = float(np.max(np.abs(found.losses / np.array(losses) - 1)))
        if not (min(overlap) >= 0.99 and error <= 1e-2):
            raise SystemExit(f"{precision}: labels {min(overlap):.4f}, losses off by {error:.2e}")
        result[f"{precision} labels"] = float(min(overlap))
        result[f"{precision} losses"] = error
    return result


def measure(given: Inputs, seconds: float) -> dict[str, float]:
    """Seconds of each."""
    w = torch.from_numpy(given.mlp.hidden_weight)
    delta = torch.randn(len(given.x), HIDDEN)
    mlp = given.mlp
    calls: dict[str, Callable[[], object]] = {
        "torch loop with dropout": partial(twin, given, "layer"),
        "torch loop with these masks": partial(twin, given, "masks"),
        "torch loop without dropout": partial(twin, given, "none"),
        "torch.mm forward": partial(torch.mm, given.x, w.T),
        "torch.mm backward": partial(torch.mm, delta.T, given.x),
    }
    for precision in ("fp32", "bf16"):
        calls[f"{precision} with dropout"] = partial(fit, given, DROPOUT, precision)
        calls[f"{precision} without dropout"] = partial(fit, given, 0.0, precision)
    times = medians(calls, seconds, least=3, clock=time.thread_time)
    query = [torch.from_numpy(array) for array in (given.query, *mlp)]
    short: dict[str, Callable[[], object]] = {"torch scores": partial(two_products, *query)}
    for precision in ("fp32", "bf16"):
        scores = partial(ops.online_mlp_scores, given.query, mlp, precision=precision, threads=1)
        short[f"{precision} scores"] = scores
        short[f"{precision} 256 cells, 3 iterations"] = fast(given, precision)
    return {**times, **medians(short, seconds / 4, clock=time.thread_time)}


def ratios(times: dict[str, float], amx: bool) -> dict[str, dict[str, tuple[float, float | None]]]:
    """precision -> baseline -> (times faster, target or None)."""
    result: dict[str, dict[str, tuple[float, float | None]]] = {}
    pair = times["torch.mm forward"] + times["torch.mm backward"]
    for precision in ("fp32", "bf16"):
        targets = TARGETS if precision == "fp32" else (AMX_TARGETS if amx else {})
        mine = {kind: times[f"{precision} {kind}"] for kind in ("with dropout", "without dropout")}
        found = {
            "rate of torch.mm": ITERATIONS * pair / mine["without dropout"],
            "torch loop with dropout": times["torch loop with dropout"] / mine["with dropout"],
            "torch loop with these masks": times["torch loop with these masks"]
            / mine["with dropout"],
            "torch loop without dropout": times["torch loop without dropout"]
            / mine["without dropout"],
            "torch scores": times["torch scores"] / times[f"{precision} scores"],
        }
        result[precision] = {name: (ratio, targets.get(name)) for name, ratio in found.items()}
    return result


def show(times: dict[str, float], found: dict[str, Any], errors: dict[str, float]) -> None:
    for name, error in errors.items():
        print(f"  {name}: {error:.2e}" if "losses" in name else f"  {name}: IoU {error:.4f}")
    for name, seconds in times.items():
        rate = f"  {PRODUCTS / seconds / 1e9:6.0f} GFLOP/s in all" if "out dropout" in name else ""
        if name.startswith("torch.mm"):
            rate = f"  {PRODUCTS / ITERATIONS / 2 / seconds / 1e9:6.0f} GFLOP/s"
        print(f"{seconds * 1e3:9.2f} ms  {name}{rate}")
    for precision, row in found.items():
        for name, (ratio, target) in row.items():
            verdict = ""
            if target is not None:
                verdict = f"  (target {target:g}: {'yes' if ratio >= target else 'NO'})"
            print(f"{precision}: {ratio:6.2f} x {name}{verdict}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks online_mlp", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the loops, all together")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(where())
    facts = machine()
    bf16 = facts["kernels"]["bf16"]
    print(f"bf16 by {bf16}")
    given = Inputs()
    errors = check(given)
    times = measure(given, options.seconds)
    found = ratios(times, bf16 == "amx")
    show(times, found, errors)
    rows = {p: {n: r for n, (r, _) in row.items()} for p, row in found.items()}
    write_json(
        options.json,
        {"machine": facts, "check": errors, "seconds": times, "ratios": rows, "targets": TARGETS},
    )
    if options.plot:
        bars(options.plot, [("online_mlp, one thread", rows, "times faster than torch")])
    return 0
