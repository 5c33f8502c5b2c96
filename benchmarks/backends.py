"""Backend by precision: milliseconds, frames a second, mean-IoU, size of the bundle, parity.

    taskset -c 0 python -m benchmarks backends [--data FOLDER...] [--weights FILE]

The bundle is written anew in every precision (`python -m export`), and each that a backend has
here is measured; what the export or a backend refuses is listed with its reason. --data, or
--data-root with its known sets: labelled pictures for the mean-IoU, and for what a row loses
against the first one in fp32, on the same episodes. The export looks on voc2012 alone, if it is
there, at how much int8 loses. --weights: ImageNet weights of a ResNet-50 (layers 1 to 3,
docs/encoders.md); it is measured at 473x473, too.
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

from benchmarks import report  # noqa: E402
from benchmarks.backend_rows import Rows, panels, show  # noqa: E402
from benchmarks.sets import open_sets  # noqa: E402
from export.build import ExportSettings, export_bundle  # noqa: E402
from export.settings import PRECISIONS, PrecisionError, PrecisionSettings  # noqa: E402
from export.written import derive_bundle  # noqa: E402
from fsseg_sdk import Segmenter, backends  # noqa: E402
from fsseg_sdk.backends import GraphFile  # noqa: E402
from fsseg_sdk.bundle import Bundle  # noqa: E402
from fsseg_sdk.errors import FssegError  # noqa: E402
from fsseg_sdk.segmenter import find_bundle  # noqa: E402
from training.checkpoint import save_checkpoint  # noqa: E402
from training.encoders import encoder_record  # noqa: E402
from training.evaluation import Episode, ProtocolSettings  # noqa: E402
from training.torch_graph import raw_encoder  # noqa: E402

RESNET_SIDE = 473


def main(arguments: Sequence[str]) -> int:
    parser = report.command("backends", __doc__.split("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=5.0, help="for each row")
    add("--data", type=Path, nargs="+", default=[], metavar="FOLDER", help="labelled sets")
    add("--data-root", type=Path, metavar="ROOT", help="holds voc2012 and other labelled sets")
    add("--pictures", type=int, default=40, metavar="N", help="queries of each set; 0: all")
    add("--draws", type=int, default=1, metavar="N", help="examples drawn for each query and class")
    add("--memory", type=float, default=1.0, metavar="GIB", help="for features that are kept")
    add("--weights", type=Path, metavar="FILE", help="of a ResNet-50")
    add("--calibration", type=Path, metavar="DIR", help="pictures for int8")
    add("--most-loss", type=float, default=0.5, help="points that int8 may lose")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options = parser.parse_args(arguments)
    if min(options.threads, options.draws) < 1 or options.pictures < 0 or options.seconds <= 0:
        parser.error("--threads, --draws and --seconds take more than 0, --pictures 0 or more")
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
        report.bars(options.plot, panels(results))
    return 0


def _episodes(options: argparse.Namespace) -> list[Episode]:
    if not options.data and options.data_root is None:
        return []
    sets, left_out = open_sets(options.data, options.data_root)
    for line in left_out:
        print(fill(line, 100))
    draws = [ProtocolSettings(options.pictures, seed=seed) for seed in range(options.draws)]
    episodes = [episode for each in sets for draw in draws for episode in each.episodes(draw)]
    queries = {(episode.dataset, episode.query.key) for episode in episodes}
    names = ", ".join(each.title for each in sets)
    print(f"mean-IoU: {len(episodes)} episodes, 1 shot, with {len(queries)} queries of {names}")
    return episodes


def _searched(options: argparse.Namespace) -> Path | None:
    """The set on which the export looks at what int8 loses; None: drawn pictures."""
    root = [] if options.data_root is None else [options.data_root / "voc2012"]
    there = [path for path in (*options.data, *root) if path.name == "voc2012" and path.is_dir()]
    return there[0] if there else None


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
    settings = PrecisionSettings(
        ("fp32",),
        calibration=options.calibration,
        episodes=_searched(options),
        most_loss=options.most_loss,
    )
    made, refused = _derive(source, folder / Path(name).stem, options.precision, settings)
    exact = Segmenter.load(
        source, backend="onnxruntime", device="cpu", precision="fp32", threads=options.threads
    )
    manifest = Bundle.open(find_bundle(source)).manifest.to_json()
    measured = Rows(exact, manifest, episodes, options.seconds, int(options.memory * 2**30))
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
            row = measured.measure(segmenter)
            members = bundle.manifest.members.items()
            kept = sum(m.bytes for n, m in members if n == file.file or n.endswith(".npy"))
            rows.append({**row, "bundle_mb": kept / 1e6})
    show(name, rows, refused)
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
