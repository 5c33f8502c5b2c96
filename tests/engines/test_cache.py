"""The engine cache: what fits is found, what does not is named, and nothing half is ever there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
import struct
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk.engines import Built, Engine, EngineCache, EngineKey, default_folder, differences
from fsseg_sdk.engines.file import read_whole
from fsseg_sdk.errors import BackendError, InputError

KEY = EngineKey(
    "encoder", "0" * 64, "tensorrt", "10.3.0", "linux-aarch64", "Orin", "8.7", 16, "540.4", "12.6",
    "fp16", ("image 1x3x64x64 1x3x64x64 8x3x64x64",),
)  # fmt: skip
OTHERS = {
    "graph": "head", "onnx_sha256": "1" * 64, "runtime": "tensorrt-rtx", "runtime_version": "11.4",
    "system": "linux-x86_64", "gpu": "H200", "compute_capability": "9.0", "multiprocessors": 132,
    "driver": "560.1", "cuda": "13.0", "precision": "fp32", "profiles": ("image 1 1 1",), "dla": 0,
    "builder": 2,
}  # fmt: skip
PLAN = bytes(range(256)) * 8


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines", 1 << 20)


def put(cache: EngineCache, key: EngineKey = KEY, plan: bytes = PLAN) -> Path:
    path = cache.obtain(key, lambda: Built(plan, {"seconds": 1.5})).path
    assert path is not None
    return path


def never() -> Built:
    raise AssertionError("built again")


def test_found_again(cache: EngineCache) -> None:
    path = put(cache)
    again = cache.obtain(KEY, never)
    assert (bytes(again.plan), again.path, again.reason) == (PLAN, path, "")
    assert again.notes == {"seconds": 1.5}
    assert EngineCache(cache.folder.path).obtain(KEY, never).path == path


def test_private(cache: EngineCache) -> None:
    before = os.umask(0)
    try:
        path = put(cache)
    finally:
        os.umask(before)
    assert cache.folder.path.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("field", [field.name for field in fields(EngineKey)])
def test_each_field_counts(cache: EngineCache, field: str) -> None:
    put(cache)
    wanted = replace(KEY, **{field: OTHERS[field]})
    (difference,) = differences(KEY, wanted)
    assert difference.startswith(f"{field} is ")
    obtained = cache.obtain(wanted, lambda: Built(b"new", {}))
    assert bytes(obtained.plan) == b"new"
    if field == "graph":
        assert obtained.reason == "no engine of this graph is there yet"
    else:
        assert obtained.reason == difference
    assert bytes(cache.obtain(wanted, never).plan) == b"new"


def test_the_reason_in_words(cache: EngineCache) -> None:
    put(cache)
    put(cache, replace(KEY, driver="530.1", gpu="Thor"))
    reason = cache.find(replace(KEY, driver="560.1"))
    assert reason == "driver is 560.1 here, 540.4 in the engine"  # the nearest one


def test_two_versions_share_a_folder(cache: EngineCache) -> None:
    """Two containers with one home: neither deletes what the other has built."""
    ways = [KEY, replace(KEY, driver="560.1"), replace(KEY, runtime_version="11.4")]
    paths = [put(cache, key) for key in ways]
    assert all(path.exists() for path in paths)
    assert [cache.obtain(key, never).path for key in ways] == paths


def test_text_that_no_header_takes(cache: EngineCache) -> None:
    """A library's control characters cost the notes, never the engine; in a key it is said."""
    notes = {"log": ["\x1b[31merror\x00", "\ud800"], "seconds": float("nan")}
    assert cache.obtain(KEY, lambda: Built(PLAN, notes)).unkept == ""
    assert cache.obtain(KEY, never).notes == {}
    odd = replace(KEY, gpu="\x1b[2J")
    obtained = cache.obtain(odd, lambda: Built(PLAN, {}))
    assert obtained.path is None and bytes(obtained.plan) == PLAN
    assert "header: expected one that can be read again" in obtained.unkept
    assert len(cache.entries()) == 1


