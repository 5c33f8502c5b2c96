"""Mutated picture files give a picture or an InputError, never anything else.

A few seconds in a normal run; FSSEG_FUZZ_SECONDS sets how long. A file that fails is written to
tests/corpus/images/ and tried again in every later run.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsseg_sdk.errors import InputError
from fsseg_sdk.formats import MAX_PIXELS
from fsseg_sdk.image import load_mask, read_image
from tests.pictures import FOREIGN, claiming, encode, scene, turned

CORPUS = Path(__file__).parent / "corpus" / "images"
SECONDS = float(os.environ.get("FSSEG_FUZZ_SECONDS", "4"))
SMALL = scene(24, 32)


def seeds() -> list[bytes]:
    pixels, mask = SMALL.pixels, SMALL.masks["red disc"]
    palette = Image.fromarray(pixels).quantize(16)
    files = [encode(pixels, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")]
    files += [turned(pixels, 6, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    files += [encode(palette, kind) for kind in ("PNG", "BMP", "TIFF")]
    files += [encode(pixels, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg")]
    files += [encode(Image.fromarray(pixels).convert("CMYK"), kind) for kind in ("JPEG", "TIFF")]
    files += [encode(Image.fromarray(mask), kind) for kind in ("PNG", "TIFF", "BMP")]
    files += [encode(pixels, "JPEG", progressive=True), encode(pixels, "WEBP", lossless=True)]
    files += [encode(Image.fromarray(mask.astype(np.uint16) * 255), "PNG")]
    return files + [claiming(k, 30, 20) for k in ("PNG", "BMP", "TIFF", "JPEG", "WEBP")]


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to eight small changes: bits, bytes, 32-bit numbers, cuts, copies, swaps."""
    file = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        if not file:
            break
        near_front = random.random() < 0.5  # headers are where parsers go wrong
        at = int(random.integers(0, min(len(file), 200) if near_front else len(file)))
        kind = int(random.integers(0, 7))
        if kind == 0:
            file[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            file[at] = int(random.integers(0, 256))
        elif kind == 2:
            value = int(random.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            order: Any = "little" if random.random() < 0.5 else "big"
            file[at : at + 4] = value.to_bytes(4, order)
        elif kind == 3:
            del file[at : at + int(random.integers(1, 40))]
        elif kind == 4:
            del file[at:]
        elif kind == 5:
            piece = file[at : at + int(random.integers(1, 60))]
            other = int(random.integers(0, len(file)))
            file[other:other] = piece
        else:
            file[at : at + 8] = random.bytes(8)
    return bytes(file)


def check(data: bytes) -> bool:
    """Whether the file is a picture; anything but an InputError or a picture is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(data)
        except InputError as error:
            assert error.argument == "image"
            assert len(str(error)) < 600
            return False
        height, width = picture.size
        assert 1 <= height * width <= MAX_PIXELS
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.shape == (height, width, 3)
        try:
            load_mask(data, picture)
        except InputError as error:
            assert error.argument == "mask"
        return True


def keep(data: bytes) -> Path:
    CORPUS.mkdir(parents=True, exist_ok=True)
    path = CORPUS / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def test_every_seed_is_what_it_should_be() -> None:
    files = seeds()
    pictures = [check(data) for data in files]
    assert sum(pictures) >= len(files) - 5
    assert not any(check(data) for data, _ in FOREIGN.values())


def test_mutated_files_give_typed_errors() -> None:
    random = np.random.default_rng(int(os.environ.get("FSSEG_FUZZ_SEED", "1")))
    files = seeds()
    count = pictures = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or count < 200:
        data = mutated(files[count % len(files)], random)
        begin = time.monotonic()
        try:
            pictures += check(data)
        except Exception as error:  # noqa: BLE001
            pytest.fail(f"{keep(data)}: {type(error).__name__}: {error}")
        if time.monotonic() - begin > 5.0:
            pytest.fail(f"{keep(data)}: took {time.monotonic() - begin:.1f} s")
        count += 1
    print(f"{count} files, {pictures} of them still pictures")
    assert 0 < pictures < count


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*")), ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    check(path.read_bytes())
