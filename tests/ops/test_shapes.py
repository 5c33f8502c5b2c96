"""Shapes that nobody thought of: hypothesis looks for the one that breaks an op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fsseg_sdk import _kernels, ops
from tests.ops.cases import OPS
from tests.ops.compare import difference
from tests.ops.fusion_cases import SEVERAL, fusion_arguments, soft_pool_arguments
from tests.ops.inputs import (
    KINDS,
    LAYOUTS,
    WEIGHTS,
    cell_weights,
    laid_out,
    mask_of,
    picture,
    values,
)
from tests.ops.mlp_cases import fit_arguments
from tests.ops.neighbour_cases import logistic_arguments, nearest_arguments
from tests.ops.raw import call, expected_of

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
kinds = st.sampled_from(["normal", *KINDS])
layouts = st.sampled_from(["contiguous", *LAYOUTS])


@st.composite
def arguments_of(draw: st.DrawFn, op: str) -> dict[str, Any]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, count, channels = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 70)),
    )
    grid, size = draw(sizes), draw(sizes)
    part = st.floats(0.01, 1.0)
    extent = draw(st.none() | st.tuples(part, part).map(lambda p: (p[0] * grid[0], p[1] * grid[1])))
    if op == "grid_weights":
        kind = draw(st.sampled_from(["binary", "float", "bool", "weights", "rows", "columns"]))
        return {"masks": mask_of(rng, (batch, *size), kind), "grid": grid, "extent": extent}
    if op == "preprocess":
        fraction = draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
        content = tuple(max(1, int(f * s)) for f, s in zip(fraction, grid, strict=True))
        layout = draw(
            st.sampled_from(["contiguous", "rgba", "cropped", "flipped", "turned", "bgr"])
        )
        image = picture(rng, size, layout)
        colour = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        return {"image": image, "input_size": grid, "content": content, **colour}
    if op == "upsample_argmax":
        logits = laid_out(values(rng, (batch, count, *grid), draw(kinds)), draw(layouts))
        shared = rng.integers(0, 4, count).astype(np.uint8) if draw(st.booleans()) else None
        return {"logits": logits, "size": size, "extent": extent, "labels": shared}
    if op == "nearest":
        options = {"kind": draw(kinds), "layout": draw(layouts)}
        options["precision"] = draw(st.sampled_from(["fp32", "bf16"]))
        members, groups = draw(st.integers(1, 60)), draw(st.integers(1, 5))
        return nearest_arguments(rng, (batch, channels, *grid), members, groups, **options)
    if op == "logistic_fit":
        options = {"momentum": draw(st.sampled_from([0.0, 0.9])), "l2": draw(st.floats(0.0, 1.0))}
        return logistic_arguments(rng, draw(st.integers(1, 200)), channels, count, **options)
    if op == "online_mlp_fit":
        options = {
            "layout": draw(layouts),
            "targets": draw(st.sampled_from(["hard", "soft", "few", "one"])),
            "dropout": draw(st.sampled_from([0.0, 0.4])),
            "precision": draw(st.sampled_from(["fp32", "bf16"])),
        }
        shape = (batch, channels, *grid)
        return fit_arguments(rng, shape, draw(st.integers(1, 40)), count, length=3.0, **options)
    if op in SEVERAL:
        options = {
            "kind": draw(kinds),
            "layout": draw(layouts),
            "weights": draw(st.sampled_from([None, *WEIGHTS])),
            "parts": draw(st.integers(1, 3)),
            "ways": draw(st.sampled_from(["own", "all", "mixed"])),
        }
        if op == "soft_pool":
            return soft_pool_arguments(rng, (batch, channels, *grid), count, **options)
        options["net"] = draw(st.sampled_from([0, 20]))
        small = (batch, channels + 1, min(grid[0], 12), min(grid[1], 12))
        try:
            return fusion_arguments(rng, small, min(count, 3), **options)
        except ValueError:
            reject()
    features = laid_out(values(rng, (batch, channels, *grid), draw(kinds)), draw(layouts))
    if op == "online_mlp_scores":
        mlp = ops.online_mlp_start(channels, draw(st.integers(1, 70)), count)
        precision = draw(st.sampled_from(["fp32", "bf16"]))
        return {"features": features, "mlp": mlp, "length": 2.0, "precision": precision}
    if op == "weighted_pool":
        weights = laid_out(rng.random((batch, count, *grid), dtype=np.float32), draw(layouts))
        return {"features": features, "weights": weights, "eps": 1e-5}
    rows = values(rng, (count, channels), "normal")
    if op == "linear_match":
        return {"features": features, "weights": rows * np.float32(0.1), "bias": rows[:, 0].copy()}
    if op == "cosine_match":
        return {
            "features": features,
            "prototypes": rows,
            "scale": 20.0,
            "softmax": draw(st.booleans()),
        }
    covers = cell_weights(rng, features.shape, draw(st.sampled_from([None, *WEIGHTS])))
    return {"features": features, "prototypes": rows, "weights": covers}


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape(op: str, data: st.DataObject) -> None:
    arguments = data.draw(arguments_of(op))
    expected = expected_of(op, arguments)
    before = ops.simd_level()
    try:
        for level in ops.simd_levels():
            _kernels._set_simd(level)
            result = call(op, arguments, threads=1)
            assert difference(op, result, arguments, expected) is None, level
            assert call(op, arguments, threads=3).tobytes() == result.tobytes()
    finally:
        _kernels._set_simd(before)
