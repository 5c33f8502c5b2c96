"""Bundles made to harm: damage at every byte, archive tricks, and what a fuzzer thinks of."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk.archive import MANIFEST
from fsseg_sdk.archive.read import comment_of
from fsseg_sdk.bundle import Bundle
from fsseg_sdk.errors import BundleError, FssegError
from tests.archives import KIND, borders, flips, listed, pack, sealed, tree, unpack
from tests.tiny import tiny_bundle

CORPUS = Path(__file__).parent / "corpus" / "bundles"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny.fsseg")


def refused(path: Path) -> str:
    """Opening fails with a BundleError within a second."""
    begin = time.perf_counter()
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert time.perf_counter() - begin < 1.0
    return str(caught.value)


# --- damage --------------------------------------------------------------------------------------


def test_every_byte_flipped(path: Path) -> None:
    """All bytes of the file: one bit of each, and the message says where the damage is."""
    data = path.read_bytes()
    assert len(data) < 20_000
    starts, names = borders(data), list(unpack(data)[1])
    named = dict.fromkeys([MANIFEST, *sorted(names), "archive structure"], 0)
    for _ in flips(path, range(len(data))):
        message = refused(path)
        found = [name for name in named if f"'{name}'" in message or f", {name}:" in message]
        assert found, message
        named[found[0]] += 1
    assert all(named.values()), named
    for index, name in enumerate([MANIFEST, *sorted(names)]):  # payloads blame their own member
        for _ in flips(path, range(starts[2 * index + 1], starts[2 * index + 2], 7)):
            assert f"member '{name}'" in refused(path)
    Bundle.open(path)


def test_truncated_at_every_border(path: Path) -> None:
    data = path.read_bytes()
    lengths = {border + step for border in borders(data) for step in (-1, 0, 1)}
    lengths |= set(range(0, len(data), 64))
    for length in sorted(lengths - {len(data)}, reverse=True):
        if 0 <= length < len(data):
            os.truncate(path, length)
            refused(path)


def test_anything_added(path: Path) -> None:
    data = path.read_bytes()
    for border in borders(data):
        for extra in (b"\0", b"\n", data[:64]):
            path.write_bytes(data[:border] + extra + data[border:])
            refused(path)


@pytest.mark.parametrize("name", ["encoder.onnx", "golden/image.npy", MANIFEST])
def test_a_member_left_out(path: Path, name: str) -> None:
    manifest, members = unpack(path.read_bytes())
    raw = json.dumps(manifest).encode()
    entries = [(MANIFEST, raw), *sorted(members.items())]
    path.write_bytes(pack([entry for entry in entries if entry[0] != name], comment_of(KIND, raw)))
    assert name in refused(path)


# --- archive attacks -----------------------------------------------------------------------------

EVIL = [
    "../evil.onnx", "a/../../evil.onnx", "/evil.onnx", "//server/evil.onnx", "c:evil.onnx",
    "c:/evil.onnx", "..\\evil.onnx", "\\evil.onnx", "encoder.onnx/../evil", "..", ".", "./x", "a/",
    "a//b", "", "Encoder.onnx", "ENCODER.ONNX", "encoder.onnx\0.txt", "encoder.onnx ", "en\ncoder",
    "~/evil", "$HOME/evil", "nul:", "x" * 101, "a/" * 40 + "x",
]  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A tree around the bundle in which nothing may change."""
    for name in ("evil.onnx", "inner/evil.onnx", "inner/deeper/encoder.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"canary " + name.encode())
    return tiny_bundle(tmp_path / "inner" / "deeper" / "attack.fsseg")


def with_entry(path: Path, name: str, *, in_manifest: bool) -> None:
    """One more member of any name, checksums and hashes right."""
    manifest, members = unpack(path.read_bytes())
    if in_manifest:
        manifest["members"].update(listed({name: b"evil"}))
    raw = json.dumps(manifest).encode()
    entries = [(MANIFEST, raw), *sorted({**members, name: b"evil"}.items())]
    path.write_bytes(pack(entries, comment_of(KIND, raw)))


@pytest.mark.parametrize("in_manifest", [False, True])
@pytest.mark.parametrize("name", EVIL)
def test_names_that_lead_elsewhere(canary: Path, name: str, in_manifest: bool) -> None:
    root = canary.parents[2]
    with_entry(canary, name, in_manifest=in_manifest)
    before = tree(root)
    refused(canary)
    assert tree(root) == before


def test_a_sibling_by_prefix(canary: Path) -> None:
    """A plain name, but not one of those that the graphs use: x_evil beside x."""
    with_entry(canary, "encoder.onnx_evil", in_manifest=False)
    assert "'encoder.onnx_evil': expected only members that the manifest lists" in refused(canary)
    tiny_bundle(canary)
    with_entry(canary, "encoder.onnx_evil", in_manifest=True)
    assert "'encoder.onnx_evil': expected only members that graphs" in refused(canary)


def patched(path: Path, signature: bytes, offset: int, value: bytes, which: int = 1) -> str:
    """Overwrites bytes of the `which`-th header with this signature."""
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(which + 1):
        at = data.index(signature, at + 1)
    data[at + offset : at + offset + len(value)] = value
    path.write_bytes(data)
    return refused(path)


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


@pytest.mark.parametrize(
    ("signature", "offset", "value", "words"),
    [
        (CENTRAL, 10, struct.pack("<H", 8), "a stored member, got compression method 8"),
        (CENTRAL, 10, struct.pack("<H", 14), "compression method 14"),
        (CENTRAL, 8, struct.pack("<H", 1), "no encryption"),
        (CENTRAL, 8, struct.pack("<H", 8), "canonical header"),  # sizes behind the data
        (CENTRAL, 8, struct.pack("<H", 0x800), "canonical header"),  # names in UTF-8
        (CENTRAL, 38, struct.pack("<I", (stat.S_IFLNK | 0o777) << 16), "a link or folder"),
        (CENTRAL, 38, struct.pack("<I", (stat.S_IFDIR | 0o755) << 16), "a link or folder"),
        (CENTRAL, 38, struct.pack("<I", (stat.S_IFIFO | 0o644) << 16), "a link or folder"),
        (CENTRAL, 38, struct.pack("<I", (stat.S_IFREG | 0o4755) << 16), "canonical header"),
        (CENTRAL, 4, struct.pack("<H", 0), "canonical header"),
        (CENTRAL, 12, struct.pack("<I", 0x12345678), "canonical header"),  # a time
        (CENTRAL, 20, b"\xff" * 4, "zip64"),
        (CENTRAL, 24, b"\xff" * 4, "zip64"),
        (CENTRAL, 42, b"\xff" * 4, "zip64"),
        (CENTRAL, 24, struct.pack("<I", 10 << 20), "one size"),
        (CENTRAL, 20, struct.pack("<II", 10 << 20, 10 << 20), "a gap or an overlap"),
        (CENTRAL, 42, struct.pack("<I", 0), "a gap or an overlap"),  # two members, one content
        (CENTRAL, 30, struct.pack("<H", 4), "no extra fields"),
        (CENTRAL, 32, struct.pack("<H", 4), "no extra fields"),
        (CENTRAL, 28, struct.pack("<H", 60_000), "a name of"),
        (LOCAL, 8, struct.pack("<H", 8), "canonical header"),
        (LOCAL, 18, struct.pack("<II", 1, 1), "canonical header"),
        (LOCAL, 28, struct.pack("<H", 4), "canonical header"),
        (LOCAL, 30, b"x", "canonical header"),  # another name than in the directory
        (END, 4, struct.pack("<H", 1), "end record"),  # several disks
        (END, 8, struct.pack("<H", 1), "end record"),
        (END, 10, struct.pack("<H", 1), "archive structure"),
        (END, 10, struct.pack("<H", 0), "1 to 65 members"),
        (END, 10, b"\xff\xff", "1 to 65 members, got 65535"),
        (END, 12, b"\xff" * 4, "zip64"),
        (END, 16, b"\xff" * 4, "zip64"),
        (END, 16, struct.pack("<I", 0), "directory to end where"),
        (END, 20, struct.pack("<H", 0), "the end record"),
    ],
)
def test_headers_that_lie(
    path: Path, signature: bytes, offset: int, value: bytes, words: str
) -> None:
    assert words in patched(path, signature, offset, value, which=0 if signature == END else 1)


def test_the_same_name_twice(path: Path) -> None:
    manifest, members = unpack(path.read_bytes())
    raw = json.dumps(manifest).encode()
    first, *rest = sorted(members.items())
    path.write_bytes(pack([(MANIFEST, raw), first, first, *rest], comment_of(KIND, raw)))
    assert f"member '{first[0]}': expected each name once" in refused(path)
    path.write_bytes(pack([(MANIFEST, raw), (MANIFEST, raw), first, *rest], comment_of(KIND, raw)))
    assert f"member '{MANIFEST}': expected each name once" in refused(path)


def test_a_gap_before_the_directory(path: Path) -> None:
    """Room for something that no list mentions, with every offset right."""
    data = bytearray(path.read_bytes())
    end = data.rindex(END)
    at = int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = struct.pack("<I", at + 8)
    data[at:at] = b"evil" * 2
    path.write_bytes(data)
    assert "no gap before the directory" in refused(path)


def test_zips_of_other_programs(tmp_path: Path) -> None:
    """The content is right; the form is not ours, so there are bytes nobody would check."""
    data = tiny_bundle(tmp_path / "x").read_bytes()
    manifest, members = unpack(data)
    raw = json.dumps(manifest).encode()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "x", "w", method) as other:
            other.comment = comment_of(KIND, raw)
            for name, content in [(MANIFEST, raw), *sorted(members.items())]:
                other.writestr(name, content)
        assert "member 'manifest.json'" in refused(tmp_path / "x")


