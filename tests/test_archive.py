"""The canonical archive: what is written, what is read back, and that nothing else is accepted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk.archive import Archive, Caps, read_archive, write_archive
from fsseg_sdk.errors import BundleError, TaskError
from tests.archives import KIND, borders, flips, forged, listed, pack, sealed, tree

MEMBERS = {"b.bin": b"123", "a/x.bin": bytes(range(100)), "empty.bin": b""}


def write(path: Path, **changes: Any) -> str:
    arguments = {"kind": KIND, "manifest": {"name": "x"}, "members": MEMBERS, **changes}
    return write_archive(path, error_type=BundleError, **arguments)


def read(path: Path, **changes: Any) -> Archive:
    return read_archive(path, KIND, BundleError, **changes)


def refused(path: Path, data: bytes, **changes: Any) -> str:
    """The message that refuses an archive of these bytes, given within a second."""
    path.write_bytes(data)
    begin = time.perf_counter()
    with pytest.raises(BundleError) as caught:
        read(path, **changes)
    assert time.perf_counter() - begin < 1.0
    return str(caught.value)


def test_round_trip(tmp_path: Path) -> None:
    digest = write(tmp_path / "x.fsseg")
    archive = read(tmp_path / "x.fsseg")
    assert {name: bytes(view) for name, view in archive.members.items()} == MEMBERS
    assert archive.digest == digest
    assert archive.manifest["name"] == "x"
    assert archive.manifest["members"] == listed(MEMBERS)
    assert all(view.readonly for view in archive.members.values())


def test_same_input_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", members=dict(reversed(MEMBERS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    digest = write(tmp_path / "x.fsseg")
    with zipfile.ZipFile(tmp_path / "x.fsseg") as other:
        assert other.testzip() is None
        assert other.namelist() == ["manifest.json", "a/x.bin", "b.bin", "empty.bin"]
        assert other.read("a/x.bin") == MEMBERS["a/x.bin"]
        assert other.comment == f"fsseg-bundle sha256:{digest}".encode()


def test_every_byte_flipped(tmp_path: Path) -> None:
    """Whatever it belongs to; the message names a member or the structure."""
    path = tmp_path / "x.fsseg"
    write(path)
    for pattern in (0, 0xFF):
        for _ in flips(path, range(path.stat().st_size), pattern):
            with pytest.raises(BundleError) as caught:
                read(path)
            assert "archive structure" in str(caught.value) or "member '" in str(caught.value)
    read(path)


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "x.fsseg"
    write(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(BundleError):
            read(path)


def test_bytes_before_between_and_after(tmp_path: Path) -> None:
    path = tmp_path / "x.fsseg"
    write(path)
    data = path.read_bytes()
    for at in borders(data):
        for extra in (b"\0", b"PK", b"PK\5\6" + bytes(18), data):
            path.write_bytes(data[:at] + extra + data[at:])
            with pytest.raises(BundleError):
                read(path)


def test_two_directories_that_disagree(tmp_path: Path) -> None:
    """A second end record inside the comment is what other readers might believe."""
    manifest = sealed(b"{}", {})
    assert "end record" in refused(tmp_path / "x", manifest + sealed(b"{}", {"b.bin": b""}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"hello, world", "begins with PK"),
        (b"PK\3\4", "truncated"),
        (b"PK\5\6" + bytes(18), "begins with PK"),
        (b"\x1f\x8b" + bytes(1000), "begins with PK"),
        (b"PK\3\4" + bytes(100_000), "the end record"),
    ],
)
def test_not_an_archive(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in refused(tmp_path / "x.fsseg", data)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle 'gone', file: .*No such file"):
        read(tmp_path / "gone")
    with pytest.raises(BundleError, match="regular file"):
        read(tmp_path)
    with pytest.raises(BundleError, match="null"):
        read(Path("a\0b"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
        with pytest.raises(BundleError, match="regular file"):
            read(tmp_path / "pipe")


def test_the_callers_error_and_word(tmp_path: Path) -> None:
    (tmp_path / "x.task").write_bytes(b"no")
    with pytest.raises(TaskError, match=r"task 'x\.task'"):
        read_archive(tmp_path / "x.task", "fsseg-task", TaskError)


def test_another_kind(tmp_path: Path) -> None:
    write_archive(tmp_path / "x", "fsseg-task", {}, {}, TaskError)
    with pytest.raises(BundleError):
        read(tmp_path / "x")
    # the comment of a bundle around the manifest of a task
    manifest = b'{"format": "fsseg-task", "format_version": "1.0.0", "members": {}}'
    assert "manifest.json.format: expected fsseg-bundle" in refused(
        tmp_path / "x", sealed(manifest, {})
    )


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("1.0.0", True), ("1.0.9", True), ("1.7.0", True), ("2.0.0", False), ("0.9.0", False)],
)
def test_versions(tmp_path: Path, version: str, accepted: bool) -> None:
    path = tmp_path / "x"
    data = forged({}, {"b.bin": b"1"}, version)
    if accepted:
        path.write_bytes(data)
        assert read(path).newer == (version == "1.7.0")
    else:
        message = refused(path, data)
        assert f"expected 1.x.y, which this fsseg_sdk reads, got {version}" in message
        assert ("Update" in message) == (version > "1")


@pytest.mark.parametrize(
    "version", ["1", "1.0", "1.0.0.0", "01.0.0", "1.0.x", "-1.0.0", "", 1, None]
)
def test_no_version(tmp_path: Path, version: Any) -> None:
    assert "format_version" in refused(tmp_path / "x", forged({}, {}, version))


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"", "valid JSON"),
        (b"[]", "a JSON object"),
        (b"\xff\xfe{}", "valid JSON in UTF-8"),
        (b"\xef\xbb\xbf{}", "valid JSON"),
        (b'{"a": 1, "a": 2}', "each key once, got 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "each key once, got 'b' twice"),
        (b'{"a": NaN}', "finite numbers, got NaN"),
        (b'{"a": -Infinity}', "finite numbers, got -Infinity"),
        (b'{"a": 1e999}', "finite numbers, got 1e999"),
        (b'{"a": ' + b"1" * 20 + b"}", "64 bits, got 20 digits"),
        (b'{"a": ' + b"1" * 100_000 + b"}", "64 bits"),
        (b'{"a": ' + b"[" * 13 + b"]" * 13 + b"}", "12 levels of nesting, got 14"),
        (b'{"a": ' + b"[" * 100_000, "levels of nesting"),
        (b'{"a": "' + b"[" * 1000 + b'"} x', "valid JSON"),  # brackets in text do not nest
        (b'{"a": "\\u001b[31m"}', "control characters"),
        (b'{"\\u0000": 1}', "control characters"),
        (b'{"a": "\\ud800"}', "control characters"),
        (b'{"a": 1} {"a": 1}', "valid JSON"),
        (b"{'a': 1}", "valid JSON"),
    ],
)
def test_strict_json(tmp_path: Path, manifest: bytes, words: str) -> None:
    message = refused(tmp_path / "x", sealed(manifest, {}))
    assert words in message
    assert len(message) < 500


def test_manifest_names_other_members(tmp_path: Path) -> None:
    def with_list(members: dict[str, Any]) -> bytes:
        import json

        document = {"format": KIND, "format_version": "1.0.0", "members": members}
        return sealed(json.dumps(document).encode(), {"b.bin": b"123"})

    right = listed({"b.bin": b"123"})
    path = tmp_path / "x"
    path.write_bytes(with_list(right))
    read(path)
    for members, words in [
        ({}, "member 'b.bin': expected only members that the manifest lists"),
        (
            {**right, **listed({"c.bin": b""})},
            "member 'c.bin': expected a member that the manifest",
        ),
        ({"b.bin": {**right["b.bin"], "bytes": 4}}, "member 'b.bin': expected 4 bytes, got 3"),
        ({"b.bin": {**right["b.bin"], "sha256": "0" * 64}}, "member 'b.bin': expected sha256"),
        ({"b.bin": {**right["b.bin"], "sha256": "A" * 64}}, "64 hexadecimal digits"),
        ({"b.bin": {**right["b.bin"], "more": 1}}, "unknown field"),
        ({"b.bin": {"sha256": "0" * 64}}, "bytes"),
        ({"b.bin": {**right["b.bin"], "bytes": True}}, "an integer"),
        ({"b.bin": 3}, "an object"),
        ({"manifest.json": right["b.bin"]}, "a plain member name"),
        ({"../b.bin": right["b.bin"]}, "a way out"),
    ]:
        assert words in refused(path, with_list(members)), words


def test_caps(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path)
    data = path.read_bytes()
    size = data.index(b"PK\3\4", 4)
    read(path, caps=Caps(file_bytes=len(data), members=3, manifest_bytes=size - 43, name_bytes=13))
    for caps, words in [
        (Caps(file_bytes=len(data) - 1), f"at most {len(data) - 1} bytes"),
        (Caps(members=2), "1 to 3 members, got 4"),
        (Caps(manifest_bytes=size - 44), "member 'manifest.json'"),
        (Caps(name_bytes=12), "a name of 13 bytes"),
    ]:
        assert words in refused(path, data, caps=caps)


def test_members_out_of_order(tmp_path: Path) -> None:
    from fsseg_sdk.archive.read import comment_of

    members = {"a.bin": b"1", "b.bin": b"2"}
    right = forged({}, members)
    manifest = right[43 : 43 + int.from_bytes(right[18:22], "little")]
    comment = comment_of(KIND, manifest)
    entries = [("manifest.json", manifest), ("b.bin", b"2"), ("a.bin", b"1")]
    assert "sorted by name" in refused(tmp_path / "x", pack(entries, comment))
    entries = [("a.bin", b"1"), ("manifest.json", manifest), ("b.bin", b"2")]
    assert "manifest.json as the first member" in refused(tmp_path / "x", pack(entries, comment))


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "c:x", "a\\b", "A.bin", "a\0b", "", ".x", "a//b", "a/", "x" * 101, "ü",
     "manifest.json", "a/../b", "a\n"],
)  # fmt: skip
def test_names_that_a_writer_refuses(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError):
        write(tmp_path / "x", members={name: b""})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "manifest",
    [{"a": float("nan")}, {"a": object()}, {"a": b"1"}, {"a": "\x1b"}, {"a": 1 << 80}],
)
def test_manifests_that_a_writer_refuses(tmp_path: Path, manifest: dict[str, Any]) -> None:
    (tmp_path / "x").write_bytes(b"as it was")
    with pytest.raises(BundleError):
        write(tmp_path / "x", manifest=manifest)
    assert tree(tmp_path) == {"x": b"as it was"}


def test_check_sees_the_archive_before_it_is_there(tmp_path: Path) -> None:
    def check(archive: Archive) -> None:
        assert bytes(archive.members["b.bin"]) == b"123"
        assert not (tmp_path / "x").exists()
        raise BundleError("check", expected="better", got="this", remedy="None.")

    with pytest.raises(BundleError, match="better"):
        write(tmp_path / "x", check=check)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    (tmp_path / "x").write_bytes(b"as it was")

    def fail(*arguments: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2  # the sibling is there at this moment
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises((BundleError, KeyboardInterrupt)) as caught:
            write(tmp_path / "x")
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value)
    else:
        assert caught.value is failure
    assert tree(tmp_path) == {"x": b"as it was"}
    write(tmp_path / "x")  # and the next one succeeds
    read(tmp_path / "x")


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX")
def test_disk_full_for_real(tmp_path: Path) -> None:
    """The system refuses the 20,001st byte of any file, as a full disk would."""
    code = """
