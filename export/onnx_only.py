"""`--onnx-only`: a bundle's graphs as plain ONNX files, and how to match with numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsseg_sdk.backends import GraphFile

EXAMPLE = '''"""python match.py SUPPORT MASK QUERY FOUND: what MASK marks in SUPPORT, in QUERY.

The features of a graph, matched with one prototype for the object and one for all else.
"""
import json, sys
import numpy as np, onnxruntime
from PIL import Image

about = json.load(open("bundle.json"))
(H, W), mean, std = about["input"]["size"], about["input"]["mean"], about["input"]["std"]
h, w = about["features"]["grid"]
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])

def encode(path):  # [C, h * w]
    pixels = np.asarray(Image.open(path).convert("RGB").resize((W, H), Image.BILINEAR)) / 255
    image = ((pixels - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    return session.run(["features"], {{"image": image}})[0].reshape(-1, h * w)

unit = lambda vectors: vectors / np.linalg.norm(vectors, axis=0)
support, query = encode(sys.argv[1]), encode(sys.argv[3])
weights = np.asarray(Image.open(sys.argv[2]).convert("L").resize((w, h), Image.BOX)).ravel() / 255
thing, rest = unit(support @ weights), unit(support @ (1 - weights))
found = (thing @ unit(query) > rest @ unit(query)).reshape(h, w)
picture = Image.fromarray(np.uint8(255 * found)).resize(Image.open(sys.argv[3]).size)
picture.save(sys.argv[4])
'''


def _for_onnxruntime(file: GraphFile) -> int:
    """What it computes on a CPU comes first; bfloat16, which it does not, last."""
    kinds = ["float32", "int8 u8s8", "float16", "int8 s8s8", "int8", "bfloat16"]
    return kinds.index(f"{file.compute} {file.flavour}".rstrip())


def write_onnx_only(
    folder: Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, list[tuple[GraphFile, bytes]]],
) -> list[Path]:
    """The ONNX files, bundle.json (the manifest without members and golden vectors) and match.py.

    The example has what `geometry` "squash" does; its mask is white where the object is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kinds in files.values():
        for file, data in kinds:
            (folder / file.file).write_bytes(data)
            written.append(folder / file.file)
    about = {k: v for k, v in manifest.items() if k not in ("members", "golden", "provenance")}
    (folder / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
    first = min((file for file, _ in files["encoder"]), key=_for_onnxruntime).file
    (folder / "match.py").write_text(EXAMPLE.format(file=first))
    return [*written, folder / "bundle.json", folder / "match.py"]
