"""Writing files so that a kill, a full disk or a read-only folder never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from skylink.errors import OutputError


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of writing under `path` into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space, or choose another place",
            errno.EDQUOT: "your disk quota is used up: free some space, or choose another place",
            errno.EACCES: "choose a folder that you may write to",
            errno.EPERM: "choose a folder that you may write to",
            errno.EROFS: "the disk is read-only: choose another place",
        }
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}",
            hint=hints.get(error.errno or 0, "choose another place to write to"),
        ) from error


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write a file whole or not at all (temporary file in the same folder, fsync, rename).

    Text is written as UTF-8. Missing parent folders are made.

    Raises:
        OutputError: the folder can't be written to, or the disk is full; the old file, if any,
            is untouched and no temporary file stays behind.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            follow_umask(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    return path


def follow_umask(path: str | Path) -> None:
    """Who may read and write a file: as of any other that this process makes, by its umask."""
    os.chmod(path, 0o666 & ~_umask())


def _umask() -> int:
    """The process's umask (reading it means setting it for a moment)."""
    current = os.umask(0)
    os.umask(current)
    return current
