"""`--engine`: TensorRT engines of a bundle's graphs, by the builder of `fsseg engine build`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from fsseg_sdk.backends import GraphFile, GraphSpec
from fsseg_sdk.errors import BackendError

BACKENDS = ("tensorrt", "tensorrt-rtx")


def write_engines(
    folder: Path,
    specs: Mapping[str, GraphSpec],
    files: Mapping[str, list[tuple[GraphFile, bytes]]],
    backend: str,
    device: str,
    batch: int,
    say: Callable[[str], None],
) -> dict[str, bytes]:
    """For each file that TensorRT can take X.plan, X.json (what it depends on) and X.log; the
    plans, by the name of the ONNX file.

    Raises:
        BackendError: TensorRT is missing, finds no device, or refuses a graph.
    """
    from fsseg_sdk.backends.tensorrt import FILES, BuildOptions, build_engine
    from fsseg_sdk.engines import EngineCache

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
    for graph, file, data in chosen:
        say(f"engine of {file.file}:")
        with tempfile.TemporaryDirectory() as private:
            key, obtained = build_engine(
                backend,
                data,
                specs[graph].only(file),
                precision=kinds[file.compute, file.flavour],
                device=device,
                options=BuildOptions(batch=batch),
                cache=EngineCache(Path(private)),
            )
        stem = folder / Path(file.file).stem
        plans[file.file] = bytes(obtained.plan)
        stem.with_name(f"{stem.name}.plan").write_bytes(plans[file.file])
        header = {"key": asdict(key), "notes": dict(obtained.notes)}
        stem.with_name(f"{stem.name}.json").write_text(json.dumps(header, indent=1, default=str))
        lines = [str(line) for line in _lines(obtained.notes.get("log"))]
        stem.with_name(f"{stem.name}.log").write_text("\n".join(lines) + "\n")
        say(f"  {len(plans[file.file]) / 1e6:.1f} MB")
    return plans


def _lines(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
