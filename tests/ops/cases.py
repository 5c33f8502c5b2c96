"""The case table of every op: what the conformance suite, the replayer and the benchmarks run.

Adding an op means adding its rows: here, or to feature_cases.py for an op that reads feature maps;
those of online_mlp are in mlp_cases.py, of soft_pool and prototype_fusion in fusion_cases.py, of
nearest and logistic_fit in neighbour_cases.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.ops import feature_cases, fusion_cases, mlp_cases, neighbour_cases
from tests.ops.case import Arguments, Case
from tests.ops.inputs import LAYOUTS, laid_out, mask_of, picture, values

OPS = (
    "grid_weights",
    "weighted_pool",
    "cosine_match",
    "linear_match",
    "distance_stats",
    "soft_pool",
    "prototype_fusion",
    "online_mlp_fit",
    "online_mlp_scores",
    "nearest",
    "logistic_fit",
    "upsample_argmax",
    "preprocess",
)


def _grid_weights() -> Iterator[Case]:
    def case(shape: Any, grid: Any, kind: str, extent: Any = None) -> Case:
        return Case(
            "grid_weights",
            f"{'x'.join(map(str, shape))}-to-{grid[0]}x{grid[1]}-{kind}-extent-{extent}",
            lambda rng: {"masks": mask_of(rng, shape, kind), "grid": grid, "extent": extent},
        )

    sizes = [(1, 1), (1, 9), (7, 1), (5, 6), (31, 33), (64, 48), (473, 473)]
    for size, grid in itertools.product(sizes, [(1, 1), (1, 5), (3, 2), (28, 28), (60, 60)]):
        yield case((2, *size), grid, "binary")
    for kind in ("empty", "full", "pixel", "bool", "weights", "float", "rows", "columns"):
        yield case((3, 37, 53), (9, 11), kind)
        yield case((1, 480, 640), (28, 28), kind)
    for extent in ((28.0, 21.0), (15.75, 28.0), (0.5, 0.25), (20.999, 27.001)):
        yield case((2, 90, 120), (28, 28), "float", extent)
        yield case((1, 9, 3), (28, 28), "binary", extent)
    # More columns than a tile, more rows of full bytes than 16-bit sums hold, cells of one pixel.
    for size in ((3, 1337), (5000, 3), (512, 33), (28, 28)):
        yield case((1, *size), (28, 28), "weights")
        yield case((1, *size), (2, 3), "float", (1.5, 2.25))
    yield case((1, 1080, 1920), (28, 28), "binary")


def _upsample_argmax() -> Iterator[Case]:
    def case(
        logits: Any,
        size: Any,
        kind: str = "normal",
        layout: str = "contiguous",
        extent: Any = None,
        classes: int | None = None,
    ) -> Case:
        """classes: that many share the planes; None: each plane is its own."""

        def make(rng: np.random.Generator) -> Arguments:
            if kind == "ties":
                scores = rng.integers(0, 3, logits).astype(np.float32)
            elif kind == "far":  # differences overflow
                scores = np.where(rng.random(logits) < 0.5, -3.4e38, 3.4e38).astype(np.float32)
            elif kind == "equal":
                scores = np.ones(logits, np.float32)
            else:
                scores = values(rng, logits, kind)
            given = {"logits": laid_out(scores, layout), "size": size, "extent": extent}
            if classes is not None:
                scores[:, 0] = 0  # the threshold
                labels = rng.integers(1, classes, logits[1]).astype(np.uint8)
                labels[0] = 0
                given["labels"] = labels
            return given

        name = f"{'x'.join(map(str, logits))}-to-{size[0]}x{size[1]}-{kind}-{layout}"
        name += f"-extent-{extent}" + ("" if classes is None else f"-classes-{classes}")
        return Case("upsample_argmax", name, make)

    sizes = [(1, 1), (1, 19), (23, 1), (37, 53), (64, 128), (9, 400)]
    for grid, size in itertools.product([(1, 1), (1, 5), (3, 1), (7, 13), (28, 28)], sizes):
        for classes in (1, 2, 3):
            yield case((2, classes, *grid), size)
    for classes in (4, 5, 6, 7, 16, 17, 255):
        yield case((1, classes, 7, 9), (41, 67))
    for kind in ("ties", "equal", "far", "zero", "huge", "tiny", "denormal", "limit", "offset"):
        for classes in (2, 4):
            yield case((2, classes, 6, 5), (45, 77), kind)
    for layout in LAYOUTS:
        yield case((2, 3, 6, 5), (45, 77), layout=layout)
    for extent in ((28.0, 21.0), (15.75, 28.0), (0.5, 0.25), (20.999, 27.001)):
        yield case((2, 2, 28, 28), (90, 120), extent=extent)
        yield case((1, 3, 28, 28), (9, 3), extent=extent)
    for planes, classes in ((1, 2), (2, 2), (6, 2), (6, 3), (13, 256), (300, 5)):
        yield case((2, planes, 7, 9), (41, 67), classes=classes)
        yield case((1, planes, 7, 9), (41, 67), "ties", classes=classes)
    yield case((1, 6, 2, 3), (3, 1500), classes=2)
    for classes in (2, 6):
        yield case((1, classes, 60, 60), (480, 640))
        yield case((1, classes, 60, 60), (480, 640), "denormal")
        yield case((1, classes, 40, 70), (23, 31))  # fewer pixels than cells
        yield case((1, classes, 2, 3), (3, 1500))  # many pixels between two columns


def _preprocess() -> Iterator[Case]:
    def case(size: Any, input_size: Any, content: Any = None, layout: str = "contiguous") -> Case:
        def make(rng: np.random.Generator) -> Arguments:
            return {
                "image": picture(rng, size, layout),
                "input_size": input_size,
                "content": content or input_size,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            }

        name = f"{size[0]}x{size[1]}-to-{input_size}-content-{content}-{layout}".replace(" ", "")
        return Case("preprocess", name, make)

    sizes = [(1, 1), (1, 40), (33, 1), (17, 19), (64, 64), (97, 131), (480, 640)]
    for size, input_size in itertools.product(sizes, [(1, 1), (5, 7), (64, 64), (97, 48)]):
        yield case(size, input_size)
    for content in ((64, 36), (17, 64), (1, 1), (63, 63)):
        yield case((120, 90), (64, 64), content)
    for layout in ("rgba", "cropped", "flipped", "flipped-rgba", "sparse", "turned", "bgr"):
        yield case((75, 61), (32, 48), layout=layout)
        yield case((20, 30), (64, 64), (43, 64), layout)
        yield case((5, 5000), (4, 33), (3, 31), layout)  # more columns than a tile
    yield case((20, 30), (64, 64), layout="read-only")
    yield case((5, 1000), (4, 2))  # windows at the border are much shorter than the longest
    for size in ((4000, 1), (1, 4000), (2000, 3), (3, 3000), (2, 70000), (70000, 2)):
        yield case(size, (32, 32))
    yield case((1080, 1920), (448, 448))


def all_cases() -> list[Case]:
    """Every row of every table, in the order of OPS."""
    tables = (
        _grid_weights,
        feature_cases.weighted_pool,
        feature_cases.cosine_match,
        feature_cases.linear_match,
        feature_cases.distance_stats,
        fusion_cases.soft_pool,
        fusion_cases.prototype_fusion,
        mlp_cases.online_mlp_fit,
        mlp_cases.online_mlp_scores,
        neighbour_cases.nearest,
        neighbour_cases.logistic_fit,
        _upsample_argmax,
        _preprocess,
    )
    return [case for table in tables for case in table()]
