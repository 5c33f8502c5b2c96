"""`python -m training latents`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.processes import choose_device
from training.spfl.make import make_latents
from training.spfl.regions import RegionSettings
from training.spfl.settings import LatentSettings


def counts(text: str) -> tuple[int, ...]:
    """``"50,25,15"``"""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between, as 50,25,15, got {text!r}"
        ) from error


def add_latents(commands: Any, add_folders: Callable[[argparse.ArgumentParser], None]) -> None:
    """Describe the command. add_folders: adds --data-root and --threads."""
    own, cut = LatentSettings(), RegionSettings()
    one = commands.add_parser(
        "latents", help="regions, prototypes and pseudo labels of the pictures of a checkpoint"
    )
    add = one.add_argument
    add("checkpoint", type=Path, help="a run's checkpoint.safetensors, trained by panet")
    add_folders(one)
    add("--out", type=Path, required=True, help="folder of the latents; resumed where it stands")
    add("--regions", type=Path, help="folder of the regions, which other latents may share")
    add("--levels", type=counts, default=(50, 25, 15), help="clusters, as 50,25,15; COCO 75,50,25")
    add("--background-levels", type=counts, help="those of the background, if not the same")
    add("--novel", choices=("drop", "background", "ignore"), help="data.novel, if not the run's")
    add("--side", type=int, help="of the encoder's input, if not the run's")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="of the encoder, if not the run's")
    add("--normalise", action="store_true", help="cluster vectors of unit length")
    add(
        "--least", type=float, default=own.least, help="share of the picture of an object or region"
    )
    add("--threshold", type=float, default=cut.threshold, help="of contours: more, fewer regions")
    add("--seed", type=int, default=own.seed, help="of the clusters")
    add("--device", default="auto", help="auto (default), cpu or cuda")
    add("--workers", type=int, default=1, help="processes that find regions")
    add("--no-pages", action="store_true", help="draw no pictures of what was found")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    background = options.background_levels or options.levels
    if len(background) != len(options.levels):
        raise ValueError(
            f"--background-levels: expected {len(options.levels)} numbers, as --levels has, got "
            f"{len(background)}"
        )
    settings = LatentSettings(
        levels=tuple(zip(options.levels, background, strict=True)),
        normalise=options.normalise,
        least=options.least,
        seed=options.seed,
        side=options.side,
        precision=options.precision,
        novel=options.novel,
        regions=RegionSettings(threshold=options.threshold, least=options.least),
    )
    make_latents(
        options.checkpoint,
        options.data_root,
        options.out,
        settings,
        regions=options.regions,
        device=choose_device(options.device),
        workers=options.workers,
        pages=not options.no_pages,
    )
    return 0
