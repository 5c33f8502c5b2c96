"""Every op x every SIMD level that runs here x every case, against the reference in double."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import _kernels, ops
from tests.ops.case import Case
from tests.ops.cases import OPS, all_cases
from tests.ops.compare import difference
from tests.ops.device import HALVES, has_device, moved, rounded
from tests.ops.raw import call, expected_of, mapped, run_padded

CASES = all_cases()


PLACES = (*ops.simd_levels(), *(["cuda"] if has_device() else []))


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """A SIMD level of the CPU, which is in use then, or "cuda"."""
    before = ops.simd_level()
    if request.param != "cuda":
        assert _kernels._set_simd(request.param)
    yield request.param
    _kernels._set_simd(before)


def run(case: Case, arguments: dict[str, Any], threads: int, place: str) -> Any:
    if place == "cuda":
        arguments = moved(arguments, ops.default_context())
    return call(case.op, arguments, threads=threads)


def snapshot(arguments: dict[str, Any]) -> list[bytes]:
    found: list[bytes] = []
    mapped(arguments, lambda array: found.append(array.tobytes()))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, place: str) -> None:
    arguments = case.arguments()
    before = snapshot(arguments)
    expected = expected_of(case.op, arguments)
    result = run(case, arguments, 1, place)
    assert result.flags.c_contiguous
    assert difference(case.op, result, arguments, expected) is None, f"{case} at {place}"
    # 1 and n threads: the same bits.
    for threads in () if place == "cuda" else (2, 5):
        assert run(case, arguments, threads, place).tobytes() == result.tobytes()
    # All of the result is written, nothing outside of it, and it depends on nothing else.
    context = ops.default_context() if place == "cuda" else None
    for fill in (0x55, 0xFF) if context is None else (0x55,):
        padded = run_padded(case.op, arguments, expected.shape, fill, context)
        assert padded.tobytes() == result.tobytes()
    assert snapshot(arguments) == before


def half_cases() -> Iterator[Any]:
    """(case, dtype) for every third case of an op that reads features."""
    taken = [c for c in CASES if c.op not in ("grid_weights", "upsample_argmax", "preprocess")]
    for case in [c for c in taken if c.op != "logistic_fit"][:: 3 if has_device() else 1]:
        for dtype in HALVES:
            yield pytest.param(case, dtype, id=f"{case}-{dtype}")


@pytest.mark.skipif(not has_device(), reason="of devices: features of the CPU are float32")
@pytest.mark.parametrize(("case", "dtype"), list(half_cases()) if has_device() else [])
def test_half_features(case: Case, dtype: str) -> None:
    arguments = case.arguments()
    pairs = arguments.get("samples") or [(arguments["features"], None)]
    if any(float(np.abs(features).max(initial=0)) > HALVES[dtype] for features, _ in pairs):
        return  # values that the dtype has not
    if "samples" in arguments:
        arguments["samples"] = [(rounded(f, dtype), targets) for f, targets in pairs]
    else:
        arguments["features"] = rounded(arguments["features"], dtype)
    expected = expected_of(case.op, arguments)
    result = call(case.op, moved(arguments, ops.default_context(), dtype))
    assert difference(case.op, result, arguments, expected) is None, f"{case} of {dtype}"


@pytest.mark.parametrize("op", OPS)
def test_repeats_are_bitwise_equal(op: str, place: str) -> None:
    cases = sorted(
        (c for c in CASES if c.op == op),
        key=lambda c: sum(map(len, snapshot(c.arguments()))),
    )
    largest = cases[-1 if place != "cuda" else len(cases) // 2]  # emulated, the largest take long
    arguments = largest.arguments()
    first = run(largest, arguments, 4, place).tobytes()
    times = 20 if place != "cuda" else 3
    assert all(run(largest, arguments, 4, place).tobytes() == first for _ in range(times))


def test_every_op_has_cases() -> None:
    assert {case.op for case in CASES} == set(OPS)
    assert set(OPS) <= set(ops.__all__)
    assert len({str(case) for case in CASES}) == len(CASES)


def test_levels_differ() -> None:
    """The levels really are different code: some sum is rounded differently."""
    if len(ops.simd_levels()) == 1:
        pytest.skip("only the generic level runs here")
    rng = np.random.default_rng(0)
    features = rng.standard_normal((1, 64, 30, 31)).astype(np.float32)
    before, results = ops.simd_level(), set()
    for level in ops.simd_levels():
        _kernels._set_simd(level)
        assert ops.simd_level() == level
        results.add(ops.weighted_pool(features, features[:, :3]).tobytes())
    _kernels._set_simd(before)
    assert len(results) > 1
