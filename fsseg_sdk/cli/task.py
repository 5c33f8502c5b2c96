"""``fsseg task info``: what a task file says about itself."""

from __future__ import annotations

import argparse

from ..taskfile import read_task_info
from .console import print_json, table

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    info = read_task_info(arguments.path)
    if arguments.json:
        print_json(info)
        return 0
    encoder = info["encoder"]
    height, width = encoder["input_size"]
    print(f"bundle     {info['bundle']['name']} ({info['bundle']['sha256'][:16]})")
    print(f"method     {info['method']['name']}")
    print(f"encoder    {width} x {height}, {encoder['channels']} channels, {encoder['precision']}")
    print(f"holds      {info['bytes'] / 1024:.1f} KiB")
    counted = ("shots", "auxiliary") if "auxiliary/way" in info["arrays"] else ("shots",)
    rows = [["label", "class", *counted]]
    for label, (name, entry) in enumerate(info["classes"].items(), 1):
        rows.append([str(label), name, *(str(entry[number]) for number in counted)])
    print(table(rows))
    return 0
