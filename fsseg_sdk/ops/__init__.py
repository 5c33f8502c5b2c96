"""The only door to the kernels: arguments are checked once here, then the compiled code runs.

numpy float32 arrays or CPU DLPack objects in (no copy where planes are contiguous), numpy arrays
out. ``reference.py`` has the same functions in double precision.
"""

from __future__ import annotations

from .fusion import Fusion, SoftPool, ThresholdMlp, prototype_fusion, soft_pool
from .imaging import preprocess, upsample_argmax
from .learning import Mlp, MlpFit, online_mlp_fit, online_mlp_scores, online_mlp_start
from .logistic import LogisticFit, logistic_fit
from .matching import cosine_match, distance_stats, linear_match
from .neighbours import NearestRows, nearest
from .pooling import grid_weights, weighted_pool
from .runtime import build_info, simd_level, simd_levels

__all__ = [
    "Fusion",
    "LogisticFit",
    "Mlp",
    "MlpFit",
    "NearestRows",
    "SoftPool",
    "ThresholdMlp",
    "build_info",
    "cosine_match",
    "distance_stats",
    "grid_weights",
    "linear_match",
    "logistic_fit",
    "nearest",
    "online_mlp_fit",
    "online_mlp_scores",
    "online_mlp_start",
    "preprocess",
    "prototype_fusion",
    "simd_level",
    "simd_levels",
    "soft_pool",
    "upsample_argmax",
    "weighted_pool",
]
