"""Compares an ONNX file with what the manifest says of it, before a runtime parses it.

Refused: what `onnx_summary` finds malformed, inputs or outputs other than the manifest's, and a
file that is quantised in another way, or multiplies with weights of another type, than the manifest
says. What passes may still be more than a runtime can do; and a runtime has bugs of its own
(docs/security.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..fields import Refusal
from .graph import GraphSpec, TensorInfo
from .onnx_summary import OnnxSummary, summarise
from .protobuf import MalformedError

__all__ = ["OnnxSummary", "check_onnx"]


def check_onnx(data: bytes, spec: GraphSpec, refuse: Refusal) -> OnnxSummary:
    """Checks the ONNX file `data` against `spec`; raises what `refuse` makes, naming the file.
    Costs milliseconds."""
    part = f"member {spec.file!r}"
    try:
        summary = summarise(data)
    except MalformedError as error:
        raise refuse(
            part, expected="an ONNX graph of plain tensors in one file", got=str(error)
        ) from None
    for what, declared, found in (
        ("inputs", spec.inputs, summary.inputs),
        ("outputs", spec.outputs, summary.outputs),
    ):
        if sorted(info.name for info in declared) != sorted(info.name for info in found):
            raise refuse(part, expected=f"{what} {_names(declared)}", got=_names(found))
        by_name = {info.name: info for info in found}
        for info in declared:
            if not _serves(by_name[info.name], info):
                raise refuse(part, expected=f"{info}", got=f"{by_name[info.name]}")
    right = (spec.flavour,) if spec.flavour else ("s8s8", "u8s8", "mixed")
    if summary.quantised not in (right if spec.compute == "int8" else ("",)):
        raise refuse(
            part,
            expected=f"a graph that computes in {spec.compute} {spec.flavour}".rstrip(),
            got=f"one with {summary.quantised or 'no'} quantised activations",
        )
    # Some layers may stay in float32, whatever the rest computes in.
    own, products = {spec.compute}, summary.products
    if spec.compute != "int8" and products and not own <= products <= own | {"float32"}:
        raise refuse(
            part,
            expected=f"a graph that computes in {spec.compute}",
            got=f"one that multiplies with weights in {', '.join(sorted(products))}",
        )
    return summary


def _names(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(repr(info.name) for info in infos) or "nothing"


def _serves(found: TensorInfo, declared: TensorInfo) -> bool:
    """A graph may leave more axes free than the manifest says, never fewer."""
    return (
        found.dtype == declared.dtype
        and len(found.shape) == len(declared.shape)
        and all(
            there in (-1, here) for there, here in zip(found.shape, declared.shape, strict=True)
        )
    )
