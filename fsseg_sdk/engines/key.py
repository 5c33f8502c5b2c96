"""What an engine depends on. One difference, and the engine is of no use here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from ..fields import Fields

__all__ = ["EngineKey", "differences", "read_key"]

BUILDER = 1
"""How this package builds engines: raised when the same ONNX file becomes another engine."""
_TEXTS = ("runtime", "runtime_version", "system", "gpu", "compute_capability", "driver", "cuda")


@dataclass(frozen=True)
class EngineKey:
    """graph: the graph's name, such as "encoder", for people and file names.

    onnx_sha256: of the graph's ONNX file. runtime, runtime_version: the backend and the version of
    its library. system: operating system and processor. gpu, compute_capability, multiprocessors,
    driver, cuda: of the device; "none" and 0 where an engine is built without one. precision: what
    it computes in. profiles: of each input with free axes, the shapes it serves. dla: the core of
    the deep learning accelerator, -1 for the GPU. builder: see `BUILDER`.
    """

    graph: str
    onnx_sha256: str
    runtime: str
    runtime_version: str
    system: str
    gpu: str
    compute_capability: str
    multiprocessors: int
    driver: str
    cuda: str
    precision: str
    profiles: tuple[str, ...]
    dla: int = -1
    builder: int = BUILDER

    @property
    def digest(self) -> str:
        """A name for all of it, 16 hex digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "profiles": list(self.profiles)}


def read_key(entry: Fields) -> EngineKey:
    """The key in a header; raises what the header's errors are."""
    entry_profiles = entry.any("profiles")
    if not isinstance(entry_profiles, (list, tuple)) or len(entry_profiles) > 64:
        raise entry.fail("profiles", "an array of at most 64 texts", entry_profiles)
    if not all(isinstance(text, str) and len(text) <= 400 for text in entry_profiles):
        raise entry.fail("profiles", "texts of at most 400 characters", entry_profiles)
    texts = {name: entry.text(name) for name in _TEXTS}
    key = EngineKey(
        graph=entry.text("graph", r"[a-z0-9_.-]{1,60}", "a graph's name"),
        onnx_sha256=entry.text("onnx_sha256", r"[0-9a-f]{64}", "64 hex digits"),
        runtime=texts["runtime"],
        runtime_version=texts["runtime_version"],
        system=texts["system"],
        gpu=texts["gpu"],
        compute_capability=texts["compute_capability"],
        multiprocessors=entry.integer("multiprocessors", 0, 1 << 20),
        driver=texts["driver"],
        cuda=texts["cuda"],
        precision=entry.text("precision", r"[a-z0-9]{1,16}", "a precision"),
        profiles=tuple(entry_profiles),
        dla=entry.integer("dla", -1, 63),
        builder=entry.integer("builder", 1, 1 << 20),
    )
    entry.end()
    return key


def differences(found: EngineKey, wanted: EngineKey) -> tuple[str, ...]:
    """Each field that differs, in words: "driver is 570.26 here, 560.1 in the engine"."""
    return tuple(
        f"{field.name} is {_shown(getattr(wanted, field.name))} here, "
        f"{_shown(getattr(found, field.name))} in the engine"
        for field in fields(EngineKey)
        if getattr(found, field.name) != getattr(wanted, field.name)
    )


def _shown(value: object) -> str:
    if isinstance(value, (tuple, Mapping)):
        return " and ".join(map(str, value)) or "nothing"
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
