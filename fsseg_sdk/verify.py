"""Does a bundle still compute, here and on this backend, what it computed when it was made?"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import file_for
from .bundle import Bundle, GoldenArrays
from .image import read_image
from .segmenter import Segmenter

__all__ = ["Check", "VerifyReport", "golden_error", "verify_bundle"]


@dataclass(frozen=True)
class _Tolerance:
    """features: |difference| <= absolute + relative * |golden|, or, where `energy` is set, the sum
    of squared differences by that of the golden values; logits: where two classes are this close,
    rounding decides; share: of the labelled pixels that may differ for that reason (1 - IoU), None
    where that says nothing: in a coarse precision many pixels may be such ties."""

    relative: float
    absolute: float
    logits: float
    share: float | None
    energy: float | None = None


# What separates runtimes in one precision: sums in another order, other instructions. TF32 and
# float16 keep 11 bits of 24; the largest error of many says little, the error as a whole does:
# 2e-5 for a ResNet-50. bfloat16 keeps 8 bits, and int8 keeps 8 of a range that calibration chose.
# Measured against fp32: 1e-3 for the default bundle's ViT in bf16, 5e-5 for a ResNet-50. In int8
# 2e-2 to 5e-2 for a ResNet-50 with ImageNet's weights and 4e-2 to 9e-2 for the ViT: that much is
# right, a broken runtime is far off. An int8 file that says what it was measured to be off by, as
# those of `export` do, is held against that instead: a broken layer shows there.
_FULL = _Tolerance(1e-3, 1e-4, 1e-3, 0.001)
_TOLERANCES = {
    "fp32": _FULL,
    "fp16": _Tolerance(0.0, 0.0, 5e-2, None, energy=1e-4),
    "bf16": _Tolerance(0.0, 0.0, 0.2, None, energy=4e-3),
    "int8": _Tolerance(0.0, 0.0, 2.0, None, energy=0.15),
}
_MEASURED = 1.5  # times the error that a file states: runtimes round in other places
_LEAST = 3e-3  # an error below it is no figure to multiply


@dataclass(frozen=True)
class Check:
    """One comparison: what it was, whether it held, and the figures."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_bundle` found. digest: sha256 of the bundle's manifest."""

    bundle: str
    digest: str
    backend: str
    device: str
    precision: str
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Every check held, and there was something to check."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python types, for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify_bundle(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> VerifyReport:
    """Recomputes hashes, golden features and golden labels of the bundle at `path`.

    Damage is a BundleError, a backend that cannot be had a BackendError; a report with `ok` False
    means that the file is whole and computes something else here. Without golden vectors nothing
    shows that it works, so that is not ok either.
    """
    bundle = Bundle.open(path)
    segmenter = Segmenter.load(
        path, backend=backend, device=device, precision=precision, threads=threads
    )
    count = len(bundle.manifest.members)
    checks = [Check("hashes", True, f"{count} members are as the manifest says")]
    if bundle.golden is None:
        checks.append(Check("golden vectors", False, "the bundle has none: export it again"))
    else:
        tolerance = _tolerance(bundle, segmenter)
        checks.append(_check_features(segmenter, bundle.golden, tolerance))
        checks.append(_check_labels(segmenter, bundle.golden, tolerance))
    return VerifyReport(
        bundle=bundle.manifest.name,
        digest=bundle.digest,
        backend=segmenter.backend,
        device=segmenter.device,
        precision=segmenter.precision,
        checks=tuple(checks),
        warnings=segmenter.warnings,
    )


def _tolerance(bundle: Bundle, segmenter: Segmenter) -> _Tolerance:
    tolerance = _TOLERANCES[segmenter.precision]
    encoder = bundle.manifest.graphs["encoder"]
    file = file_for(encoder, segmenter.backend, segmenter.precision)
    if file is None or file.error is None:
        return tolerance
    return replace(tolerance, energy=(_MEASURED * max(file.error, _LEAST)) ** 2)


def golden_error(segmenter: Segmenter, golden: GoldenArrays) -> float:
    """How far the features are from the golden ones: the root of the squared error over the
    squared value."""
    return math.sqrt(_energy(golden.features, _golden_features(segmenter, golden)))


def _golden_features(segmenter: Segmenter, golden: GoldenArrays) -> NDArray[np.float32]:
    picture = read_image(golden.image, "golden image")
    features = segmenter._core.encoder.encode([picture]).features[0]
    return features.reshape(len(features), -1)[:, :: golden.every]


def _energy(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    exact = expected.astype(np.float64)
    return float(((found - exact) ** 2).sum()) / max(float((exact**2).sum()), 1e-30)


def _check_features(segmenter: Segmenter, golden: GoldenArrays, tolerance: _Tolerance) -> Check:
    found = _golden_features(segmenter, golden)
    return compare_features(golden.features, found, tolerance)


def compare_features(
    expected: NDArray[np.float32], found: NDArray[np.float32], tolerance: _Tolerance = _FULL
) -> Check:
    """Both [C, n], elementwise or as a whole. NaN in `found` never passes."""
    if tolerance.energy is not None:
        energy = _energy(expected, found)
        return Check(
            "golden features",
            energy <= tolerance.energy,
            f"{found.size} values, squared error {energy:.2g} of theirs, {tolerance.energy:.2g} "
            "is allowed",
        )
    difference = np.abs(found.astype(np.float64) - expected)
    allowed = tolerance.absolute + tolerance.relative * np.abs(expected.astype(np.float64))
    wrong = np.argwhere(~(difference <= allowed))
    if len(wrong):
        channel, cell = (int(index) for index in wrong[0])
        return Check(
            "golden features",
            False,
            f"{len(wrong)} of {found.size} values differ by more than {tolerance.absolute:g} + "
            f"{tolerance.relative:g} x value; the first in channel {channel}, sample {cell}: "
            f"expected {expected[channel, cell]:.6g}, got {found[channel, cell]:.6g}",
        )
    worst = float((difference / allowed).max())
    return Check(
        "golden features",
        True,
        f"{found.size} values, largest difference {difference.max():.3g}, "
        f"{worst:.2%} of what is allowed",
    )


def _check_labels(segmenter: Segmenter, golden: GoldenArrays, tolerance: _Tolerance) -> Check:
    task = segmenter.prepare({"golden": [(golden.image, golden.mask)]})
    result = task.segment(golden.image)
    logits = replace(result, activation="none").scores
    return compare_labels(golden.labels, result.raw_labels, logits, tolerance)


def compare_labels(
    expected: NDArray[np.uint8],
    found: NDArray[np.uint8],
    logits: NDArray[np.float32],
    tolerance: _Tolerance = _FULL,
) -> Check:
    """Labels [H, W] of one class; logits [2, H, W] of `found`. A pixel may differ where its two
    logits are as good as equal; in float32 few may: IoU 0.999, or two pixels in a small picture."""
    differs = expected != found
    count = int(np.count_nonzero(differs))
    margins = np.abs(logits[1].astype(np.float64) - logits[0])[differs]
    beyond = int(np.count_nonzero(~(margins <= 2 * tolerance.logits)))
    union = int(np.count_nonzero((expected > 0) | (found > 0)))
    few = tolerance.share is None or count <= max(2.0, tolerance.share * union)
    iou = 1.0 - count / union if union else 1.0
    detail = f"IoU {iou:.5f}, {count} of {expected.size} pixels differ"
    if beyond:
        detail += f", {beyond} of them by a margin above {2 * tolerance.logits:g}"
    return Check("golden labels", few and not beyond, detail)
