"""``python -m benchmarks gpu pipeline``: from a frame to its labels, encoder in torch.

Twice: the ops themselves and the encoder as one CUDA graph, and through ``Segmenter``. Labels are
compared with those of the CPU in float32 before anything is timed.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as tf

from benchmarks.gpu_baselines import cosine_similarity
from benchmarks.gpu_device import SHORT, Device
from benchmarks.gpu_encoder import (
    MEAN,
    STD,
    DeviceEncoder,
    HostEncoder,
    calibrated,
    features_of,
    folded,
)
from benchmarks.gpu_query import Host, Query, overlap
from benchmarks.pictures import Pictures, pictures_of
from fsseg_sdk import Segmenter, backends, ops

LEAST = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.0}  # IoU with the CPU's labels
FPS = {"panet": 1000.0, "srofb": 650.0}  # of a query, fp16, batch 1
BESIDE_US, BESIDE_SHARE = 30.0, 0.05  # of panet, beside the encoder
EAGER = {1: 6.0, 8: 20.0}
SECONDS = 0.4
BASELINES = (
    "Encoder: ResNet-50, layers 1 to 3, torch, norms folded, channels last in fp16 and bf16, TF32 "
    "off, cuDNN's own choice of algorithms. 'eager' is the published form in the same dtype: norms "
    "not folded, planes first, torch's antialiased resizing, cosine_similarity for each prototype, "
    "interpolate and argmax, one picture after another, labels copied to the host. "
    "Through Segmenter features are float32; 'device frames': frames and labels stay on the "
    "device; 'graph': the SDK has recorded the query, or its encoder, and replays that."
)


@dataclass(frozen=True)
class Form:
    """side: of the encoder's input. dtypes of the encoder; sizes of the pictures; batch lengths."""

    side: int = 473
    hidden: int = 300
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16)
    sizes: tuple[tuple[int, int], ...] = ((473, 473), (1080, 1920))
    batches: tuple[int, ...] = (1, 8)


TINY = Form(40, 12, (torch.float32, torch.float16), ((54, 96),), (1, 2))


def _on_host(labels: Any) -> Any:
    return labels.to_host() if isinstance(labels, ops.DeviceArray) else np.asarray(labels)


def _waited(device: Device, call: Any) -> None:
    found = call()
    if isinstance(found[0].raw_labels, ops.DeviceArray):
        device.wait()


def masks_of(pictures: Pictures) -> Any:
    return np.stack([1 - pictures.mask, pictures.mask]).astype(np.uint8)


def wall(call: Any, batch: int) -> float:
    """Seconds of a picture: the median of calls that end with labels on the host."""
    times: list[float] = []
    for _ in range(3):
        call()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) / batch


