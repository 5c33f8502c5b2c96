"""Checkpoints: what is written comes back; what is not ours, or is broken, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.checkpoint import load_checkpoint, save_checkpoint


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.safetensors"
    save_checkpoint(
        path, {"w": torch.arange(6.0).reshape(2, 3).T}, {"settings": {"encoder": "e"}, "n": 3}
    )
    tensors, header = load_checkpoint(path)
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3).T)
    assert header == {"settings": {"encoder": "e"}, "n": 3}
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_foreign_safetensors_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="fsseg-checkpoint"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 60])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"w": torch.zeros(64)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="safetensors"):
        load_checkpoint(path)


def test_pickle_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="safetensors"):
        load_checkpoint(path)