import resource, signal, sys
from fsseg_sdk.archive import write_archive
from fsseg_sdk.errors import BundleError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
write_archive(sys.argv[1], "fsseg-bundle", {}, {"a.bin": bytes(10_000)}, BundleError)
try:
    write_archive(sys.argv[1], "fsseg-bundle", {}, {"a.bin": bytes(30_000)}, BundleError)
except BundleError as error:
    print(error)
"""
    path = tmp_path / "x"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert "File too large" in done.stdout, done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert len(read(path).members["a.bin"]) == 10_000


@pytest.mark.skipif(sys.platform == "win32", reason="the signal is POSIX")
def test_killed_while_writing(tmp_path: Path) -> None:
    """Nobody can clean up after SIGKILL, but the file is as it was and the next writer succeeds."""
    code = """
import os, signal, sys
from fsseg_sdk.archive import write_archive
from fsseg_sdk.errors import BundleError
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_archive(sys.argv[1], "fsseg-bundle", {}, {"a.bin": b"new"}, BundleError)
"""
    path = tmp_path / "x"
    write(path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    write(path, members={"a.bin": b"newer"})
    assert bytes(read(path).members["a.bin"]) == b"newer"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a place to write to"):
        write(tmp_path / "no" / "x")


def test_the_writer_keeps_the_readers_caps(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="at most 100 bytes"):
        write(tmp_path / "x", caps=Caps(file_bytes=100))
    with pytest.raises(BundleError, match="members"):
        write(tmp_path / "x", members={f"{n}.bin": b"" for n in range(65)})
    assert tree(tmp_path) == {}
