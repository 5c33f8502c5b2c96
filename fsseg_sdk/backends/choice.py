"""Which file of a graph runs for a precision, and in which order `auto` tries things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import BackendError
from .checks import cannot
from .graph import GraphFile, GraphSpec

__all__ = ["PRECISIONS", "Kinds", "choose_files", "find_file", "held", "shown"]

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""What a graph can compute in, most exact first: the order in which `auto` takes what there is."""

_COMPUTE = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}

Kinds = Mapping[str, Sequence[tuple[str, str]]]
"""What a backend declares as FILES: for each precision that it knows the files that it can run,
(compute, flavour), best first."""


def held(spec: GraphSpec) -> tuple[str, ...]:
    """The precisions that "auto" may take: fp32 alone if there is such a file, else what there
    is."""
    computes = {file.compute for file in spec.files}
    found = tuple(name for name in PRECISIONS if _COMPUTE[name] in computes)
    return ("fp32",) if "fp32" in found else found


def find_file(spec: GraphSpec, kinds: Sequence[tuple[str, str]]) -> GraphFile | None:
    """The graph's best file of these kinds."""
    for kind in kinds:
        for file in spec.files:
            if (file.compute, file.flavour) == kind:
                return file
    return None


def choose_files(
    specs: Mapping[str, GraphSpec],
    precision: str,
    backend: str,
    kinds: Kinds,
    known: Callable[[], Mapping[str, Kinds]] = dict,
) -> dict[str, tuple[str, GraphFile]]:
    """For each graph (precision, file). The first graph, the encoder, must have a file for the
    precision; the others run in fp32 where they have none. Raises BackendError, which names those
    of `known`, all backends with their files, that would take one."""
    if precision not in kinds:
        can = " or ".join(repr(name) for name in PRECISIONS if name in kinds)
        raise cannot(backend, "precision", can, repr(precision))
    chosen: dict[str, tuple[str, GraphFile]] = {}
    for name, spec in specs.items():
        for candidate in (precision, *(("fp32",) if chosen else ())):
            file = find_file(spec, kinds.get(candidate, ()))
            if file is not None:
                chosen[name] = (candidate, file)
                break
        else:
            raise BackendError(
                f"backend {backend!r}, {shown(name)}",
                expected=f"a file for {precision}: {_words(kinds[precision])}",
                got=", ".join(map(str, spec.files)),
                remedy=_elsewhere(spec, precision, known()),
            )
    return chosen


def _elsewhere(spec: GraphSpec, precision: str, known: Mapping[str, Kinds]) -> str:
    takers = [name for name, kinds in known.items() if find_file(spec, kinds.get(precision, ()))]
    if takers:
        return f"The backend {' or '.join(map(repr, takers))} takes what the bundle has."
    return f"Export the bundle with '--precision {precision}', or leave the precision at 'auto'."


def shown(name: str) -> str:
    """How errors call a graph; a single one has no name."""
    return f"graph {name!r}" if name else "graph"


def _words(kinds: Sequence[tuple[str, str]]) -> str:
    return " or ".join(f"{compute} {flavour}".rstrip() for compute, flavour in kinds)
