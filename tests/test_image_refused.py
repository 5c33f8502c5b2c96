"""Files that are no pictures, too large, cut off or foreign: refused early, and by name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from fsseg_sdk import formats
from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image
from tests.data import REPOSITORY
from tests.pictures import FOREIGN, claiming, encode, gif, scene

PIXELS = scene(48, 64).pixels


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("as_file", [False, True])
def test_foreign_formats_are_refused_by_name(name: str, as_file: bool, tmp_path: Path) -> None:
    data, word = FOREIGN[name]
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=word) as caught:
        read_image(path if as_file else data)
    assert caught.value.expected == "a JPEG, PNG, WEBP, BMP or TIFF picture"


@pytest.mark.parametrize("name", ["eps", "fits", "svg", "heic", "netpbm"])
def test_no_parser_sees_a_foreign_format(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *given: calls.append(given))
    monkeypatch.setattr(ImageFile.ImageFile, "__init__", lambda *given: calls.append(given))
    with pytest.raises(InputError):
        read_image(FOREIGN[name][0])
    assert calls == []
    with pytest.raises(InputError):
        read_image(encode(PIXELS))
    assert len(calls) == 1  # so the test would have seen one


def test_animations_are_refused_by_name() -> None:
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 99)]
    for kind in ("PNG", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match=f"an animated {kind}"):
            read_image(data)
    with pytest.raises(InputError, match="GIF"):
        read_image(gif())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_at_every_64th_byte(kind: str) -> None:
    data = encode(scene(96, 128).pixels, kind)
    for length in range(0, len(data), 64):
        with pytest.raises(InputError):
            read_image(data[:length])
    read_image(data)


@pytest.mark.parametrize(
    "width, height", [(60_000, 60_000), (10**6, 1), (1, 10**6), (8001, 8000), (65_536, 2)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_oversized_headers(kind: str, width: int, height: int) -> None:
    if kind == "JPEG" and max(width, height) > 65_535:
        pytest.skip("cannot be said in a JPEG header")
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=f"{width} x {height} pixels"):
            read_image(claiming(kind, width, height))
    assert time.perf_counter() - begin < 1.0


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_pictures_without_pixels(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        read_image(claiming(kind, *size))


def test_a_lie_within_the_cap_is_found_when_decoding() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(claiming("PNG", 7000, 7000))


def test_bombs_leave_memory_alone() -> None:
    """In a child process, so that the peak is that of these files alone."""
    code = """
import resource, sys
from tests.pictures import claiming
from fsseg_sdk.image import read_image
from fsseg_sdk.errors import InputError
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
    for size in ((8, 8), (60000, 60000)) if kind != "WEBP" else ((60000, 60000),):
        try:
            read_image(claiming(kind, *size))
        except InputError:
            pass
        before = peak() if size == (8, 8) or kind == "WEBP" else before
print(peak() - before)
"""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc")
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert int(output.stdout) < 50 * 1024


# --- paths --------------------------------------------------------------------------------------


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for path, word in [
        (tmp_path / "absent.png", "No such file"),
        (tmp_path, "directory|regular"),
        (fifo, "regular"),
        (Path("/dev/zero"), "regular"),
        ("https://example.org/picture.png", "No such file"),
        ("nul\0byte.png", "null"),
        ("", "No such file"),
    ]:
        with pytest.raises(InputError, match=word):
            read_image(path)


def test_the_file_cap_is_checked_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    data = encode(PIXELS)
    path.write_bytes(data)
    monkeypatch.setattr(formats, "MAX_BYTES", len(data) - 1)
    with pytest.raises(InputError, match="bytes"):
        read_image(path)
    with pytest.raises(InputError, match="bytes"):
        read_image(data)
