"""A bundle in other precisions: every graph in each of them, compared with float32, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.agreement import Agreement, SimulatedGraph, compare_precision
from export.calibrate import inputs_of, read_pictures
from export.eight import EightBits, make_int8
from export.entries import entry_of_files, exact_file, one_picture
from export.onnx_graph import store_half
from export.plain import fixed_to_one, plain
from export.precision import to_half
from export.wanted import HALVES, PrecisionError, PrecisionReport, PrecisionSettings
from fsseg_sdk.backends import Graph, GraphFile, open_graphs
from fsseg_sdk.bundle import Bundle, write_bundle
from fsseg_sdk.image import read_image
from fsseg_sdk.segmenter import find_bundle
from fsseg_sdk.verify import VerifyReport, verify_bundle
from training.scenes import draw_pair


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def derive_bundle(
    source: Path | str,
    out: Path | str,
    settings: PrecisionSettings,
    say: Callable[[str], None] = _say,
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
        digest = write_bundle(partial, made.manifest, made.members)
        verified = tuple(_verify(partial, precision) for precision in made.settings.precisions)
        reports = tuple(report for report in verified if report is not None)
        for report in reports:
            if failed := [check for check in report.checks if not check.ok]:
                raise PrecisionError(
                    f"the bundle does not verify in {report.precision}: {failed}; "
                    "it was not written"
                )
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    files = {name: len(made.members[name]) for name in made.members if name.endswith(".onnx")}
    size = out.stat().st_size
    return PrecisionReport(out, size, digest, files, made.agreements, made.eight, reports)


def _verify(path: Path, precision: str) -> VerifyReport | None:
    """None for bf16, which no runtime for CPUs computes from a file of its own."""
    if precision == "bf16":
        return None
    backend = "onnxruntime" if precision in ("fp32", "fp16") else "auto"
    return verify_bundle(path, backend=backend, device="cpu", precision=precision, threads=1)


class Derivation:
    """The parts of a bundle in other precisions: manifest, members, and how far each is off."""

    def __init__(
        self,
        source: Path | str,
        settings: PrecisionSettings,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings, self.say = settings, say
        self.bundle = Bundle.open(find_bundle(source))
        self.old = cast("dict[str, Any]", self.bundle.manifest.to_json())
        self.specs = dict(self.bundle.manifest.graphs)
        self.exact_files = {name: exact_file(name, spec) for name, spec in self.specs.items()}
        self.exact = self._open_exact()
        models = {name: plain(self.data(file)) for name, file in self.exact_files.items()}
        if settings.one:
            models["encoder"] = fixed_to_one(models["encoder"])
            self.specs["encoder"] = one_picture(self.specs["encoder"])
        self.models: dict[str, ModelProto] = models
        self.files: dict[str, list[tuple[GraphFile, bytes]]] = {name: [] for name in self.specs}
        self.agreements: dict[str, Agreement] = {}
        self.eight: EightBits | None = None
        for precision in settings.precisions:
            self._add(precision)
        self._add_fallbacks()

    def data(self, file: GraphFile) -> bytes:
        return bytes(self.bundle.member(file.file))

    def _open_exact(self) -> dict[str, Graph]:
        specs = {name: self.specs[name].only(file) for name, file in self.exact_files.items()}
        ordered = {"encoder": specs["encoder"], **specs}
        return open_graphs(
            ordered,
            self.bundle.member,
            backend="onnxruntime",
            device="cpu",
            precision="fp32",
            threads=1,
        )

    def _add(self, precision: str) -> None:
        self.say(f"{precision}:")
        if precision == "fp32":
            for name in self.exact_files:
                self.files[name].append(self._exact_file(name))
        elif precision in HALVES:
            self._add_half(precision)
        else:
            self._add_int8()

    def _exact_file(self, name: str) -> tuple[GraphFile, bytes]:
        """The float32 graph with its constants folded: TensorRT cannot resize a ViT's positions.
        Weights are stored as before, where float16 holds them exactly."""
        data = self.models[name].SerializeToString()
        half = self.exact_files[name].storage == "float16"
        file = GraphFile(f"{name}.onnx", "float16" if half else "float32", "float32")
        return file, store_half(data) if half else data

    def _add_half(self, precision: str) -> None:
        kind = HALVES[precision]
        lower: dict[str, Graph] = {}
        for name, model in self.models.items():
            data = to_half(model, kind)
            spec = self.specs[name].only(GraphFile(f"{name}.{precision}.onnx", kind, kind))
            lower[name] = SimulatedGraph(data, spec, precision)
            self.files[name].append((spec.files[0], data))
        found = compare_precision(precision, self.exact, lower, self.old, self.feeds())
        self._accept(precision, found, self.files["encoder"][-1][1])

    def _add_int8(self) -> None:
        pictures = read_pictures(self.settings.calibration)
        self.say(f"  calibrating on {len(pictures)} pictures")
        feeds = inputs_of(pictures, self.old["input"])
        self.eight = make_int8(
            self.models["encoder"],
            self.specs["encoder"],
            self.exact,
            self.old,
            feeds,
            self.settings,
            lambda graph: self._compare_int8(graph).ok,
            self.say,
        )
        if not self.eight.search.enough:
            raise PrecisionError(
                f"int8 loses {self.settings.most_loss:g} points of mean-IoU or more even with "
                f"{len(self.eight.search.kept)} layers in float32; nothing was written\n"
                f"{self.eight}"
            )
        for flavour, data in self.eight.files.items():
            name = f"encoder.int8-{flavour}.onnx"
            file = GraphFile(name, "int8", "int8", flavour)
            self._accept(f"int8 {flavour}", self._compare_int8(self.eight.graphs[flavour]), None)
            self.files["encoder"].append((file, data))

    def _compare_int8(self, encoder: Graph) -> Agreement:
        lower = {**self.exact, "encoder": encoder}
        return compare_precision("int8", self.exact, lower, self.old, self.feeds())

    def _accept(self, name: str, found: Agreement, data: bytes | None) -> None:
        self.agreements[name] = found
        self.say(f"  {found}")
        if not found.ok:
            table = str(self.eight) if data is None else self._table(data)
            raise PrecisionError(
                f"{name} is too far from float32: {found}; nothing was written\n{table}"
            )

    def _table(self, data: bytes) -> str:
        """Layer by layer, of a half-precision encoder."""
        from export.layers import layer_table, summed_errors
        from export.precision import simulated

        return layer_table(summed_errors(self.models["encoder"], simulated(data), self.feeds()[:2]))

    def _add_fallbacks(self) -> None:
        """A head without a file of a precision runs in float32: then it needs that file."""
        for name, files in self.files.items():
            computes = {file.compute for file, _ in files}
            if (
                name != "encoder"
                and "float32" not in computes
                and (not files or "int8" in self.settings.precisions)
            ):
                files.insert(0, self._exact_file(name))

    def feeds(self) -> list[dict[str, NDArray[np.float32]]]:
        """A drawn scene, and noise, which reaches what a scene does not."""
        scene = draw_pair(np.random.default_rng(3), 96)[0][0]
        noise = np.random.default_rng(0).integers(0, 256, scene.shape).astype(np.uint8)
        return inputs_of([read_image(scene), read_image(noise)], self.old["input"])

    @property
    def members(self) -> dict[str, bytes]:
        golden = self.old.get("golden", {})
        kept = [value for value in golden.values() if isinstance(value, str)]
        return {
            **{file.file: data for files in self.files.values() for file, data in files},
            **{name: bytes(self.bundle.member(name)) for name in kept},
        }

    @property
    def manifest(self) -> dict[str, Any]:
        new = {
            k: v for k, v in self.old.items() if k not in ("format", "format_version", "members")
        }
        new["name"] = self.settings.name or self.old["name"]
        new["graphs"] = {
            name: entry_of_files(self.specs[name], [file for file, _ in files])
            for name, files in self.files.items()
        }
        facts: dict[str, Any] = {
            name: {"feature_error": round(a.features, 5), "label_iou": round(a.iou, 4)}
            for name, a in self.agreements.items()
        }
        if self.eight is not None:
            facts["int8"] = self.eight.facts()
        new["provenance"] = {
            **self.old["provenance"],
            "derived_from": self.bundle.digest,
            "precisions": facts,
        }
        return new
