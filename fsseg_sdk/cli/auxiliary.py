"""``--auxiliary DIR``: pictures that show a class and are not labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .queries import SUFFIXES, pictures_of

__all__ = ["read_folder"]


def read_folder(folder: str | None, classes: Sequence[str]) -> dict[str, list[Path]] | None:
    """{class: pictures in the order of their names}; None without a folder.

    Of one class: all pictures of the folder. Of several: a folder in it for each class that has
    some, called like the class. Hidden files are left alone. Raises InputError for a folder that
    cannot be read or is empty, for one that is called like no class, and for any other file.
    """
    if folder is None:
        return None
    root = Path(folder)
    inner = [path for path in _entries(root) if path.is_dir()]
    if inner or len(classes) > 1:
        found = {path.name: _pictures(path) for path in inner}
        loose = [path for path in _entries(root) if path not in inner]
        for path in [*loose, *(path for path in inner if path.name not in classes)]:
            raise InputError(
                f"--auxiliary {folder}",
                expected=f"a folder for each class ({', '.join(map(repr, classes[:8]))})",
                got=repr(str(path)),
                remedy="Put a class's pictures into a folder in it that is called like the class.",
            )
    else:
        found = {classes[0]: _pictures(root)}
    if not any(found.values()):
        raise InputError(
            f"--auxiliary {folder}",
            expected=f"pictures ({', '.join(SUFFIXES)})",
            got="a folder without any",
            remedy="Check the path.",
        )
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"--auxiliary {folder}",
            expected="a folder of pictures",
            got=error.strerror or str(error),
            remedy="Check the path and its permissions.",
        ) from error


def _pictures(folder: Path) -> list[Path]:
    deeper = [str(path) for path in _entries(folder) if path.is_dir()]
    pictures, others = pictures_of(folder)
    for other in [*deeper, *others]:
        raise InputError(
            f"--auxiliary {folder}",
            expected=f"nothing but pictures ({', '.join(SUFFIXES)})",
            got=repr(other),
            remedy="Move it elsewhere.",
        )
    return pictures
