"""A model repository for Triton Inference Server: one model for each graph of a bundle.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md;
the fields are those of ModelConfig in triton-inference-server/common, protobuf/model_config.proto.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsseg_sdk.backends import GraphFile, GraphSpec, TensorInfo

MOST_PICTURES = 8  # of one call, of an ONNX file that takes any number
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64"}


@dataclass(frozen=True)
class Model:
    """One model. plan: whether `data` is a TensorRT engine; else it is ONNX. most: pictures of one
    call, where their number is free."""

    name: str
    spec: GraphSpec
    data: bytes
    plan: bool = False
    most: int = MOST_PICTURES

    @property
    def config(self) -> str:
        """config.pbtxt. Where all inputs and outputs share a free first axis Triton may put several
        requests into one call; elsewhere the shapes are given whole."""
        infos = (*self.spec.inputs, *self.spec.outputs)
        batched = all(info.shape[:1] == (-1,) for info in infos) and len(self.spec.inputs) == 1
        lines = [
            f'name: "{self.name}"',
            f'platform: "{"tensorrt_plan" if self.plan else "onnxruntime_onnx"}"',
            f"max_batch_size: {self.most if batched else 0}",
        ]
        for key, tensors in (("input", self.spec.inputs), ("output", self.spec.outputs)):
            entries = ",\n".join(_tensor(info, batched) for info in tensors)
            lines.append(f"{key} [\n{entries}\n]")
        if batched:
            lines.append("dynamic_batching { max_queue_delay_microseconds: 0 }")
        return "\n".join(lines) + "\n"


def _tensor(info: TensorInfo, batched: bool) -> str:
    dims = ", ".join(map(str, info.shape[1:] if batched else info.shape))
    return (
        f'  {{\n    name: "{info.name}"\n    data_type: {_TYPES[info.dtype]}\n'
        f"    dims: [ {dims} ]\n  }}"
    )


def models_of(
    name: str,
    specs: Mapping[str, GraphSpec],
    files: Mapping[str, list[tuple[GraphFile, bytes]]],
    plans: Mapping[str, bytes] | None = None,
    batch: int = MOST_PICTURES,
) -> list[Model]:
    """A model for each file of each graph, named after the bundle, the graph and, where there are
    several, the file.

    Args:
        plans: engines by the name of the ONNX file that they were built of; they take its place.
        batch: pictures of one call, at most, that the engines are built for.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    models = []
    for graph, kinds in files.items():
        for file, data in kinds:
            kind = f"_{file.compute}{file.flavour and '-' + file.flavour}" if len(kinds) > 1 else ""
            plan = (plans or {}).get(file.file)
            own = specs[graph].only(file)
            label = f"{safe}_{graph}{kind}"
            if plan is None:
                models.append(Model(label, own, data))
            else:
                models.append(Model(label, own, plan, plan=True, most=batch))
    return models


def write_repository(
    folder: Path, models: list[Model], preprocessing: Mapping[str, Any]
) -> list[Path]:
    """Write the models below `folder`, and beside each encoder's what its input is.

    preprocessing: "input" of the bundle's manifest. Raises FileExistsError where a model is there.
    """
    for model in models:
        if (folder / model.name).exists():
            raise FileExistsError(
                f"--triton: {model.name} is in {folder.name!r} already; remove it, or name "
                "a new folder"
            )
    written = []
    for model in models:
        place = folder / model.name
        (place / "1").mkdir(parents=True)
        file = place / "1" / ("model.plan" if model.plan else "model.onnx")
        file.write_bytes(model.data)
        (place / "config.pbtxt").write_text(model.config)
        if model.spec.inputs[0].name == "image":
            (place / "preprocessing.json").write_text(json.dumps(dict(preprocessing), indent=1))
        written += [file, place / "config.pbtxt"]
    return written
