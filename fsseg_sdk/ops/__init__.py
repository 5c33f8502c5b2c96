"""The only door to the kernels: arguments are checked once here, then the compiled code runs.

numpy float32 arrays or CPU DLPack objects in (no copy where planes are contiguous), numpy arrays
out. Where the first array is on a CUDA device (a DeviceArray, or somebody else's by DLPack or
``__cuda_array_interface__``) the op runs there and gives DeviceArrays; features may be float16 and
bfloat16 then, numpy arguments are copied to the device, and errors about values come with the next
copy to the host. A first array of the host with others on a device is an InputError.
``reference.py`` has the same functions in double precision.
"""

from __future__ import annotations

from .device import DeviceArray, DeviceContext, default_context
from .fusion import Fusion, SoftPool, ThresholdMlp, prototype_fusion, soft_pool
from .imaging import preprocess, preprocess_all, upsample_argmax
from .learning import Mlp, MlpFit, online_mlp_fit, online_mlp_scores, online_mlp_start
from .logistic import LogisticFit, logistic_fit
from .maps import Resident, blend, duplicate, largest_of_first, seen, settled
from .matching import cosine_match, distance_stats, linear_match
from .neighbours import NearestRows, nearest
from .pooling import grid_weights, weighted_pool
from .runtime import build_info, simd_level, simd_levels

__all__ = [
    "DeviceArray",
    "DeviceContext",
    "Fusion",
    "LogisticFit",
    "Mlp",
    "MlpFit",
    "NearestRows",
    "Resident",
    "SoftPool",
    "ThresholdMlp",
    "blend",
    "build_info",
    "cosine_match",
    "default_context",
    "distance_stats",
    "duplicate",
    "grid_weights",
    "largest_of_first",
    "linear_match",
    "logistic_fit",
    "nearest",
    "online_mlp_fit",
    "online_mlp_scores",
    "online_mlp_start",
    "preprocess",
    "preprocess_all",
    "prototype_fusion",
    "seen",
    "settled",
    "simd_level",
    "simd_levels",
    "soft_pool",
    "upsample_argmax",
    "weighted_pool",
]