def test_bomb(tmp_path: Path) -> None:
    """4 GiB of zeros in 4 MB, and a tower of them: refused by form, nothing is inflated."""
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.comment = comment_of(KIND, b"{}")
        bomb.writestr(MANIFEST, bytes(64 << 20))
    assert (tmp_path / "bomb").stat().st_size < 100_000
    assert "compression method 8" in refused(tmp_path / "bomb")


def test_a_million_entries(tmp_path: Path) -> None:
    """The end record can say 65,535 at most; that alone is too many."""
    path = tmp_path / "many"
    entry = b"PK\1\2" + bytes(42)
    count = 1_000_000
    with open(path, "wb") as file:
        file.write(b"PK\3\4" + bytes(26))
        file.write(entry * count)
        comment = comment_of(KIND, b"{}")
        file.write(struct.pack("<4s4H2IH", END, 0, 0, 65535, 65535, 46 * count, 30, len(comment)))
        file.write(comment)
    assert "1 to 65 members, got 65535" in refused(path)
    with open(path, "r+b") as file:  # fewer than there are
        file.seek(-len(comment) - 22 + 8, os.SEEK_END)
        file.write(struct.pack("<HH", 3, 3))
    assert "a directory without extras" in refused(path)


def test_larger_than_the_cap(tmp_path: Path) -> None:
    """A file with a hole: a terabyte that takes no room. Its size alone is enough."""
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.write(b"PK\3\4")
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("the file system has no files of that size")
    assert f"at most {1 << 30} bytes, got {1 << 40}" in refused(path)


