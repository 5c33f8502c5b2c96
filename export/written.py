"""A bundle in other precisions as a file: written, each of its files verified, or not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.derive import Derivation
from export.int8 import Int8Encoder
from export.parity import Agreement
from export.settings import PrecisionError, PrecisionSettings
from fsseg_sdk.bundle import write_bundle
from fsseg_sdk.verify import VerifyReport, verify_bundle


@dataclass(frozen=True)
class PrecisionReport:
    """What was written. files: bytes of each; agreements, verified: by precision, of int8 by
    flavour. bf16 is not verified: no runtime for CPUs computes it from a file of its own."""

    path: Path
    size: int
    digest: str
    files: Mapping[str, int]
    agreements: Mapping[str, Agreement]
    int8: Int8Encoder | None
    verified: Mapping[str, VerifyReport]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.size / 1e6:.2f} MB, digest {self.digest[:16]}"]
        lines += [f"  {name}: {size / 1e6:.2f} MB" for name, size in self.files.items()]
        lines += [f"  {name} against float32: {a}" for name, a in self.agreements.items()]
        if self.int8 is not None:
            lines.append(str(self.int8))
        for name, report in self.verified.items():
            lines += [
                f"  {name} on {report.backend}, {check.name}: {check.detail}"
                for check in report.checks
            ]
        return "\n".join(lines)


def derive_bundle(
    source: Path | str,
    out: Path | str,
    settings: PrecisionSettings,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> PrecisionReport:
    """Write the bundle `source`, a path or a shipped name, in these precisions.

    Raises:
        PrecisionError: it has no float32 graphs, a precision is too far from float32 (the message
            says layer by layer where the error grows), int8 loses too much whatever is kept, or the
            finished bundle does not verify. Nothing is written then.
        InputError: the calibration pictures are too few or unusable.
    """
    check_name(out)
    return write_derived(Derivation(source, settings, say), out)


def check_name(out: Path | str) -> None:
    """PrecisionError for a name that no bundle has."""
    if Path(out).suffix != ".fsseg":
        raise PrecisionError(f"{out}: expected a name that ends in .fsseg")


def write_derived(made: Derivation, out: Path | str) -> PrecisionReport:
    """See `derive_bundle`."""
    check_name(out)
    out = Path(out)
    # beside the target under another name, as in `export.build`
    partial = out.with_name(f"{out.stem}.partial.fsseg")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        verified = _verify_int8(made, partial)
        digest = write_bundle(partial, made.manifest(), made.members())
        for precision in ("fp32", "fp16"):
            if precision in made.settings.precisions:
                verified[precision] = _verified(partial, precision, "onnxruntime", precision)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    members = made.members()
    files = {name: len(members[name]) for name in members if name.endswith(".onnx")}
    size = out.stat().st_size
    return PrecisionReport(out, size, digest, files, made.agreements, made.int8, verified)


def _verify_int8(made: Derivation, path: Path) -> dict[str, VerifyReport]:
    """Each int8 file, in a bundle that has it alone: where there are two a backend takes one."""
    verified = {}
    for flavour, graph in made.int8.graphs.items() if made.int8 is not None else ():
        alone = made.with_one_int8(flavour)
        write_bundle(path, made.manifest(alone), made.members(alone))
        verified[f"int8 {flavour}"] = _verified(path, "int8", graph.backend, f"int8 {flavour}")
    return verified


def _verified(path: Path, precision: str, backend: str, shown: str) -> VerifyReport:
    report = verify_bundle(path, backend=backend, device="cpu", precision=precision, threads=1)
    if failed := [check for check in report.checks if not check.ok]:
        raise PrecisionError(
            f"the bundle does not verify in {shown} on {backend}: {failed}; it was not written"
        )
    return report
