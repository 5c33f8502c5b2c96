"""``fsseg engine build | list | clear``: TensorRT engines of this machine."""

from __future__ import annotations

import argparse
from datetime import datetime
from time import perf_counter
from typing import Any

from ..backends import choice
from ..backends.tensorrt import FILES, BuildOptions, build_engine, read_options
from ..bundle import Bundle
from ..engines import EngineCache, Entry
from ..errors import BackendError, InputError
from ..segmenter import find_bundle
from .console import print_json, table, warn
from .progress_line import PhaseLine

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    return {"build": _build, "list": _list, "clear": _clear}[arguments.action](arguments)


def _build(arguments: argparse.Namespace) -> int:
    """One engine for each graph of the bundle, as `Segmenter.load` would look for it."""
    bundle = Bundle.open(find_bundle(arguments.bundle))
    specs = bundle.manifest.graphs
    precision = arguments.precision
    if precision == "auto":
        precision = choice.held(specs["encoder"])[0]
    ordered = {"encoder": specs["encoder"], **specs}
    chosen = choice.choose_files(ordered, precision, arguments.backend, FILES)
    options, cache = _options(arguments), EngineCache()
    reports = []
    for name, (kind, file) in chosen.items():
        line = PhaseLine(name)
        begin = perf_counter()
        key, obtained = build_engine(
            arguments.backend,
            bytes(bundle.member(file.file)),
            specs[name].only(file),
            precision=kind,
            device=arguments.device,
            options=options,
            cache=cache,
            progress=line,
            rebuild=arguments.force,
            say=line.say,
        )
        line.clear()
        if obtained.unkept:
            raise BackendError(
                "engine cache",
                expected="a place to keep the engine",
                got=obtained.unkept,
                remedy="Free some space, or set FSSEG_ENGINE_CACHE to another folder.",
            )
        size = memoryview(obtained.plan).nbytes
        report = {
            "graph": name,
            "path": str(obtained.path),
            "bytes": size,
            "built": bool(obtained.reason),
            "reason": obtained.reason,
            "seconds": round(perf_counter() - begin, 3),
            "check_ms": round(obtained.check_seconds * 1e3, 3),
            "key": key.to_json(),
        }
        reports.append(report)
        if not arguments.json:
            how = f"built: {obtained.reason}" if obtained.reason else "was there already"
            print(
                f"{name}: {kind} on {key.gpu}, {size / 1e6:.1f} MB, "
                f"{perf_counter() - begin:.1f} s ({how})"
            )
    here = read_options()
    if (options.batch, options.dla) != (here.batch, here.dla):
        warn(f"to use these engines set {_setting(options)}")
    if arguments.json:
        print_json(
            {"bundle": bundle.manifest.name, "backend": arguments.backend, "engines": reports}
        )
    return 0


def _options(arguments: argparse.Namespace) -> BuildOptions:
    """The environment's, and over them those of the command."""
    given = {name: getattr(arguments, name) for name in ("batch", "workspace", "dla")}
    parts = [f"{name}={value}" for name, value in given.items() if value is not None]
    try:
        asked = read_options(",".join(parts))
    except InputError as error:
        raise InputError(
            "--batch, --workspace, --dla",
            expected=error.expected,
            got=", ".join(parts),
            remedy="Leave them out for what suits the device.",
        ) from error
    base = read_options()
    return BuildOptions(
        batch=base.batch if given["batch"] is None else asked.batch,
        workspace=base.workspace if given["workspace"] is None else asked.workspace,
        dla=base.dla if given["dla"] is None else asked.dla,
    )


def _setting(options: BuildOptions) -> str:
    parts = [f"batch={options.batch}"]
    parts += [f"dla={options.dla}"] if options.dla >= 0 else []
    return f"FSSEG_TENSORRT={','.join(parts)}"


def _list(arguments: argparse.Namespace) -> int:
    cache = EngineCache()
    entries = cache.entries()
    if arguments.json:
        print_json(
            {
                "folder": str(cache.folder.path),
                "most_bytes": cache.most_bytes,
                "engines": [_described(entry) for entry in entries],
            }
        )
        return 0
    total = sum(entry.bytes for entry in entries)
    print(f"{cache.folder.path}: {len(entries)} engines, {total / 1e6:.1f} MB")
    if entries:
        rows = [["graph", "precision", "MB", "runtime", "device", "used", "file"]]
        print(table([*rows, *map(_row, entries)]))
    return 0


def _described(entry: Entry) -> dict[str, Any]:
    header = entry.header
    return {
        "path": str(entry.path),
        "bytes": entry.bytes,
        "used": _when(entry.used),
        "fault": entry.fault,
        "key": header.key.to_json() if header is not None else None,
        "seconds": header.build.get("seconds") if header is not None else None,
    }


def _row(entry: Entry) -> list[str]:
    size, used, name = f"{entry.bytes / 1e6:.1f}", _when(entry.used), entry.path.name
    if entry.header is None:
        return ["damaged", "", size, "", "", used, f"{name} ({entry.fault})"]
    key = entry.header.key
    runtime = f"{key.runtime} {key.runtime_version}"
    device = "none" if key.gpu == "none" else f"{key.gpu} ({key.compute_capability})"
    return [key.graph, key.precision, size, runtime, device, used, name]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="minutes")


def _clear(arguments: argparse.Namespace) -> int:
    cache = EngineCache()
    gone = cache.clear(_is_damaged if arguments.damaged else None)
    size = sum(entry.bytes for entry in gone)
    if arguments.json:
        print_json({"folder": str(cache.folder.path), "removed": [str(e.path) for e in gone]})
    else:
        print(f"{cache.folder.path}: removed {len(gone)} engines, {size / 1e6:.1f} MB")
    return 0


def _is_damaged(entry: Entry) -> bool:
    return entry.header is None
