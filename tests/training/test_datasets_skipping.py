"""Unreadable pictures are left out on request alone, named and counted over all processes."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import WriteSet, row
from tests.training.folders import cut
from training.datasets import DataError, Dataset, SkipLog


def drawing(*files: str) -> Callable[[], str]:
    """Fails with one of these files a call, in order; then gives 'drawn'."""
    left = [*files]

    def draw() -> str:
        if left:
            file = left.pop(0)
            raise DataError(f"{file}: cut off", file)
        return "drawn"

    return draw


def test_the_next_try_counts(tmp_path: Path) -> None:
    log = SkipLog(tmp_path / "run" / "skipped.jsonl")
    assert log.draw(drawing()) == "drawn"
    assert (len(log), log.files(), log.file.exists()) == (0, [], False)
    assert log.draw(drawing("b", "a", "b")) == "drawn"
    assert log.files() == ["a", "b"]
    assert len(log.file.read_text().splitlines()) == 2


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def wrong() -> None:
        raise ValueError("a mistake in the code")

    with pytest.raises(ValueError, match="a mistake"):
        SkipLog(tmp_path / "log").draw(wrong)


def test_only_so_many_are_left_out(tmp_path: Path) -> None:
    log = SkipLog(tmp_path / "log", most=2)
    assert log.draw(drawing("a", "b")) == "drawn"
    again = SkipLog(tmp_path / "log", most=2)  # a resumed run
    assert again.draw(drawing("b")) == "drawn"
    with pytest.raises(DataError, match=r"3 files cannot be read, more than the 2.*c: cut off"):
        again.draw(drawing("c"))
    with pytest.raises(ValueError, match="most: expected 1"):
        SkipLog(tmp_path / "log", most=0)


def test_nothing_but_broken_files_ends(tmp_path: Path) -> None:
    log = SkipLog(tmp_path / "log")
    with pytest.raises(DataError, match="100 tries in a row"):
        log.draw(drawing(*["a"] * 100))


def _skip(file: Path, names: list[str]) -> None:
    log = SkipLog(file)
    for name in names:
        log.draw(drawing(name))


def test_processes_share_the_count(tmp_path: Path) -> None:
    file, context = tmp_path / "log", get_context("fork")
    lists = [[f"{k}" for k in range(start, start + 20)] for start in (0, 10, 30)]
    processes = [context.Process(target=_skip, args=(file, names)) for names in lists]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert SkipLog(file).files() == sorted(str(k) for k in range(50))


def test_draws_depend_on_their_generator_alone(write_set: WriteSet, tmp_path: Path) -> None:
    folder = write_set(*(row(number) for number in range(1, 7)))
    cut(folder / "images" / "2.png")
    samples = Dataset.open(folder).samples

    def draw(log: SkipLog, index: int) -> str:
        rng = np.random.default_rng((1, index))

        def one() -> str:
            sample = samples[rng.integers(len(samples))]
            sample.read()
            return sample.key

        return log.draw(one)

    first, second = SkipLog(tmp_path / "first"), SkipLog(tmp_path / "second")
    keys = [draw(first, index) for index in range(30)]
    assert list(reversed([draw(second, index) for index in reversed(range(30))])) == keys
    assert "dots/2" not in keys
    assert first.files() == [str(folder / "images" / "2.png")]
