"""``python -m benchmarks gpu providers``: the shipped bundle by runtimes that may be installed.

ONNX Runtime's CUDA provider with inputs and outputs bound to the device's memory, and each backend
that `fsseg doctor` finds on a GPU (TensorRT-RTX with them) through ``Segmenter.load``. Labels are
compared with those of the CPU. Whatever is not installed is said, and is no failure.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_device import Device
from benchmarks.gpu_pipeline import wall
from benchmarks.gpu_query import overlap
from benchmarks.pictures import SCREEN, pictures_of
from fsseg_sdk import Segmenter
from fsseg_sdk.backends.onnxruntime import CUDA, preload_cuda
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.errors import FssegError
from fsseg_sdk.segmenter import find_bundle

FPS = 2300.0  # of the default bundle, fp16, batch 1


def bound_session(device: Device) -> dict[str, Any]:
    """The encoder of the default bundle in ONNX Runtime, on CUDA, between bound tensors."""
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        return {"skipped": str(error)}
    if CUDA not in runtime.get_available_providers():
        return {"skipped": f"onnxruntime {runtime.__version__} has no {CUDA}"}
    preload_cuda(runtime)
    bundle = Bundle.open(find_bundle("default"))
    spec = bundle.manifest.graphs["encoder"]
    data = bytes(bundle.member(spec.file))
    image = torch.randn(
        [1, *spec.inputs[0].shape[1:]], generator=device.generator(0), device=device.kind
    )
    plain = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = spec.outputs[0].name
    expected = plain.run([name], {spec.inputs[0].name: image.cpu().numpy()})[0]
    result: dict[str, Any] = {"version": runtime.__version__, "right": True}
    for kind in ("plain", "graph"):
        settings = {"use_tf32": "0", "enable_cuda_graph": str(int(kind == "graph"))}
        session = runtime.InferenceSession(data, providers=[(CUDA, settings)])
        if CUDA not in session.get_providers():
            return {**result, "right": False, "failure": "the session fell back to the CPU"}
        features = torch.zeros(expected.shape, device=device.kind)
        binding = session.io_binding()
        float32 = np.float32
        binding.bind_input(
            spec.inputs[0].name, "cuda", 0, float32, tuple(image.shape), image.data_ptr()
        )
        binding.bind_output(name, "cuda", 0, float32, tuple(features.shape), features.data_ptr())
        device.synchronize()
        call = partial(_run, session, binding)
        call()
        off = np.linalg.norm(features.cpu().numpy() - expected) / np.linalg.norm(expected)
        result[kind] = {"error": float(off), "seconds": wall(call, 1)}
        result["right"] = result["right"] and bool(off < 1e-3)
    return result


def _run(session: Any, binding: Any) -> None:
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def segmenter(backend: str, precision: str) -> dict[str, Any]:
    """The default bundle through the SDK at 1920x1080; FssegError where it cannot be had."""
    pictures = pictures_of(SCREEN)
    shots = {"bolt": [(pictures.support, pictures.mask)]}
    on_host = Segmenter.load("default", device="cpu").prepare(shots)
    expected = np.asarray(on_host.segment(pictures.query).raw_labels)
    loaded = Segmenter.load("default", backend=backend, device="cuda", precision=precision)
    task = loaded.prepare(shots)
    result = task.segment(pictures.query)
    row: dict[str, Any] = {
        "iou": overlap(np.asarray(result.raw_labels), expected),
        "timings_ms": dict(result.timings),
        "places": dict(result.places),
        "warnings": list(result.warnings),
    }
    row["right"] = row["iou"] >= (0.99 if precision == "fp32" else 0.97)
    for batch in (1, 8):
        call = partial(task.segment_batch, [pictures.query] * batch, batch=batch)
        row[f"fps_batch_{batch}"] = 1 / wall(call, batch)
    return row


def run(device: Device, limits: dict[str, float]) -> dict[str, Any]:
    result: dict[str, Any] = {"rows": {}}
    if device.emulated:
        result |= {"bound": {"skipped": "no GPU"}, "passed": True}
        return result
    result["bound"] = _tried(partial(bound_session, device))
    for backend in ("onnxruntime", "tensorrt-rtx", "tensorrt"):
        for precision in ("fp32", "fp16"):
            row = _tried(partial(segmenter, backend, precision))
            result["rows"][f"{backend} {precision}"] = row
            print(f"{backend} {precision}: {row}", flush=True)
    rows = [result["bound"], *result["rows"].values()]
    result["passed"] = all(row.get("right", "skipped" in row) for row in rows)
    return result


def _tried(part: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = part()
    except FssegError as error:  # the SDK says what is missing
        return {"skipped": str(error)}
    except Exception as error:  # noqa: BLE001 - of runtimes of others; the next one is tried
        return {"right": False, "failure": f"{type(error).__name__}: {error}"}
    return found


def table(result: dict[str, Any]) -> list[list[str]]:
    cells = [["default bundle", "agrees", "batch 1", "batch 8", "remark"]]
    bound = result["bound"]
    for kind in ("plain", "graph"):
        if kind in bound:
            error, seconds = f"{bound[kind]['error']:.1e}", bound[kind]["seconds"]
            name = f"ONNX Runtime CUDA, bound, {kind}"
            cells.append([name, error, f"{seconds * 1e6:.0f} us", "-", "encoder alone, fp32"])
    cells += [["ONNX Runtime CUDA, bound", *said] for said in _remarks(bound)]
    for name, row in result["rows"].items():
        if "iou" in row:
            speeds = [f"{row[f'fps_batch_{batch}']:.0f} FPS" for batch in (1, 8)]
            verdict = "yes" if row["fps_batch_1"] >= FPS else "NO"
            target = f"target {FPS:g} FPS: {verdict}" if name.endswith("fp16") else ""
            wrong = "" if row["right"] else " WRONG"
            cells.append([name, f"IoU {row['iou']:.4f}{wrong}", *speeds, target])
        cells += [[name, *said] for said in _remarks(row)]
    return cells


def _remarks(row: dict[str, Any]) -> list[list[str]]:
    said = [("skipped", row.get("skipped")), ("FAILED", row.get("failure"))]
    return [[word, "-", "-", text.splitlines()[0][:120]] for word, text in said if text]
