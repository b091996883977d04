"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from skylink.errors import OutputError
from skylink.files import output_errors, write_atomic


def test_writes_text_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "é ☀.json"
    assert write_atomic(path, "ü\n") == path
    assert path.read_bytes() == "ü\n".encode()
    assert write_atomic(str(path), b"\0\1") == path
    assert path.read_bytes() == b"\0\1"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_atomic(tmp_path / "a", "x")
        assert os.umask(0o027) == 0o027  # reading it left it as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "quota"), (errno.EIO, "another place")],
)
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, hint: str
) -> None:
    path = write_atomic(tmp_path / "a.json", "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OutputError) as caught:
            write_atomic(path, "new")
    assert str(path) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert hint in (caught.value.hint or "")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


@pytest.mark.parametrize(("number", "hint"), [(errno.EACCES, "may write"), (errno.EROFS, "only")])
def test_a_folder_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # root may write anywhere: chmod proves nothing
    with pytest.raises(OutputError) as caught:
        write_atomic(tmp_path / "a", "x")
    assert hint in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, name = os.open("/dev/full", os.O_WRONLY), tmp_path / "temporary"
    name.touch()
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (full, str(name)))
    with pytest.raises(OutputError, match="No space left"):
        write_atomic(tmp_path / "a", "x")
    assert not list(tmp_path.iterdir())


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "file" / "a", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "folder", "x")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / ("n" * 300), "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", "x")
    assert not list(tmp_path.iterdir())


def test_output_errors_leave_other_errors_alone(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_errors(tmp_path):
        _ = 1 / 0
    with pytest.raises(OutputError) as caught, output_errors(tmp_path):
        raise OSError("no number")
    assert "no number" in caught.value.message
    assert caught.value.hint