def published(
    encoder: Any,
    dtype: torch.dtype,
    frames: torch.Tensor,
    prototypes: Any,
    side: int,
    size: tuple[int, int],
    mean: torch.Tensor,
    std: torch.Tensor,
) -> Any:
    """One picture after another; frames: pinned uint8 [B, H, W, 3]."""
    found = []
    with torch.no_grad():
        for frame in frames:
            image = frame.to(prototypes.device, non_blocking=True).permute(2, 0, 1)[None].float()
            small = tf.interpolate(
                image / 255, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
            features = encoder(((small - mean) / std).to(dtype))
            scores = cosine_similarity({"features": features, "prototypes": prototypes})
            large = tf.interpolate(scores, size=size, mode="bilinear", align_corners=False)
            found.append(large.argmax(1).to(torch.uint8).cpu())
    return torch.cat(found).numpy()


class Bench:
    """One dtype and picture size: the queries of the CPU and of the device."""

    def __init__(self, device: Device, encoder: Any, form: Form, size: tuple[int, int]) -> None:
        self.device, self.plain, self.form, self.size = device, encoder, form, size
        self.pictures = pictures_of(size)
        host = folded(encoder, torch.float32, device, form.side).to("cpu")
        given = (self.pictures.support, masks_of(self.pictures))
        on_host = Query(Host(), host, torch.float32, form.side, form.hidden, given)
        self.expected = {m: on_host.labels(m, [self.pictures.query], size) for m in FPS}
        self.host = host

    def rows(self, dtype: torch.dtype) -> list[dict[str, Any]]:
        device, form = self.device, self.form
        encoder = folded(self.plain, dtype, device, form.side)
        there = [
            device.array(torch.tensor(a, device=device.kind))
            for a in (self.pictures.support, masks_of(self.pictures))
        ]
        query = Query(device, encoder, dtype, form.side, form.hidden, there)
        found = []
        for batch in form.batches:
            for method in FPS:
                found.append(self._row(query, method, batch, dtype))
                print(_said(found[-1]), flush=True)
        return found

    def _row(self, query: Query, method: str, batch: int, dtype: torch.dtype) -> dict[str, Any]:
        device = self.device
        given = torch.from_numpy(self.pictures.query)[None].repeat(batch, 1, 1, 1)
        given = device.pinned(given)
        frames = given.to(device.kind).clone()
        seen = [device.array(frame) for frame in frames]
        call = partial(query.labels, method, seen, self.size)
        labels = call().to_host()
        least = min(overlap(own, self.expected[method][0]) for own in labels)
        row: dict[str, Any] = {
            "method": method,
            "size": "x".join(map(str, self.size[::-1])),
            "dtype": SHORT[dtype],
            "batch": batch,
            "iou": least,
            "object": float((self.expected[method] == 1).mean()),
            "right": least >= (LEAST[SHORT[dtype]] if not device.emulated else 0.9),
        }
        if not device.timed:
            return row
        graph, result = device.captured(call)
        back = device.pinned(torch.empty(tuple(result.shape), dtype=torch.uint8))
        result_there = device.tensor(result)

        def whole() -> None:
            frames.copy_(given, non_blocking=True)
            graph.replay()
            back.copy_(result_there, non_blocking=True)
            device.wait()

        whole()
        row["replayed_iou"] = overlap(back.numpy(), labels)
        row["right"] = row["right"] and row["replayed_iou"] >= 0.999
        row["query_s"] = device.event_seconds(graph.replay, 4) / batch
        row["end_to_end_s"] = wall(whole, batch)
        row["fps"] = 1 / row["end_to_end_s"]
        encoding = partial(features_of, query.encoder, query.images(seen).clone(), dtype)
        row["encoder_s"] = device.event_seconds(device.captured(encoding)[0].replay, 4) / batch
        row["beside_s"] = self._beside(query, method, seen) / batch
        if method == "panet":
            row["eager_s"] = self._eager(query, given, dtype) / batch
            row["times_eager"] = row["eager_s"] / row["end_to_end_s"]
        return row

    def _beside(self, query: Query, method: str, seen: list[Any]) -> float:
        maps = features_of(query.encoder, query.images(seen), query.dtype).clone()

        def rest() -> Any:
            query.images(seen)
            scores = query.scores(method, query.where.array(maps), maps)
            return ops.upsample_argmax(scores, self.size)

        return self.device.event_seconds(self.device.captured(rest)[0].replay, 4)

    def _eager(self, query: Query, given: torch.Tensor, dtype: torch.dtype) -> float:
        kind = self.device.kind
        encoder = copy.deepcopy(self.plain).to(kind, dtype)
        mean, std = (torch.tensor(v, device=kind)[None, :, None, None] for v in (MEAN, STD))
        prototypes = self.device.tensor(query.prototypes).to(dtype)
        size, side = self.size, self.form.side
        return wall(lambda: published(encoder, dtype, given, prototypes, side, size, mean, std), 1)

    # ---- through the SDK ----
    def segmenters(self, dtype: torch.dtype) -> list[dict[str, Any]]:
        """Empty where the SDK matches on the host alone."""
        found = []
        for method in FPS:
            on_host = self._task(HostEncoder(self.host, self.form.side), method)
            expected = np.asarray(on_host.segment(self.pictures.query).raw_labels)
            encoder = folded(self.plain, dtype, self.device, self.form.side)
            graph = DeviceEncoder(encoder, dtype, self.device, self.form.side)
            task = self._task(graph, method)
            frame = self.device.array(torch.tensor(self.pictures.query, device=self.device.kind))
            kinds = {"": ([self.pictures.query], "host"), ", device frames": ([frame], "device")}
            for batch, (kind, (one, output)) in product(self.form.batches, kinds.items()):
                call = partial(task.segment_batch, one * batch, batch=batch, output=output)
                for _ in range(3):  # the third is recorded and replayed
                    results = call()
                least = min(overlap(_on_host(r.raw_labels), expected) for r in results)
                row: dict[str, Any] = {
                    "method": f"Segmenter, {method}{kind}",
                    "size": "x".join(map(str, self.size[::-1])),
                    "dtype": SHORT[dtype],
                    "batch": batch,
                    "iou": least,
                    "object": float((expected == 1).mean()),
                    "right": least >= (LEAST[SHORT[dtype]] if not self.device.emulated else 0.9),
                    "warnings": list(results[0].warnings),
                    "replayed": results[0].places.get("replayed", ""),
                }
                if row["replayed"]:
                    row["method"] += ", graph"
                if self.device.timed:
                    row["end_to_end_s"] = wall(partial(_waited, self.device, call), batch)
                    row["fps"] = 1 / row["end_to_end_s"]
                print(_said(row), flush=True)
                found.append(row)
        return found

    def _task(self, graph: Any, method: str) -> Any:
        side, shape = self.form.side, graph.outputs[0].shape
        settings: dict[str, Any] = {
            "name": "the benchmark's",
            "method": {"name": method},
            "input": {"size": [side, side], "geometry": "squash"},
            "features": {"channels": shape[1], "grid": list(shape[2:])},
        }
        settings["input"] |= {"mean": list(MEAN), "std": list(STD)}
        segmenter = Segmenter({"encoder": graph}, settings)
        return segmenter.prepare({"bolt": [(self.pictures.support, self.pictures.mask)]})


def run(device: Device, limits: dict[str, float]) -> dict[str, Any]:
    form = TINY if device.emulated else Form()
    if not device.emulated:
        torch.backends.cudnn.benchmark = True
    small = pictures_of((form.side, form.side))
    encoder = calibrated(device.emulated, form.side, [small.support, small.query])
    sdk = hasattr(backends, "DeviceGraph")
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows, "baselines": BASELINES, "failures": {}}
    for size in form.sizes:
        bench = Bench(device, encoder, form, size)
        # large pictures in one dtype: the encoder's input is the same
        for dtype in form.dtypes if size == form.sizes[0] else (torch.float16,):
            parts = {"ops": bench.rows, **({"Segmenter": bench.segmenters} if sdk else {})}
            for name, part in parts.items():
                try:
                    rows += part(dtype)
                except Exception as error:  # noqa: BLE001 - one that fails is told, others go on
                    where = f"{name} {size[1]}x{size[0]} {SHORT[dtype]}"
                    result["failures"][where] = f"{type(error).__name__}: {error}"
                    print(f"{where}: FAILED: {result['failures'][where]}", flush=True)
    if not sdk:
        result["segmenter"] = "on the device: not in this version"
    result["passed"] = bool(rows) and all(r["right"] for r in rows) and not result["failures"]
    return result