# --- fuzzing -------------------------------------------------------------------------------------

# Kept for ever: `python -m tests.test_bundle_attacks` writes the first, a fuzzer adds its finds.
SEEDS: dict[str, Callable[[dict[str, Any], dict[str, bytes]], bytes]] = {
    "empty": lambda manifest, members: b"",
    "no-members": lambda manifest, members: sealed(b"{}", {}),
    "nested": lambda manifest, members: sealed(b'{"a":' * 500 + b"1" + b"}" * 500, {}),
    "onnx-empty": lambda manifest, members: _sealed(manifest, {**members, "encoder.onnx": b""}),
    "onnx-half": lambda manifest, members: _sealed(
        manifest, {**members, "encoder.onnx": members["encoder.onnx"][:150]}
    ),
    "npy-header-bomb": lambda manifest, members: _sealed(
        manifest,
        {**members, "golden/image.npy": b"\x93NUMPY\x01\x00\xf0\x00" + b"(" * 240},
    ),
}


def _sealed(manifest: dict[str, Any], members: dict[str, bytes]) -> bytes:
    return sealed(json.dumps({**manifest, "members": listed(members)}).encode(), members)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*")), ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    refused(path)


def test_the_corpus_is_there() -> None:
    assert {f"{name}.fsseg" for name in SEEDS} <= {path.name for path in CORPUS.glob("*")}


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few changes of the kinds that break parsers."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(result) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                result[at : at + length] = rng.randbytes(length)
            case 1:
                del result[at : at + length]
            case 2:
                result[at:at] = rng.randbytes(length)
            case 3:
                other = rng.randrange(len(result) + 1)
                result[at : at + length] = result[other : other + length]
            case 4:
                result[at : at + length] = rng.choice((b"\xff", b"\0", b"\x80", b"\x7f")) * length
            case _:
                del result[at:]
    return bytes(result)


def test_fuzz(path: Path) -> None:
    """Only typed errors, whatever the bytes; half of them behind right hashes, where the manifest,
    the ONNX walker and the array reader are alone. FSSEG_FUZZ_SECONDS makes it longer."""
    seconds = float(os.environ.get("FSSEG_FUZZ_SECONDS", "3"))
    seed = int(os.environ.get("FSSEG_FUZZ_SEED", "0"))
    rng = random.Random(seed)
    data = path.read_bytes()
    manifest, members = unpack(data)
    end, rounds, opened = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        rounds += 1
        target = rng.choice(["file", MANIFEST, *members])
        if target == "file":
            broken = mutated(rng, data)
        elif target == MANIFEST:
            broken = sealed(mutated(rng, json.dumps(manifest).encode()), members)
        else:
            broken = _sealed(manifest, {**members, target: mutated(rng, members[target])})
        path.write_bytes(broken)
        try:
            Bundle.open(path)
            opened += 1  # such as another value in a weight: whole, and something else
        except FssegError:
            continue
        except BaseException:
            name = hashlib.sha256(broken).hexdigest()[:16]
            (CORPUS / f"fuzz-{name}.fsseg").write_bytes(broken)
            raise
    assert rounds > 10
    assert opened < rounds


def write_corpus() -> None:
    """Writes the seeds."""
    import tempfile

    CORPUS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        manifest, members = unpack(tiny_bundle(Path(folder) / "x").read_bytes())
    for name, make in SEEDS.items():
        (CORPUS / f"{name}.fsseg").write_bytes(make(manifest, members))


if __name__ == "__main__":
    write_corpus()
