"""A bundle in other precisions: every graph in each of them, compared with float32, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.calibrate import inputs_of, read_pictures
from export.half import Half, to_half
from export.int8 import Int8Encoder, make_int8
from export.manifest import graph_entry
from export.onnx_graph import store_half
from export.parity import Agreement, AsWritten, compare_precision
from export.plain import fixed_to_one, one_picture, plain
from export.settings import PrecisionError, PrecisionSettings
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphFile, GraphSpec, open_graphs
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.image import read_image
from fsseg_sdk.segmenter import find_bundle
from fsseg_sdk.verify import golden_error
from training.scenes import draw_pair

HALVES: Mapping[str, Half] = {"fp16": "float16", "bf16": "bfloat16"}
FAR = 1.5  # times the error that a file has by itself
Files = Mapping[str, Sequence[tuple[GraphFile, bytes]]]


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
        self.int8: Int8Encoder | None = None
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
            lower[name] = AsWritten(data, spec, precision)
            self.files[name].append((spec.files[0], data))
        found = compare_precision(precision, self.exact, lower, self.old, self.feeds())
        self._accept(precision, found, self.files["encoder"][-1][1])

    def _add_int8(self) -> None:
        pictures = read_pictures(self.settings.calibration)
        self.say(f"  calibrating on {len(pictures)} pictures")
        feeds = inputs_of(pictures, self.old["input"])
        self.int8 = make_int8(
            self.models["encoder"],
            self.specs["encoder"],
            self.exact,
            self.old,
            feeds,
            self.settings,
            lambda graph: self._compare_int8(graph).ok,
            self.say,
        )
        if not self.int8.search.enough:
            raise PrecisionError(self._too_much(self.int8))
        for flavour, data in self.int8.files.items():
            name, graph = f"encoder.int8-{flavour}.onnx", self.int8.graphs[flavour]
            file = GraphFile(name, "int8", "int8", flavour, self._golden_error(data, graph))
            self._accept(f"int8 {flavour}", self._compare_int8(graph), None)
            self.files["encoder"].append((file, data))

    def _too_much(self, int8: Int8Encoder) -> str:
        most, kept = self.settings.most_loss, len(int8.search.kept)
        text = (
            f"int8 may lose {most:g} points of mean-IoU or more even with {kept} layers in float32"
        )
        if any(cost.open(most) for cost in int8.costs.values()):
            text += ": too few episodes to tell; give more labelled pictures (--episodes)"
        return f"{text}; nothing was written\n{int8}"

    def _golden_error(self, data: bytes, graph: Graph) -> float | None:
        """Of an int8 encoder on the golden picture: in the runtime that it was judged in, or
        computed as it is written, whichever is more. A runtime that is far from what is written
        is told."""
        if self.bundle.golden is None:
            return None
        as_written = AsWritten(data, self.specs["encoder"], "int8")
        written, run = (
            golden_error(
                Segmenter({**self.exact, "encoder": encoder}, self.old, threads=1),
                self.bundle.golden,
            )
            for encoder in (as_written, graph)
        )
        if run > FAR * written:
            self.say(
                f"  {graph.backend} is {run:.2%} off on the golden picture, where the file as it "
                f"is written is {written:.2%} off"
            )
        return round(max(written, run), 5)

    def _compare_int8(self, encoder: Graph) -> Agreement:
        lower = {**self.exact, "encoder": encoder}
        return compare_precision("int8", self.exact, lower, self.old, self.feeds())

    def _accept(self, name: str, found: Agreement, data: bytes | None) -> None:
        self.agreements[name] = found
        self.say(f"  {found}")
        if not found.ok:
            table = str(self.int8) if data is None else self._table(data)
            raise PrecisionError(
                f"{name} is too far from float32: {found}; nothing was written\n{table}"
            )

    def _table(self, data: bytes) -> str:
        """Layer by layer, of a half-precision encoder."""
        from export.half import simulated
        from export.layers import layer_table, summed_errors

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

    def with_one_int8(self, flavour: str) -> Files:
        """The files of a bundle that has of its int8 files this one alone, and fp32 for heads."""
        wrong = [name for name in self.settings.flavours if name != flavour]
        return {
            graph: [(file, data) for file, data in own if file.flavour not in wrong]
            for graph, own in self.files.items()
        }

    def members(self, files: Files | None = None) -> dict[str, bytes]:
        """Of the bundle with these files, by default all."""
        golden = self.old.get("golden", {})
        kept = [value for value in golden.values() if isinstance(value, str)]
        return {
            **{file.file: data for own in (files or self.files).values() for file, data in own},
            **{name: bytes(self.bundle.member(name)) for name in kept},
        }

    def manifest(self, files: Files | None = None) -> dict[str, Any]:
        """Of the bundle with these files, by default all."""
        new = {
            k: v for k, v in self.old.items() if k not in ("format", "format_version", "members")
        }
        new["name"] = self.settings.name or self.old["name"]
        new["graphs"] = {
            name: graph_entry(self.specs[name], [file for file, _ in own])
            for name, own in (files or self.files).items()
        }
        facts: dict[str, Any] = {
            name: {"feature_error": round(a.features, 5), "label_margin": round(a.margin, 4)}
            for name, a in self.agreements.items()
        }
        if self.int8 is not None:
            facts["int8"] = self.int8.facts()
        new["provenance"] = {
            **self.old["provenance"],
            "derived_from": self.bundle.digest,
            "precisions": facts,
        }
        return new


def exact_file(name: str, spec: GraphSpec) -> GraphFile:
    for file in spec.files:
        if file.compute == "float32":
            return file
    raise PrecisionError(
        f"graph {name!r}: expected a file that computes in float32, got "
        f"{', '.join(map(str, spec.files))}. Start from the bundle that this one was made of."
    )
