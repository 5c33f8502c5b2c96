"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or text as UTF-8, under a name of its own beside ``path``, then rename it: a
    reader finds the old file or the new one, and processes that write the same file do not meet.

    Raises:
        OSError: it cannot be written; what stood there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