def _said(row: dict[str, Any]) -> str:
    head = f"{row['method']} {row['size']} {row['dtype']} batch {row['batch']}"
    speed = f", {row['fps']:.0f} FPS" if "fps" in row else ""
    return f"{head}: IoU with the CPU {row['iou']:.4f}{'' if row['right'] else ' WRONG'}{speed}"


def table(result: dict[str, Any]) -> list[list[str]]:
    heads = "query,picture,encoder,batch,IoU,object,us,encoder us,beside us,end to end us,FPS"
    cells = [[*heads.split(","), "x eager", "targets"]]
    first: dict[Any, float] = {}
    for row in result["rows"]:
        wrong = "" if row["right"] else " WRONG"
        line = [row["method"], row["size"], row["dtype"], str(row["batch"])]
        line += [f"{row['iou']:.4f}{wrong}", f"{100 * row['object']:.0f} %"]
        for name in ("query_s", "encoder_s", "beside_s", "end_to_end_s"):
            line.append(f"{row[name] * 1e6:.1f}" if name in row else "-")
        line.append(f"{row['fps']:.0f}" if "fps" in row else "-")
        line.append(f"{row['times_eager']:.1f}" if "times_eager" in row else "-")
        key = (row["method"], row["size"], row["dtype"])
        if row["batch"] == 1 and "fps" in row:
            first[key] = row["fps"]
        cells.append([*line, "; ".join(_verdicts(row, first.get(key)))])
    for name, said in result["failures"].items():
        cells.append([f"{name}: FAILED: {said.splitlines()[0][:100]}"])
    if "segmenter" in result:
        cells.append([f"Segmenter {result['segmenter']}"])
    return cells


def _verdicts(row: dict[str, Any], alone: float | None) -> list[str]:
    """Targets that are for this row; alone: FPS of the same at batch 1."""

    def asked(what: str, reached: bool) -> str:
        return f"{what}: {'yes' if reached else 'NO'}"

    found: list[str] = []
    if "fps" not in row or row["size"] != "473x473":
        return found
    method = row["method"].removeprefix("Segmenter, ").partition(",")[0]
    if row["dtype"] == "fp16" and row["batch"] == 1:
        found.append(asked(f"{FPS[method]:.0f} FPS", row["fps"] >= FPS[method]))
        if method == "panet" and "beside_s" in row:
            found.append(asked("30 us beside", row["beside_s"] * 1e6 <= BESIDE_US))
            share = row["beside_s"] / row["encoder_s"]
            found.append(asked("5 % of the encoder", share <= BESIDE_SHARE))
    if row["dtype"] == "fp16" and row["batch"] == 8 and alone:
        found.append(asked("3x batch 1", row["fps"] >= 3 * alone))
    if "times_eager" in row:
        least = EAGER[row["batch"]]
        found.append(asked(f"{least:g}x eager", row["times_eager"] >= least))
    return found
