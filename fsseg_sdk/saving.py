"""Results as files: mask, overlay and report, each written whole or not at all."""

from __future__ import annotations

import io
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .palette import palette

if TYPE_CHECKING:
    from .result import Result

__all__ = ["save_result", "write_whole"]

_ORIENTATION = 0x0112


def save_result(result: Result, folder: Path, stem: str, picture: object) -> dict[str, Path]:
    """See `Result.save`. Raises InputError for a stem with folders, or when writing fails."""
    from PIL import Image

    if not re.fullmatch(r"[^/\\\0:]{1,200}", stem) or stem in (".", ".."):
        raise InputError(
            "stem",
            expected="a file name without folders or colons",
            got=repr(stem)[:80],
            remedy="Pass the folder as the first argument.",
        )
    height, width = result.size
    mask = Image.frombytes("P", (width, height), result.labels.tobytes())
    mask.putpalette(palette().tobytes())
    upright = Image.Exif()
    upright[_ORIENTATION] = 1
    encoded = io.BytesIO()
    mask.save(encoded, "PNG", exif=upright)
    contents = {"mask": (f"{stem}_mask.png", encoded.getvalue())}
    if picture is not None or result.picture is not None:
        encoded = io.BytesIO()
        drawn = Image.fromarray(result.overlay(picture))
        drawn.save(encoded, "JPEG", quality=92, subsampling=0)
        contents["overlay"] = (f"{stem}_overlay.jpg", encoded.getvalue())
    contents["json"] = (f"{stem}.json", (result.to_json() + "\n").encode("utf-8"))
    for name, data in contents.values():
        write_whole(folder / name, data)
    return {kind: folder / name for kind, (name, _) in contents.items()}


def write_whole(path: Path, data: bytes) -> None:
    """The whole file or nothing, through a sibling. InputError where that cannot be done."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            "folder",
            expected="a folder to write to",
            got=f"{str(path)!r} ({error.strerror or error})",
            remedy="Free some space, or choose another folder.",
        ) from error
    finally:  # also after Ctrl-C: no half a file is left
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
