"""Render the example pictures, or a small labelled data set, with POV-Ray.

    python examples/render.py pictures [NAME ...]
    python examples/render.py dataset OUT [--count 60] [--seed 0] [--size 320]

The same arguments give the same pictures. Masks come from a second pass in flat colours: exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import povray
from kinds import CLASSES
from layout import write_dataset, write_mask, write_picture
from numpy.typing import NDArray
from parts import CLUTTER, PARTS
from pictures import CASES, SHOTS, annotation
from PIL import Image
from scene import Camera, Scene, arrange
from textures import SURFACES

PICTURES = Path(__file__).parent / "pictures"
PERCENT_BYTES_PER_PIXEL = 18  # 1024 x 768: 142 kB


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene for the data set: two to four classes on any surface but cloth, in any light."""
    surface = str(rng.choice([name for name in SURFACES if name != "linen"]))
    kinds = [str(kind) for kind in rng.choice(PARTS, int(rng.integers(2, 5)), replace=False)]
    kinds += [str(kind) for kind in rng.choice(kinds, int(rng.integers(0, 4)))]
    kinds += [str(kind) for kind in rng.choice(CLUTTER, int(rng.integers(0, 3)))]
    camera = Camera(
        float(rng.uniform(13, 19)),
        float(rng.uniform(0, 42)),
        float(rng.uniform(-25, 25)),
        float(rng.uniform(18, 40)),
    )
    rail = float(rng.uniform(5.5, 8)) if "belt" in surface and rng.random() < 0.6 else inf
    items = arrange(kinds, camera, rng, size=float(rng.uniform(0.85, 1.15)), rail=rail)
    return Scene(
        surface, str(rng.choice(povray.LIGHTS)), camera, items, int(rng.integers(1 << 30)), rail
    )


def dataset(out: Path, count: int, seed: int, size: int) -> None:
    """Render `count` pictures of `size` x 3/4 `size` pixels and write them as a data set."""

    def pictures() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for number in range(count):
            scene = random_scene(np.random.default_rng([seed, number]))
            with tempfile.TemporaryDirectory() as folder:
                yield povray.render(
                    scene, (size, size * 3 // 4), Path(folder), fine=False, noise=0.010
                )
            print(f"{number + 1}/{count}", file=sys.stderr)

    write_dataset(
        out,
        "parts",
        PARTS,
        f"examples/render.py dataset --seed {seed} --size {size}",
        pictures(),
        "rendered with POV-Ray",
    )


def render_picture(name: str, scratch: Path) -> None:
    """Render one example picture, and its mask with all classes, as PNG into `scratch`."""
    start = time.monotonic()
    shot = SHOTS[name]
    with tempfile.TemporaryDirectory() as folder:
        picture, mask = povray.render(shot.scene(), shot.size, Path(folder))
    write_mask(scratch / f"{name}.mask.png", mask)
    Image.fromarray(picture).save(scratch / f"{name}.png")
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)


def publish(scratch: Path) -> None:
    """Write the pictures, the masks for the cases and cases.json from what `scratch` holds."""

    def everything(name: str) -> NDArray[np.uint8]:
        return np.array(Image.open(scratch / f"{name}.mask.png"))

    def labels(name: str, kinds: list[str]) -> str:
        mask = everything(name)
        chosen = np.zeros_like(mask)
        for number, kind in enumerate(kinds):
            chosen[mask == CLASSES.index(kind) + 1] = number + 1
        file = f"{name}.{'-'.join(kinds)}.png"
        write_mask(PICTURES / file, chosen)
        return file

    def shot(kind: str, name: str, way: str) -> dict[str, Any]:
        if way == "mask":
            return {"image": f"{name}.webp", "mask": labels(name, [kind])}
        return {"image": f"{name}.webp", **annotation(kind, way, SHOTS[name], everything(name))}

    PICTURES.mkdir(exist_ok=True)
    for name in SHOTS:
        picture = np.array(Image.open(scratch / f"{name}.png"))
        write_picture(
            PICTURES / f"{name}.webp",
            picture,
            PERCENT_BYTES_PER_PIXEL * picture.shape[0] * picture.shape[1] // 100,
        )
    cases = [
        {
            "name": case.name,
            "title": case.title,
            "support": {
                kind: [shot(kind, *pair) for pair in pairs] for kind, pairs in case.support.items()
            },
            "queries": [
                {"image": f"{name}.webp", "truth": labels(name, list(case.support))}
                for name in case.queries
            ],
        }
        for case in CASES
    ]
    (PICTURES / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def main() -> int:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    example = modes.add_parser("pictures", help="the example pictures, their masks and cases.json")
    example.add_argument(
        "names", nargs="*", metavar="NAME", help="only these (default: all, 10 minutes)"
    )
    example.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()) / "fsseg-examples",
        help="where uncompressed renders are kept (default: %(default)s)",
    )
    data = modes.add_parser("dataset", help="a labelled data set")
    data.add_argument("out", type=Path)
    data.add_argument("--count", type=int, default=60)
    data.add_argument("--seed", type=int, default=0)
    data.add_argument("--size", type=int, default=320, help="width in pixels (default: 320)")
    arguments = parser.parse_args()
    if not povray.available():
        parser.error("povray is missing (Debian: apt-get install povray); draw.py does without")
    if arguments.mode == "dataset":
        if (arguments.out / "index.jsonl").exists():
            parser.error(f"{arguments.out} holds a data set already; name an empty folder")
        dataset(arguments.out, arguments.count, arguments.seed, arguments.size)
        return 0
    unknown = sorted(set(arguments.names) - set(SHOTS))
    if unknown:
        parser.error(f"no picture named {', '.join(unknown)}; there are {', '.join(SHOTS)}")
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SHOTS:
        render_picture(name, arguments.scratch)
    missing = [name for name in SHOTS if not (arguments.scratch / f"{name}.png").exists()]
    if missing:
        print(f"not published yet; still to render: {', '.join(missing)}", file=sys.stderr)
    else:
        publish(arguments.scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
