"""A torch encoder as an ONNX graph with named inputs and outputs; the storage of its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET = 20  # above 20, ONNX Runtime's static int8 quantisation is not supported
SMALL = 1024  # initialisers of fewer elements (biases, norms, shapes) stay in float32


def fold_norms(module: nn.Module, *examples: Tensor) -> None:
    """Fold batch norms into the convolutions before them, as the exporter does: what is rounded
    afterwards is then what a file holds.

    Args:
        module: in evaluation mode; changed in place.
        examples: what it runs on, to see which norm follows which convolution.
    """
    convolved: dict[int, nn.Conv2d] = {}
    pairs: list[tuple[nn.Conv2d, str]] = []
    kept: list[Tensor] = []  # an identity is unique among tensors that are alive

    def after(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            kept.append(found)
            convolved[id(found)] = layer
        elif id(given[0]) in convolved:
            pairs.append((convolved[id(given[0])], names[layer]))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    names: dict[nn.Module, str] = {
        layer: name for name, layer in module.named_modules() if isinstance(layer, kinds)
    }
    hooks = [layer.register_forward_hook(after) for layer in names]
    try:
        with torch.no_grad():
            module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
    for conv, name in pairs:
        norm = module.get_submodule(name)
        fused = fuse_conv_bn_eval(conv, norm)  # type: ignore[arg-type]
        conv.weight, conv.bias = fused.weight, fused.bias
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, nn.Identity())


def round_to_half(module: nn.Module, least: int = SMALL) -> None:
    """Round the weights that are stored in float16, so that parity compares equal numbers: those of
    ``least`` elements or more.

    Raises:
        ValueError: a weight is beyond float16's range.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.numel() < least:
                continue
            rounded = parameter.half().float()
            if not bool(torch.isfinite(rounded).all()):
                largest = float(parameter.abs().max())
                raise ValueError(f"{name}: expected weights in float16's range, got {largest:.3g}")
            parameter.copy_(rounded)


def to_onnx(encoder: nn.Module, size: tuple[int, int]) -> bytes:
    """Export ``image [batch, 3, *size] -> features [batch, C, h, w]``, batch free, weights inside.

    Args:
        encoder: module in evaluation mode.
        size: (height, width) of the input; fixed, so that positions are baked in and engines built.
    """
    return graph_to_onnx(encoder, {"image": torch.zeros(2, 3, *size)}, "features", {"image"})


def graph_to_onnx(
    module: nn.Module, examples: Mapping[str, Tensor], output: str, free: Set[str]
) -> bytes:
    """Export a module in evaluation mode, weights inside. Its output's first axis is free.

    Args:
        examples: one array for each of its inputs, in order; their shapes are fixed.
        free: the inputs whose first axis is free. Its length in the example is not 1, which the
            exporter would take for a constant.
    """
    dimension = torch.export.Dim("batch", min=1, max=1024)
    shapes = tuple({0: dimension} if name in free else None for name in examples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=shapes,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        program.save(str(path), external_data=False)
        model = onnx.load(str(path))
    return _tidy(model, {output, *free}).SerializeToString()


def _tidy(model: onnx.ModelProto, free: Set[str]) -> onnx.ModelProto:
    """Drop what records the exporting machine (paths in stack traces) and name the free axis of
    these inputs and outputs."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        if value.name in free:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    del model.functions[:]
    model.producer_name, model.producer_version, model.doc_string = "fsseg_sdk", "", ""
    keep = {"": OPSET}
    used = {node.domain for node in model.graph.node}
    if used - {"", "ai.onnx"}:
        raise ValueError(f"expected standard ONNX operators only, got domains {sorted(used)}")
    del model.opset_import[:]
    model.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in keep.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def store_half(data: bytes, least: int = SMALL) -> bytes:
    """Store those float32 weights of ``least`` values or more as float16 behind a Cast that lose
    nothing by it."""
    model = onnx.load_from_string(data)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        exact = np.array_equal(half.astype(np.float32), values)
        if values.size < least or not exact:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}.float16"], [name], name=f"{name}.cast", to=TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
