"""`--engine`: TensorRT engines of a bundle's graphs, by the builder of `fsseg engine build`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from fsseg_sdk.backends import GraphFile, GraphSpec
from fsseg_sdk.backends.tensorrt import FILES, BuildOptions, build_engine, read_options
from fsseg_sdk.backends.tensorrt.driver import choose_device
from fsseg_sdk.backends.tensorrt.module import find_module
from fsseg_sdk.engines import EngineCache
from fsseg_sdk.errors import BackendError

BACKENDS = ("tensorrt", "tensorrt-rtx")
WITHOUT_GPU = ("tensorrt-rtx", "none")


def check_machine(backend: str, device: str) -> None:
    """BackendError where no engine can be built here, before hours go into the files for it."""
    if (backend, device) != WITHOUT_GPU:
        choose_device(device, backend)
    find_module(backend)


def engine_options(batch: int | None) -> BuildOptions:
    """The environment's (FSSEG_TENSORRT), with this batch. Raises InputError."""
    options = read_options()
    return options if batch is None else replace(options, batch=batch)


def write_engines(
    folder: Path,
    specs: Mapping[str, GraphSpec],
    files: Mapping[str, list[tuple[GraphFile, bytes]]],
    backend: str,
    device: str,
    options: BuildOptions,
    say: Callable[[str], None],
) -> dict[str, bytes]:
    """For each file that TensorRT can take X.plan, X.json (what it depends on) and X.log; the
    plans, by the name of the ONNX file.

    Raises:
        BackendError: TensorRT is missing, finds no device, or refuses a graph.
    """
    kinds = {kind: precision for precision, known in FILES.items() for kind in known}
    chosen = [
        (graph, file, data)
        for graph, own in files.items()
        for file, data in own
        if (file.compute, file.flavour) in kinds
    ]
    if not chosen:
        raise BackendError(
            "--engine",
            expected=f"a file that TensorRT takes: {', '.join(' '.join(k).strip() for k in kinds)}",
            got=", ".join(str(file) for own in files.values() for file, _ in own),
            remedy="Add another --precision; of int8 the flavour s8s8.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    plans: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as private:
        cache = EngineCache(Path(private))  # what one build measures serves the next
        for graph, file, data in chosen:
            key, obtained = build_engine(
                backend,
                data,
                specs[graph].only(file),
                precision=kinds[file.compute, file.flavour],
                device=device,
                options=options,
                cache=cache,
                say=say,
            )
            plan = bytes(obtained.plan)
            lines = obtained.notes.get("log")
            log = [str(line) for line in lines] if isinstance(lines, (list, tuple)) else []
            header = {"key": asdict(key), "notes": dict(obtained.notes)}
            stem = Path(file.file).stem
            _write(folder / f"{stem}.log", "".join(f"{line}\n" for line in log).encode())
            _write(folder / f"{stem}.json", json.dumps(header, indent=1, default=str).encode())
            _write(folder / f"{stem}.plan", plan)
            say(f"  {stem}.plan: {len(plan) / 1e6:.1f} MB")
            plans[file.file] = plan
    return plans


def _write(path: Path, data: bytes) -> None:
    """Whole, or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
