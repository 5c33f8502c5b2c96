"""What a backend is to the rest of the SDK: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from ..errors import BackendError

if TYPE_CHECKING:
    from ..ops import DeviceArray, DeviceContext

__all__ = [
    "BackendStatus",
    "DeviceGraph",
    "Graph",
    "GraphFile",
    "GraphSpec",
    "NotPrepared",
    "NotedGraph",
    "TensorInfo",
]


@dataclass(frozen=True)
class TensorInfo:
    """A graph's input or output. dtype: a numpy name; shape: -1 where any length will do."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` fits; a free axis has a length of 1 or more."""
        return len(shape) == len(self.shape) and all(
            found == right or (right == -1 and found >= 1)
            for right, found in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        shape = ", ".join("any" if length == -1 else str(length) for length in self.shape)
        return f"{self.name!r} {self.dtype} [{shape}]"


@dataclass(frozen=True)
class GraphFile:
    """One ONNX file that computes a graph; inputs and outputs are the graph's, in every file.

    file: the member that holds it. storage: the type of its weights in the file; compute: the
    type that it calculates in ("float16" weights behind a Cast compute in "float32"). flavour, of
    compute "int8": how it is quantised: "s8s8" (activations int8, zero point 0), "u8s8"
    (activations uint8), "" where nobody says. error: how far its features are from float32's, the
    root of the squared error over the squared value, of the bundle's golden picture; None where
    nobody says.
    """

    file: str
    storage: str = "float32"
    compute: str = "float32"
    flavour: str = ""
    error: float | None = None

    def __str__(self) -> str:
        return f"{self.compute} {self.flavour}".rstrip() + f" ({self.file})"


@dataclass(frozen=True)
class GraphSpec:
    """What a manifest says about one graph: its first file, and the same function in others."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    storage: str = "float32"
    compute: str = "float32"
    flavour: str = ""
    others: tuple[GraphFile, ...] = ()
    error: float | None = None

    @property
    def files(self) -> tuple[GraphFile, ...]:
        """All files, the first one first."""
        first = GraphFile(self.file, self.storage, self.compute, self.flavour, self.error)
        return (first, *self.others)

    def only(self, file: GraphFile) -> GraphSpec:
        """The graph with that file alone."""
        return replace(
            self,
            file=file.file,
            storage=file.storage,
            compute=file.compute,
            flavour=file.flavour,
            others=(),
            error=file.error,
        )


@runtime_checkable
class Graph(Protocol):
    """A graph that is ready to run. Immutable; `run` may be called from many threads at once.

    A graph may besides have `warnings`, a tuple of sentences about how it runs here.
    """

    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...

    @property
    def backend(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs for one array per input, in the types and shapes that are declared."""
        ...


class NotPrepared(BackendError):
    """A graph that cannot be recorded yet: it must run with these shapes before, unrecorded."""


class DeviceGraph(Graph, Protocol):
    """A graph that also runs on arrays of a device. `context` None: here it cannot."""

    @property
    def context(self) -> DeviceContext | None:
        """Whose arrays it takes and gives. Several threads may use it at once."""

    @property
    def capturable(self) -> bool:
        """Whether `run_on_device` may be called while a CUDA graph of the context's stream is
        recorded, once it has run twice for those shapes. It waits for nothing then, copies nothing
        from the host, reads and writes the same memory in each replay, and each thread has a
        context of its own; replays may come as long as the graph and that thread live. A call that
        still finds something to prepare raises NotPrepared. Graphs without it are not."""

    def run_on_device(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """As `run`, for arrays of `context`; outputs are written after all that is enqueued there
        before, and before all that is enqueued there later."""
        ...


class NotedGraph:
    """A graph with more to say than it says itself; everything else is the graph's own."""

    def __init__(self, graph: Graph, notes: tuple[str, ...]) -> None:
        self.graph, self._notes = graph, notes
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.backend, self.device, self.precision = graph.backend, graph.device, graph.precision

    @property
    def warnings(self) -> tuple[str, ...]:
        own: tuple[str, ...] = getattr(self.graph, "warnings", ())
        return (*self._notes, *own)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.graph.run(feeds)

    @property
    def context(self) -> DeviceContext | None:
        return getattr(self.graph, "context", None)

    @property
    def capturable(self) -> bool:
        return getattr(self.graph, "capturable", False)

    def run_on_device(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        return cast(DeviceGraph, self.graph).run_on_device(feeds)


@dataclass(frozen=True)
class BackendStatus:
    """What `probe` found, of a backend on one device. reason: why it is not available, or what is
    odd; "" if neither. precisions: what a graph can be asked to compute in ("fp32", ...)."""

    name: str
    available: bool
    reason: str
    version: str | None
    device: str
    precisions: tuple[str, ...]
