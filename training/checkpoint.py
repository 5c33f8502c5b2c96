"""Checkpoints: safetensors with a JSON header of settings; written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "fsseg-checkpoint"


def save_checkpoint(path: Path | str, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Write tensors and settings (JSON) beside the target, then rename: never half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    contiguous = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    try:
        save_file(contiguous, str(partial), {"format": FORMAT, "settings": json.dumps(settings)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"{path}: could not be written: {error}. Make room, then resume; "
            "what stood there before is whole."
        ) from error


def read_header(path: Path | str) -> dict[str, Any]:
    """The settings of a checkpoint; its tensors are not read.

    Raises:
        ValueError: the file is not a checkpoint of this project.
    """
    return _open(path, lambda file: {})[1]


def load_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and settings.

    Raises:
        ValueError: the file is not a checkpoint of this project.
    """
    return _open(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below ``name``, without that prefix."""
    return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}


def _open(
    path: Path | str, read: Callable[[Any], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"{path}: expected a {FORMAT} file, got format {header.get('format')!r}. "
                    "Checkpoints are written by `python -m training`."
                )
            return read(file), json.loads(header["settings"])
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors checkpoint, got a file that does not parse: {error}"
        ) from error
