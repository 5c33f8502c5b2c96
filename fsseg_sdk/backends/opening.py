"""From checked files to graphs that run: which backend, which device, which file, or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..errors import BackendError
from ..fields import Refusal
from . import probing, registry
from .choice import PRECISIONS, choose_files, held, shown
from .graph import Graph, GraphFile, GraphSpec, NotedGraph
from .onnx_check import check_onnx

__all__ = ["open_graph", "open_graphs"]

Read = Callable[[str], bytes | memoryview]
Content = Callable[[str, GraphFile], bytes]
_REMEDY = "Export the graph again with 'python -m export'."


def open_graph(
    data: bytes | memoryview,
    spec: GraphSpec,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Graph:
    """Opens the ONNX file `data`, the first file of `spec`, on a backend; see `open_graphs`."""
    graphs = open_graphs(
        {"": spec.only(spec.files[0])},
        lambda file: data,
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
    )
    return graphs[""]


def open_graphs(
    specs: Mapping[str, GraphSpec],
    read: Read,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    checked: bool = False,
) -> dict[str, Graph]:
    """Opens graphs that work together, all on one backend and device.

    specs: the encoder first. read: a file's name to its content. backend: a name of `names()` or
    "auto"; device: "auto", "cpu", "cuda"; precision: of the encoder, of `choice.PRECISIONS`, or
    "auto" (fp32 if there is such a file, else what there is); a graph without a file for it runs
    in fp32. threads: None is FSSEG_NUM_THREADS or all usable cores. A file is checked (see
    `onnx_check`) before any runtime sees it; checked: `read` gives what `Bundle.open` has checked,
    and once is enough. Raises BackendError, which says what to install
    where that would help, and InputError for an environment variable that is out of range.
    """
    _check_asked(backend, precision)
    encoder = next(iter(specs))
    content = _content(specs, read, checked)
    notes: list[str] = []  # on what was passed over although it is installed and has its device
    failures: dict[str, BackendError] = {}
    idle: list[str] = []  # why those do not work here that were passed over

    for kind in held(specs[encoder]) if precision == "auto" else (precision,):
        for name, where in _places(backend, device, kind):
            if backend == "auto":
                status = probing.probed(name, where)
                if not status.available:
                    idle.append(status.reason or f"{name} does not work on {where}")
                    if status.version is not None:  # installed
                        notes += _passed_over(name, where, idle[-1])
                    continue
            graphs = _open_on(name, where, kind, specs, content, threads)
            if isinstance(graphs, BackendError):
                failures.setdefault(str(graphs), graphs)
                notes += _passed_over(name, where, str(graphs))
                continue
            if notes:
                graphs[encoder] = NotedGraph(graphs[encoder], tuple(dict.fromkeys(notes)))
            return graphs
    if len(failures) == 1:
        raise next(iter(failures.values()))
    raise BackendError(
        "backend",
        expected="one that can open this graph here",
        got="; ".join(failures or dict.fromkeys(idle)),
        remedy="Install one of them, or name the one that you want fixed.",
    )


def _check_asked(backend: str, precision: str) -> None:
    if backend not in ("auto", *registry.NAMES):
        raise BackendError(
            "backend",
            expected=" or ".join(("auto", *registry.NAMES)),
            got=repr(backend),
            remedy="Choose one of these ('pip install fsseg_sdk[cpu]' brings onnxruntime); "
            "'fsseg doctor' says which of them work here.",
        )
    if precision not in ("auto", *PRECISIONS):
        raise BackendError(
            "precision",
            expected=" or ".join(("auto", *PRECISIONS)),
            got=repr(precision),
            remedy="Leave it at 'auto' for what suits the bundle.",
        )


def _places(backend: str, device: str, precision: str) -> Iterator[tuple[str, str]]:
    """(backend, device) to try."""
    for name in registry.order(precision) if backend == "auto" else (backend,):
        for where in registry.module_of(name).devices() if device == "auto" else (device,):
            yield name, where


def _open_on(
    name: str,
    where: str,
    precision: str,
    specs: Mapping[str, GraphSpec],
    content: Content,
    threads: int | None,
) -> dict[str, Graph] | BackendError:
    """The graphs on this backend and device, or why it cannot open them. A file that is damaged
    is so on every backend: that error is raised."""
    try:
        chosen = choose_files(specs, precision, name, registry.kinds(name), registry.all_kinds)
    except BackendError as error:
        return error
    data = {graph: content(graph, file) for graph, (_, file) in chosen.items()}
    module = registry.module_of(name)
    try:
        return {
            graph: module.open_graph(
                data[graph], specs[graph].only(file), device=where, precision=own, threads=threads
            )
            for graph, (own, file) in chosen.items()
        }
    except BackendError as error:
        return error


def _content(specs: Mapping[str, GraphSpec], read: Read, checked: bool) -> Content:
    """Reads a graph's file and, unless that was done, checks it: once, however many backends are
    tried."""
    seen: dict[tuple[str, str], bytes] = {}

    def content(name: str, file: GraphFile) -> bytes:
        if (name, file.file) not in seen:
            raw = _whole(read(file.file))
            if not checked:
                refuse = Refusal(BackendError, shown(name), _REMEDY)
                check_onnx(raw, specs[name].only(file), refuse)
            seen[name, file.file] = raw
        return seen[name, file.file]

    return content


def _passed_over(name: str, device: str, reason: str) -> list[str]:
    """What a user is told, who may have meant to compute there: of a device that exists."""
    if not probing.has_device(device):
        return []
    return [f"the backend {name!r} on {device!r} was passed over: {reason}"]


def _whole(data: bytes | memoryview) -> bytes:
    """`data` as bytes, without a copy where it is a view of exactly that."""
    if isinstance(data, bytes):
        return data
    view = memoryview(data)
    if isinstance(view.obj, bytes) and view.nbytes == len(view.obj) and view.c_contiguous:
        return view.obj
    return view.tobytes()
