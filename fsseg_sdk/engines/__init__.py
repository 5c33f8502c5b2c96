"""The engine cache: TensorRT engines, built on the device they run on and found again.

An engine is native code for one GPU, one driver and one TensorRT. So it is no part of a bundle: it
is built here from the bundle's ONNX, kept in a private folder with a header of everything that it
depends on, and built again when one of these changes. Knows nothing of TensorRT.
"""

from __future__ import annotations

from .cache import Built, EngineCache, Entry, Obtained
from .file import Engine, Header, pack, read_engine, read_header
from .folder import default_folder
from .key import EngineKey, differences

__all__ = [
    "Built",
    "Engine",
    "EngineCache",
    "EngineKey",
    "Entry",
    "Header",
    "Obtained",
    "default_folder",
    "differences",
    "pack",
    "read_engine",
    "read_header",
]
