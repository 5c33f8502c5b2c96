"""The compiled kernels (csrc/bound_ops.h). Use fsseg_sdk.ops, which checks; this only computes.

Every op writes into ``out`` and returns False if it met a value that is not finite.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

max_threads: int
cuda_built: bool
cuda_reason: str

_Array = NDArray[Any]

def grid_weights(
    masks: _Array, extent_h: float, extent_w: float, out: _Array, threads: int
) -> bool: ...
def weighted_pool(
    features: _Array, weights: _Array, eps: float, out: _Array, threads: int
) -> bool: ...
def cosine_match(
    features: _Array, prototypes: _Array, scale: float, softmax: bool, out: _Array, threads: int
) -> bool: ...
def linear_match(
    features: _Array, weights: _Array, bias: _Array, out: _Array, threads: int
) -> bool: ...
def nearest(
    features: _Array,
    rows: _Array,
    group: _Array,
    groups: int,
    bf16: bool,
    packed: _Array | None,
    out: _Array,
    threads: int,
) -> bool: ...
def nearest_pack(
    rows: _Array, group: _Array, groups: int, bf16: bool, out: _Array, threads: int
) -> bool: ...
def logistic_fit(
    cells: _Array,
    targets: _Array,
    weights: _Array,
    rate: float,
    momentum: float,
    l2: float,
    weight: _Array,
    bias: _Array,
    losses: _Array,
    threads: int,
) -> bool: ...
def distance_stats(
    features: _Array, prototypes: _Array, weights: _Array | None, out: _Array, threads: int
) -> bool: ...
def soft_pool(
    features: _Array,
    prototypes: _Array,
    ways: _Array,
    parts: int,
    scale: float,
    radius: _Array | None,
    weights: _Array | None,
    vectors: _Array,
    mass: _Array,
    threads: int,
) -> bool: ...
def prototype_fusion(
    features: _Array,
    ways: _Array,
    background: _Array,
    sums: _Array,
    counts: _Array,
    scale: float,
    distilled: bool,
    threshold: tuple[_Array, _Array, _Array, float] | None,
    radius: float,
    weights: _Array | None,
    out: Sequence[_Array],
    threads: int,
) -> bool: ...
def online_mlp_fit(
    samples: Sequence[tuple[_Array, _Array]],
    mlp: Sequence[_Array],
    learning_rate: float,
    momentum: float,
    dropout: float,
    length: float,
    seed: int,
    bf16: bool,
    out: Sequence[_Array],
    losses: _Array,
    threads: int,
) -> tuple[bool, bool]: ...
def online_mlp_scores(
    features: _Array, mlp: Sequence[_Array], length: float, bf16: bool, out: _Array, threads: int
) -> bool: ...
def upsample_argmax(
    logits: _Array,
    extent_h: float,
    extent_w: float,
    labels: _Array | None,
    out: _Array,
    threads: int,
) -> bool: ...
def preprocess(
    image: _Array,
    content_h: int,
    content_w: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    out: _Array,
    threads: int,
) -> bool: ...
def _nearest_bytes(rows: _Array, group: _Array, groups: int, bf16: bool) -> int: ...
def _simd() -> str: ...
def _set_simd(level: str) -> bool: ...
def _levels_built() -> list[str]: ...
def _levels_usable() -> list[str]: ...
def _bf16() -> str: ...
def _set_bf16(unit: str) -> bool: ...
def _bf16_usable() -> list[str]: ...
def _read_probe(array: _Array, streams: int) -> float: ...

class cuda:
    """The submodule: exists where ``cuda_built``. It also has every op above, on DeviceArrays."""

    class DeviceContext:
        device: int
        stream: int
        lost: bool
        held: int
        _allocations: int
        def __init__(
            self, device: int = 0, stream: int | None = None, *, own_stream: bool = False
        ) -> None: ...
        def trim(self) -> int: ...
        def synchronize(self) -> None: ...
        def record(self) -> cuda.RecordedGraph: ...
        def _wait(self) -> None: ...
        def array(self, values: _Array, dtype: str | None = None) -> cuda.DeviceArray: ...
        def empty(self, shape: Sequence[int], dtype: str = "float32") -> cuda.DeviceArray: ...
        def _numbers(self, values: _Array, least: int, end: int) -> cuda.DeviceArray: ...
        def _from_dlpack(self, source: object, argument: str) -> cuda.DeviceArray: ...
        def _from_interface(self, source: object, argument: str) -> cuda.DeviceArray: ...
        def _from_context(self, source: cuda.DeviceArray, argument: str) -> cuda.DeviceArray: ...

    class RecordedGraph:
        """What was enqueued in ``with context.record() as graph:``, to be enqueued again."""

        context: cuda.DeviceContext
        def __enter__(self) -> cuda.RecordedGraph: ...
        def __exit__(self, error: object, value: object, trace: object) -> None: ...
        def replay(self) -> None: ...

    class DeviceArray:
        shape: tuple[int, ...]
        strides: tuple[int, ...]
        dtype: str
        ndim: int
        size: int
        itemsize: int
        nbytes: int
        is_contiguous: bool
        pointer: int
        context: cuda.DeviceContext
        device: int
        stream: int
        __cuda_array_interface__: dict[str, Any]
        def contiguous(self) -> cuda.DeviceArray: ...
        def write(self, values: _Array | cuda.DeviceArray) -> None: ...
        def to_host(self) -> _Array: ...
        def _peek(self) -> _Array: ...
        def _with_report(self) -> tuple[_Array, int]: ...
        def __len__(self) -> int: ...
        def __getitem__(self, index: int | slice) -> cuda.DeviceArray: ...
        def _view(
            self, shape: Sequence[int], steps: Sequence[int], offset: int = 0
        ) -> cuda.DeviceArray: ...
        def __dlpack_device__(self) -> tuple[int, int]: ...
        def __dlpack__(
            self,
            *,
            stream: int | None = None,
            max_version: tuple[int, int] | None = None,
            dl_device: tuple[int, int] | None = None,
            copy: bool | None = None,
        ) -> Any: ...

    # The ops, as above, on DeviceArrays.
    grid_weights: Any
    weighted_pool: Any
    cosine_match: Any
    linear_match: Any
    nearest: Any
    nearest_pack: Any
    logistic_fit: Any
    distance_stats: Any
    soft_pool: Any
    prototype_fusion: Any
    online_mlp_fit: Any
    online_mlp_scores: Any
    upsample_argmax: Any
    preprocess: Any
    _nearest_bytes: Any

    not_finite: int
    diverged: int
    @staticmethod
    def _first_largest(planes: DeviceArray, parts: int, out: DeviceArray) -> None: ...
    @staticmethod
    def _blend(
        into: DeviceArray, other: DeviceArray, factor: float, other_factor: float
    ) -> None: ...
    @staticmethod
    def devices() -> list[dict[str, Any]]: ...
    @staticmethod
    def _device_of(address: int) -> int: ...
