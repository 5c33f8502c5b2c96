"""What a stream of queries takes, by the SDK and in published style: queries a second, memory at
most and processors, each in a process of its own (the columns of the paper's Table VIII).

At the top only the standard library is imported: what a process loads counts as its memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.smcp_model import Model

KINDS = ("SDK fp32", "SDK bf16", "panet by the SDK", "published fp32", "published bf16")


def measure_resources(model: Model, form: str, seconds: float) -> dict[str, dict[str, Any]]:
    """By kind: fps, memory_mb, processors; or why it was refused."""
    from benchmarks.fresh import run_fresh_module

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, _) in model.files.items():
            Path(folder, f"{name}.onnx").write_bytes(data)
        graphs = {
            name: [[[i.name, i.dtype, i.shape] for i in way] for way in (spec.inputs, spec.outputs)]
            for name, (_, spec) in model.files.items()
        }
        for kind in KINDS:
            found[kind] = run_fresh_module(
                "benchmarks.smcp_resources",
                kind=kind,
                folder=folder,
                graphs=graphs,
                settings=model.settings("panet" if "panet" in kind else "smcp"),
                encoder=model.name,
                head={"form": form, "width": model.head.fuse.out_channels},
                side=model.side,
                threads=model.threads,
                seconds=seconds,
            )
    return found


def sdk_query(
    kind: str, folder: str, graphs: Any, settings: Any, side: int, threads: int, **_: Any
) -> Callable[[], object]:
    """A query of a prepared task; torch is not loaded."""
    from benchmarks.pictures import pictures_of
    from fsseg_sdk import Segmenter
    from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo, open_graph

    backend, precision = ("openvino", "bf16") if "bf16" in kind else ("onnxruntime", "fp32")
    opened: dict[str, Graph] = {}
    for name, ways in graphs.items():
        if settings["method"]["name"] == "panet" and name != "encoder":
            continue
        inputs, outputs = (tuple(TensorInfo(n, d, tuple(s)) for n, d, s in way) for way in ways)
        opened[name] = open_graph(
            Path(folder, f"{name}.onnx").read_bytes(),
            GraphSpec(f"{name}.onnx", inputs, outputs),
            backend=backend,
            device="cpu",
            precision=precision,
            threads=threads,
        )
    pictures = pictures_of((side, side))
    segmenter = Segmenter(opened, settings, threads=threads)
    task = segmenter.prepare({"bolt": [(pictures.support, pictures.mask)]})
    return lambda: task.segment(pictures.query)


def published_query(
    kind: str, encoder: str, head: Any, side: int, threads: int, **_: Any
) -> Callable[[], object]:
    """A query as the paper's code does it, in torch."""
    import torch

    from benchmarks.pictures import pictures_of
    from benchmarks.smcp_model import modules
    from benchmarks.smcp_query import TYPES, published_style

    torch.set_num_threads(threads)
    return published_style(
        *modules(encoder, **head), TYPES[kind.split()[1]], pictures_of((side, side))
    )


def main(given: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.fresh import resident
    from fsseg_sdk.errors import BackendError

    make = published_query if given["kind"].startswith("published") else sdk_query
    try:
        query = make(**given)
    except BackendError as error:
        return {"refused": str(error)}
    query()
    count, begin, computed = 0, time.perf_counter(), time.process_time()
    while count < 3 or time.perf_counter() - begin < given["seconds"]:
        query()
        count += 1
    wall, busy = time.perf_counter() - begin, time.process_time() - computed
    return {"fps": count / wall, "memory_mb": resident()["most"], "processors": busy / wall}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
