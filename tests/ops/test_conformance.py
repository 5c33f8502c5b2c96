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
from tests.ops.raw import call, expected_of, mapped, run_padded

CASES = all_cases()


@pytest.fixture(params=ops.simd_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = ops.simd_level()
    assert _kernels._set_simd(request.param)
    yield request.param
    _kernels._set_simd(before)


def run(case: Case, arguments: dict[str, Any], threads: int) -> Any:
    return call(case.op, arguments, threads=threads)


def snapshot(arguments: dict[str, Any]) -> list[bytes]:
    found: list[bytes] = []
    mapped(arguments, lambda array: found.append(array.tobytes()))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, level: str) -> None:
    arguments = case.arguments()
    before = snapshot(arguments)
    expected = expected_of(case.op, arguments)
    result = run(case, arguments, threads=1)
    assert result.flags.c_contiguous
    assert difference(case.op, result, arguments, expected) is None, f"{case} at {level}"
    # 1 and n threads: the same bits.
    for threads in (2, 5):
        assert run(case, arguments, threads).tobytes() == result.tobytes()
    # All of the result is written, nothing outside of it, and it depends on nothing else.
    for fill in (0x55, 0xFF):
        padded = run_padded(case.op, arguments, expected.shape, fill)
        assert padded.tobytes() == result.tobytes()
    assert snapshot(arguments) == before


@pytest.mark.parametrize("op", OPS)
def test_repeats_are_bitwise_equal(op: str, level: str) -> None:
    largest = max(
        (c for c in CASES if c.op == op),
        key=lambda c: sum(map(len, snapshot(c.arguments()))),
    )
    arguments = largest.arguments()
    first = run(largest, arguments, threads=4).tobytes()
    assert all(run(largest, arguments, threads=4).tobytes() == first for _ in range(20))


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
