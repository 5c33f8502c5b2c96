"""Backend by precision: milliseconds, frames a second, mean-IoU, size of the bundle, parity.

    taskset -c 0 python -m benchmarks backends [--data-root ROOT] [--weights FILE]

The bundle is written anew in every precision (`python -m export`), and each that a backend has
here is measured; what the export or a backend refuses is listed with its reason. --data-root: its
voc2012 is what int8's loss is measured on, and all its sets give the mean-IoU. --weights: ImageNet
weights of a ResNet-50 (layers 1 to 3, docs/encoders.md); it is measured at 473x473, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy and torch are loaded

import numpy as np  # noqa: E402

from benchmarks import report, stages  # noqa: E402
from benchmarks.sets import open_sets  # noqa: E402
from export.build import ExportSettings, export_bundle  # noqa: E402
from export.wanted import PRECISIONS, PrecisionError, PrecisionSettings  # noqa: E402
from export.written import derive_bundle  # noqa: E402
from fsseg_sdk import Segmenter, backends  # noqa: E402
from fsseg_sdk.backends import GraphFile  # noqa: E402
from fsseg_sdk.bundle import Bundle  # noqa: E402
from fsseg_sdk.errors import FssegError  # noqa: E402
from fsseg_sdk.image import read_image  # noqa: E402
from training.checkpoint import save_checkpoint  # noqa: E402
from training.encoders import encoder_record  # noqa: E402
from training.evaluation import Episode, ProtocolSettings  # noqa: E402
from training.evaluation.heldout import evaluate  # noqa: E402
from training.remembering import RememberingGraph  # noqa: E402
from training.scenes import draw_pair  # noqa: E402
from training.torch_graph import raw_encoder  # noqa: E402

SIDE, RESNET_SIDE = 480, 473


def main(arguments: Sequence[str]) -> int:
    parser = report.command("backends", __doc__.split("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=5.0, help="for each row")
    add("--data-root", type=Path, metavar="ROOT", help="holds voc2012 and other labelled sets")
    add("--pictures", type=int, default=40, metavar="N", help="queries of each set")
    add("--weights", type=Path, metavar="FILE", help="of a ResNet-50")
    add("--calibration", type=Path, metavar="DIR", help="pictures for int8")
    add("--most-loss", type=float, default=0.5, help="points that int8 may lose")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.pictures < 1 or options.seconds <= 0:
        parser.error("--threads, --pictures and --seconds take more than 0")
    print(report.where())
    results: dict[str, Any] = {}
    try:
        episodes = _episodes(options)
        with tempfile.TemporaryDirectory() as folder:
            for name, source in _sources(options, Path(folder)).items():
                results[name] = _measure(name, source, Path(folder), episodes, options)
    except (FssegError, PrecisionError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    report.write_report(options.json, options, results)
    if options.plot:
        report.bars(options.plot, _panels(results))
    return 0


def _episodes(options: argparse.Namespace) -> list[Episode]:
    if options.data_root is None:
        return []
    sets, left_out = open_sets([], options.data_root)
    for line in left_out:
        print(fill(line, 100))
    settings = ProtocolSettings(options.pictures)
    return [episode for each in sets for episode in each.episodes(settings)]


def _sources(options: argparse.Namespace, folder: Path) -> dict[str, Path | str]:
    """The bundles in float32, by what they are called."""
    sources: dict[str, Path | str] = {Path(options.bundle).name: options.bundle}
    if options.weights is not None:
        encoder = raw_encoder("resnet50", options.weights)
        tensors = {f"encoder.{key}": t for key, t in encoder.state_dict().items()}
        header = {
            "method": {"name": "panet", "settings": {}},
            "encoder": encoder_record("resnet50"),
            "settings": {},
            "iteration": 0,
            "initial": None,
        }
        save_checkpoint(folder / "resnet50.safetensors", tensors, header)
        settings = ExportSettings("ResNet-50", (RESNET_SIDE, RESNET_SIDE), storage="float32")
        export_bundle(folder / "resnet50.safetensors", folder / "resnet50.fsseg", settings)
        sources["ResNet-50"] = folder / "resnet50.fsseg"
    return sources


def _measure(
    name: str,
    source: Path | str,
    folder: Path,
    episodes: list[Episode],
    options: argparse.Namespace,
) -> dict[str, Any]:
    labelled = None if options.data_root is None else options.data_root / "voc2012"
    settings = PrecisionSettings(
        ("fp32",),
        calibration=options.calibration,
        episodes=labelled if labelled is not None and labelled.is_dir() else None,
        most_loss=options.most_loss,
        queries=options.pictures,
    )
    made, refused = _derive(source, folder / Path(name).stem, options.precision, settings)
    exact = Segmenter.load(
        source, backend="onnxruntime", device="cpu", precision="fp32", threads=options.threads
    )
    rows = []
    for status in backends.probe():
        if not status.available:
            refused.append(f"{status.name} on {status.device}: {status.reason}")
            continue
        for precision in options.precision:
            found = _file_of(made, precision, status.name)
            if precision not in status.precisions or found is None:
                continue
            bundle, file = found
            try:
                segmenter = Segmenter.load(
                    bundle.path,
                    backend=status.name,
                    device=status.device,
                    precision=precision,
                    threads=options.threads,
                )
            except FssegError as error:
                refused.append(f"{status.name} on {status.device}, {precision}: {error}")
                continue
            row = _row(segmenter, exact, episodes, options.seconds)
            members = bundle.manifest.members.items()
            kept = sum(m.bytes for n, m in members if n == file.file or n.endswith(".npy"))
            rows.append({**row, "bundle_mb": kept / 1e6})
    _show(name, rows, refused)
    return {"rows": rows, "refused": refused}


def _derive(
    source: Path | str, stem: Path, precisions: Sequence[str], settings: PrecisionSettings
) -> tuple[dict[str, Bundle], list[str]]:
    """A bundle for each precision, and what could not be made, with its reason. One that fails
    costs the others nothing."""
    made, refused = {}, []
    for precision in dict.fromkeys(("fp32", *precisions)):  # fp32: bf16 may be rounded from it
        out = stem.with_name(f"{stem.name}-{precision}.fsseg")
        try:
            derive_bundle(source, out, replace(settings, precisions=(precision,)))
        except (FssegError, PrecisionError, ValueError) as error:
            refused.append(f"{precision}: {str(error).splitlines()[0]}")
            continue
        made[precision] = Bundle.open(out)
    return made, refused


def _file_of(
    made: Mapping[str, Bundle], precision: str, backend: str
) -> tuple[Bundle, GraphFile] | None:
    """The bundle whose encoder a backend takes for a precision, and its file."""
    for kind in (precision, "fp32"):
        if kind in made:
            encoder = made[kind].manifest.graphs["encoder"]
            file = backends.file_for(encoder, backend, precision)
            if file is not None:
                return made[kind], file
    return None


def _row(
    segmenter: Segmenter, exact: Segmenter, episodes: list[Episode], seconds: float
) -> dict[str, Any]:
    (shown, families), (query, _) = draw_pair(np.random.default_rng(1), SIDE)
    support = {"thing": (shown, families == 1)}
    task = segmenter.prepare(support)
    times = stages.measure(task, query, seconds)
    features, expected = (
        s._core.encoder.encode([read_image(query)]).features for s in (segmenter, exact)
    )
    error = float(np.sqrt(np.square(features - expected).sum() / np.square(expected).sum()))
    row: dict[str, Any] = {
        "backend": segmenter.backend,
        "device": segmenter.device,
        "precision": segmenter.precision,
        "ms": times["total"]["p50"],
        "encoder_ms": times["encoder"]["p50"],
        "fps": times["fps"],
        "feature_error": error,
        "warnings": list(segmenter.warnings),
    }
    if episodes:
        core = segmenter._core
        kept = RememberingGraph(core.encoder.graph, 1 << 30, half=True)
        described = {
            "method": {"name": segmenter.method, "settings": _settings_of(segmenter)},
            "input": {
                "size": list(core.encoder.input_size),
                "geometry": core.encoder.geometry,
                "mean": list(core.encoder.mean),
                "std": list(core.encoder.std),
            },
            "features": {"channels": core.encoder.channels, "grid": list(core.encoder.grid)},
        }
        remembering = Segmenter({**core.graphs, "encoder": kept}, described, threads=core.threads)
        row["mean_iou"] = evaluate(remembering, episodes, "episodes").mean_iou()
    return row


def _settings_of(segmenter: Segmenter) -> Any:
    from fsseg_sdk.methods.settings import settings_to_json

    return settings_to_json(segmenter.settings)


def _show(name: str, rows: list[dict[str, Any]], refused: list[str]) -> None:
    first = next((row["ms"] for row in rows if row["precision"] == "fp32"), float("nan"))
    cells = [
        ["backend", "precision", "ms", "encoder", "FPS", "times", "mean-IoU", "MB", "feature error"]
    ]
    for row in rows:
        iou = f"{row['mean_iou']:.2f} %" if "mean_iou" in row else ""
        place = "" if row["device"] == "cpu" else f" {row['device']}"
        cells.append(
            [
                f"{row['backend']}{place}",
                row["precision"],
                f"{row['ms']:.1f}",
                f"{row['encoder_ms']:.1f}",
                f"{row['fps']:.1f}",
                f"{first / row['ms']:.2f}",
                iou,
                f"{row['bundle_mb']:.1f}",
                f"{row['feature_error']:.2%}",
            ]
        )
    print(f"\n{name}: a query of {SIDE}x{SIDE}, one thread each; times as fast as the first fp32")
    print(report.table(cells))
    for line in (*refused, *dict.fromkeys(note for row in rows for note in row["warnings"])):
        print(fill(line, 100))


def _panels(results: Mapping[str, Any]) -> list[tuple[str, dict[str, dict[str, float]], str]]:
    panels: list[tuple[str, dict[str, dict[str, float]], str]] = []
    for name, result in results.items():
        for key, label in (("ms", "ms a query"), ("mean_iou", "mean-IoU, %")):
            groups: dict[str, dict[str, float]] = {}
            for row in result["rows"]:
                if key in row:
                    group = groups.setdefault(f"{row['backend']} {row['device']}", {})
                    group[row["precision"]] = row[key]
            if groups:
                panels.append((name, groups, label))
    return panels
