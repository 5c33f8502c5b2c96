"""The Dockerfiles were never built here; at least what they copy exists, and they agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data import REPOSITORY

FILES = sorted((REPOSITORY / "docker").glob("*.Dockerfile"))


def test_there_are_some() -> None:
    assert [path.stem for path in FILES] == ["jetpack6", "jetpack7", "server"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_is_enough(path: Path) -> None:
    """The kernels' sources, the package, and all files that the build reads."""
    lines = path.read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert all((REPOSITORY / name).exists() for name in copied)
    needed = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "fsseg_sdk"}
    assert needed <= set(copied)
    assert any(line.startswith("# Never built or run by this project") for line in lines)
    assert f"#   docker build -f docker/{path.name} -t fsseg ." in lines
