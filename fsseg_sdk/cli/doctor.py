"""``fsseg doctor``: what this build and machine can do."""

from __future__ import annotations

import argparse
from typing import Any

from ..doctor import examine
from .console import print_json

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    found = examine()
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(_lines(found)))
    return 0 if found["ok"] else 1


def _lines(found: dict[str, Any]) -> list[str]:
    machine, cuda, default = found["machine"], found["cuda"], found["default_bundle"]
    cores = f"{machine['usable_cores']} of {machine['cores']} cores"
    lines = [
        f"fsseg_sdk  {found['version']}, Python {found['python']}, {machine['system']}",
        f"machine    {machine['processor']}, {cores}, {machine['memory_gib']} GiB",
        f"packages   {', '.join(f'{name} {v}' for name, v in found['packages'].items())}",
        f"methods    {', '.join(found['methods'])}",
    ]
    if found["kernels"]["ok"]:
        levels = ", ".join(found["simd_levels"])
        lines.append(
            f"kernels    {found['simd']} (of {levels}), bf16 by {found['bf16']}, "
            f"{found['threads']} threads"
        )
    else:
        lines.append(f"kernels    NOT WORKING: {found['kernels']['error']}")
    built = "built" if cuda["built"] else "not built"
    devices = ", ".join(
        f"{d['name']} (compute capability {d['capability']}, {d['memory_gib']:.1f} GiB)"
        for d in cuda["devices"]
    )
    lines.append(f"cuda       {built}: {cuda['reason']}; {devices or 'no devices'}")
    for backend in found["backends"]:
        works = "works" if backend["available"] else "does not work"
        version = f" {backend['version']}" if backend.get("version") else ""
        precisions = ", ".join(backend.get("precisions", ()))
        where = f" on {backend['device']} in {precisions}" if backend["available"] else ""
        reason = f": {backend['reason']}" if backend["reason"] else ""
        lines.append(f"backend    {backend['name']}{version} {works}{where}{reason}")
    if default["ok"]:
        lines.append(
            f"default    segmented a drawn picture on {default['backend']}, {default['device']}, "
            f"{default['precision']}: loaded in {default['load_ms']:.0f} ms, "
            f"{default['query_ms']:.0f} ms for a query, overlap {default['overlap']:.2f}"
        )
    else:
        reason = default.get("error") or f"overlap with what was drawn is {default['overlap']:.2f}"
        lines.append(f"default    NOT WORKING: {reason}")
    return lines