def test_a_file_that_comes_in_pieces() -> None:
    """Linux reads at most 2 GiB at once."""

    class Slow(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = data

        def readinto(self, buffer: Any) -> int:
            count = min(7, len(buffer), len(self.data))
            buffer[:count], self.data = self.data[:count], self.data[count:]
            return count

    assert read_whole(Slow(PLAN), len(PLAN)) == PLAN
    assert read_whole(Slow(PLAN[:50]), len(PLAN)) == PLAN[:50]


def cut(data: bytes, size: int) -> bytes:
    return data[:size]


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack_from("<I", data, 8)[0]
    return json.loads(data[12 : 12 + length]), data[12 + length :]


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    header, plan = header_of(data)
    change(header)
    text = json.dumps(header).encode()
    return data[:8] + struct.pack("<I", len(text)) + text + plan


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "a file of 0 bytes"),
    "short": (lambda d: d[:5], "a file of 5 bytes"),
    "text": (lambda d: b"hello, this is no engine", "another kind of file"),
    "a raw plan": (lambda d: header_of(d)[1], "another kind of file"),
    "half a header": (lambda d: d[:40], "cut off"),
    "truncated": (lambda d: d[:-1], "a plan of 2048 bytes"),
    "too long": (lambda d: d + b"x", "a plan of 2048 bytes"),
    "no plan": (lambda d: d[: -len(PLAN)], "a plan of 2048 bytes"),
    "a changed plan": (lambda d: d[:-1] + b"x", "a plan with sha256"),
    "a huge header": (lambda d: d[:8] + struct.pack("<I", 1 << 31) + d[12:], "cut off"),
    "no JSON": (lambda d: d.replace(b'"format"', b'"format', 1), "valid JSON"),
    "NaN": (lambda d: with_header(d, lambda h: h["build"].update(x=float("nan"))), "finite"),
    "another format": (lambda d: with_header(d, lambda h: h.update(format="x")), "fsseg-engine"),
    "of tomorrow": (lambda d: with_header(d, lambda h: h.update(format_version="2.0.0")), "1.x.y"),
    "no key": (lambda d: with_header(d, lambda h: h.pop("key")), "nothing"),
    "a list of numbers": (
        lambda d: with_header(d, lambda h: h["key"].update(profiles=[1])),
        "texts",
    ),
    "a path": (lambda d: with_header(d, lambda h: h["key"].update(graph="../x")), "a graph's name"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen(cache: EngineCache, name: str) -> None:
    path = put(cache)
    damage, words = DAMAGE[name]
    path.write_bytes(damage(path.read_bytes()))
    (entry,) = cache.entries()
    obtained = cache.obtain(KEY, lambda: Built(b"new", {}))
    assert bytes(obtained.plan) == b"new" and words in obtained.reason
    assert (entry.fault != "") == (name != "a changed plan")  # a list computes no hashes
    assert bytes(cache.obtain(KEY, never).plan) == b"new"


def test_a_renamed_engine(cache: EngineCache) -> None:
    """The name says what is wanted, the header what is there."""
    wanted = replace(KEY, gpu="H200")
    put(cache).rename(cache.folder.path / f"encoder-{wanted.digest}.engine")
    assert cache.find(wanted) == "gpu is H200 here, Orin in the engine"


def test_one_wrong_bit(cache: EngineCache) -> None:
    """One bit of a byte: the right plan or a reason, never an exception or another plan."""
    path = put(cache, plan=PLAN[:64])
    data = path.read_bytes()
    for at in [*range(64), *range(64, len(data) - 64, 5), *range(len(data) - 64, len(data))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = cache.find(KEY)
        assert isinstance(found, str) or bytes(found.plan) == PLAN[:64]


def test_links_and_others_files(cache: EngineCache, tmp_path: Path) -> None:
    path = put(cache)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(copy)
    assert isinstance(cache.find(KEY), str)
    path.unlink()
    path.write_bytes(copy.read_bytes())
    path.chmod(0o622)
    assert "that only this user can write" in str(cache.find(KEY))
    path.chmod(0o600)
    assert isinstance(cache.find(KEY), Engine)


def test_a_folder_that_others_can_write_to(cache: EngineCache) -> None:
    put(cache)
    cache.folder.path.chmod(0o777)
    for call in (lambda: cache.find(KEY), cache.entries, cache.clear, lambda: put(cache)):
        with pytest.raises(BackendError, match=r"that others can write to \(mode 777\).*chmod 700"):
            call()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="something that is no folder"):
        put(EngineCache(tmp_path / "file"))
    obtained = EngineCache(tmp_path / "file" / "engines").obtain(KEY, lambda: Built(PLAN, {}))
    assert (bytes(obtained.plan), obtained.path) == (PLAN, None)
    assert "File exists" in obtained.unkept and "chmod" not in obtained.unkept
    assert EngineCache(tmp_path / "nothing").entries() == []
    assert EngineCache(tmp_path / "nothing").clear() == []
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_read_only(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """The plan is used once, as with a full disk; what is there already is found."""
    if made:
        put(cache)

    def refuse(*given: Any, **more: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    opening = os.open
    monkeypatch.setattr(Path, "mkdir", refuse if not made else Path.mkdir)
    monkeypatch.setattr(os, "open", lambda *a, **k: refuse() if a[1] & os.O_CREAT else opening(*a))
    if made:
        assert isinstance(cache.find(KEY), Engine)
    obtained = cache.obtain(replace(KEY, gpu="H200"), lambda: Built(b"new", {}))
    assert bytes(obtained.plan) == b"new" and obtained.path is None
    assert "Read-only file system" in obtained.unkept and "chmod" not in obtained.unkept


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FSSEG_ENGINE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(BackendError, match=r"a user with a home folder.*FSSEG_ENGINE_CACHE"):
        default_folder()


def test_used_longest_ago_goes_first(cache: EngineCache) -> None:
    keys = [replace(KEY, onnx_sha256=str(index) * 64) for index in range(4)]
    small = EngineCache(cache.folder.path, 4 * 4096)
    for index, key in enumerate(keys[:3]):
        os.utime(put(small, key, PLAN * 2), (index, index))
    assert isinstance(small.find(keys[0]), Engine)  # used now
    put(small, keys[3], PLAN * 2)
    assert [isinstance(small.find(key), Engine) for key in keys] == [True, False, True, True]
    large = small.obtain(replace(KEY, gpu="H200"), lambda: Built(PLAN * 100, {}))
    assert large.path is None and "at most 16384 bytes" in large.unkept
    assert "FSSEG_ENGINE_CACHE_MIB" in large.unkept and len(small.entries()) == 3


def test_measurements_count_and_go(cache: EngineCache) -> None:
    small = EngineCache(cache.folder.path, 3 * 4096)
    small.write_timing(KEY, bytes(4096))
    (timing,) = small.folder.path.glob("*.timing")
    os.utime(timing, (1, 1))
    os.utime(put(small, KEY, PLAN * 2), (2, 2))
    put(small, replace(KEY, gpu="H200"), PLAN * 2)
    assert not timing.exists() and len(small.entries()) == 2
    small.write_timing(KEY, bytes(1 << 20))  # beyond the cap: nothing goes for it
    assert not timing.exists() and len(small.entries()) == 2


def test_a_full_disk(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    obtained = cache.obtain(replace(KEY, gpu="H200"), lambda: Built(b"new", {}))
    assert bytes(obtained.plan) == b"new" and obtained.path is None
    assert "No space left on device" in obtained.unkept and "engine clear" in obtained.unkept
    assert not list(cache.folder.path.glob(".*"))
    assert isinstance(cache.find(KEY), Engine)


def test_an_interrupted_build(cache: EngineCache) -> None:
    def interrupted() -> Built:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.obtain(KEY, interrupted)
    assert cache.entries() == []
    assert put(cache).exists()  # and the lock is free


def test_rests_of_a_killed_process(cache: EngineCache) -> None:
    put(cache)
    rest = cache.folder.path / ".0123.part"
    rest.write_bytes(b"half")
    put(cache, replace(KEY, gpu="H200"))
    assert not rest.exists()


def build_slowly(folder: Path, log: Path) -> None:
    def build() -> Built:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        return Built(PLAN, {})

    waited: list[bool] = []
    plan = EngineCache(folder).obtain(KEY, build, waiting=lambda: waited.append(True)).plan
    with log.open("a") as file:
        file.write(f"{hashlib.sha256(plan).hexdigest()} {len(waited)}\n")


def test_two_processes_at_once(tmp_path: Path) -> None:
    """One builds, the other waits and finds."""
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=build_slowly, args=(tmp_path / "engines", log)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = log.read_text().splitlines()
    assert lines.count("built") == 1
    assert sorted({line.split()[0] for line in lines}) == sorted(
        {"built", hashlib.sha256(PLAN).hexdigest()}
    )


def test_the_holder_of_the_lock_dies(cache: EngineCache) -> None:
    put(cache)
    child = os.fork()
    if child == 0:
        with cache.folder.locked():
            os._exit(0)
    os.waitpid(child, 0)
    assert put(cache, replace(KEY, gpu="H200")).exists()


def test_a_lock_does_not_outlive_its_holder_in_a_child(cache: EngineCache) -> None:
    """A process that is forked during a build has the lock's descriptor, too."""
    read, write = os.pipe()
    with cache.folder.locked():
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    os.close(read)
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        os.close(write)  # ends the child

    with cache.folder.locked(waiting):
        pass
    if not waited:
        os.close(write)
    os.waitpid(child, 0)
    assert waited == []


def test_clear(cache: EngineCache) -> None:
    put(cache)
    put(cache, replace(KEY, gpu="H200"))
    cache.write_timing(KEY, b"measured")
    gone = cache.clear(lambda e: e.header is not None and e.header.key.gpu == "H200")
    assert len(gone) == 1 and len(cache.entries()) == 1
    assert cache.read_timing(KEY) == b"measured"
    assert len(cache.clear()) == 1
    assert cache.read_timing(KEY) is None and cache.entries() == []


def test_measurements(cache: EngineCache) -> None:
    cache.write_timing(KEY, b"measured")
    assert cache.read_timing(replace(KEY, graph="head", precision="fp32")) == b"measured"
    assert cache.read_timing(replace(KEY, runtime_version="11.4")) is None
    (path,) = cache.folder.path.glob("*.timing")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cache.read_timing(KEY) is None


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FSSEG_ENGINE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fsseg_sdk" / "engines"
    monkeypatch.setenv("FSSEG_ENGINE_CACHE", "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.setenv("FSSEG_ENGINE_CACHE_MIB", "12")
    assert EngineCache().most_bytes == 12 << 20
    monkeypatch.setenv("FSSEG_ENGINE_CACHE_MIB", "much")
    with pytest.raises(InputError, match="FSSEG_ENGINE_CACHE_MIB"):
        EngineCache()


def test_stale_is_seen_by_the_header_alone(cache: EngineCache) -> None:
    """A plan of any size is not read: that this one is damaged as well is not found out."""
    path = put(cache)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cache.find(replace(KEY, driver="560.1")) == "driver is 560.1 here, 540.4 in the engine"
    assert "sha256" in str(cache.find(KEY))
