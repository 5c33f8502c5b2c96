"""``fsseg bundle info`` and ``fsseg bundle verify``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..bundle import Bundle
from ..segmenter import find_bundle
from .console import print_json, table

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    return _info(arguments) if arguments.action == "info" else _verify(arguments)


def _info(arguments: argparse.Namespace) -> int:
    bundle = Bundle.open(find_bundle(arguments.path))
    manifest = bundle.manifest.to_json()
    if arguments.json:
        print_json({"path": str(bundle.path), "sha256": bundle.digest, **manifest})
        return 0
    content = bundle.manifest
    height, width = content.input.size
    rows, columns = content.features.grid
    print(f"{content.name}: {bundle.path}")
    print(f"sha256     {bundle.digest}")
    print(f"method     {content.method.name}")
    print(f"input      {width} x {height}, {content.input.geometry}")
    print(f"features   {content.features.channels} channels on {columns} x {rows} cells")
    print(f"made with  {content.created_with}, format {content.format_version}")
    print()
    files = [file for graph in content.graphs.values() for file in graph.files]
    kinds = {file.file: f"{file.compute} {file.flavour}".rstrip() for file in files}
    heading = ["member", "KiB", "computes in", "sha256"]
    members = [
        [name, f"{member.bytes / 1024:.1f}", kinds.get(name, ""), member.sha256[:16]]
        for name, member in content.members.items()
    ]
    print(table([heading, *members]))
    provenance = manifest["provenance"]
    if isinstance(provenance, Mapping) and provenance:
        print()
        print("\n".join(_indented(provenance)))
    return 0


def _indented(value: object, depth: int = 0) -> list[str]:
    """JSON as an indented list."""
    lines: list[str] = []
    pairs: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        pairs = [(f"{key}:", item) for key, item in value.items()]
    elif isinstance(value, list):
        pairs = [("-", item) for item in value]
    for name, item in pairs:
        if isinstance(item, (Mapping, list)) and item:
            lines += [f"{'  ' * depth}{name}", *_indented(item, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{name} {item}")
    return lines


def _verify(arguments: argparse.Namespace) -> int:
    from ..verify import verify_bundle

    report = verify_bundle(
        find_bundle(arguments.path),
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )
    if arguments.json:
        print_json(report.to_dict())
        return 0 if report.ok else 1
    print(f"{report.bundle} ({report.digest[:16]}) on {report.backend}, {report.device}, ", end="")
    print(report.precision)
    for check in report.checks:
        print(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.detail}")
    for warning in report.warnings:
        print(f"note    {warning}")
    return 0 if report.ok else 1
