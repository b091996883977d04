"""Visual features of pictures, kept on disk: the vision tower never sees a tile twice.

    <folder>/lock                                            the lock; holds the bytes in use
    <folder>/<model key>/<2 hex>/<64 hex>.safetensors        one picture, as one model sees it
    <folder>/<model key>/<2 hex>/<64 hex>.<random>.tmp       being written

- Right or absent: an entry holds a digest of its tensors, its model and its picture, so a flipped
  bit, a cut file or a file in another's place is a miss, never a wrong score. The digest finds
  accidents. It's no signature: whoever may write to the folder can change scores.
- Bounded: entries are added under one lock, which also guards their total, so all models together
  stay within `max_bytes`, whatever the number of processes, and a kill can only overstate the
  total. Only where there are no locks (Windows, some network disks) may each other process
  overshoot by what it wrote since its own last count.
- No fsync, and hence not `files.write_atomic`: a rename alone survives a killed process, and what
  a power cut leaves half-written fails its digest. What is lost costs one pass of the tower, about
  what an fsync costs.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skylink.errors import OptionError, OutputError
from skylink.files import output_errors
from skylink.lvlm.features import ImageFeatures, pack, unpack

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAX_ENTRY_BYTES = 512 * 1024 * 1024
"""The most that one picture may take; more isn't kept, and a larger file isn't read. For scale:
16384 tokens of 3584 numbers, with three deepstack levels, in bfloat16, take 448 MiB."""
KEPT_FRACTION = 0.9
"""Eviction goes down to this part of the bound, so that it comes once in many writes."""
TOUCH_S = 60.0
"""Use is recorded (as the file's mtime) this often at most: a read shouldn't cost a write."""
LOCK_WAIT_S = 10.0
"""Longer than counting and evicting take; whoever holds the lock beyond it is probably stopped."""

__all__ = ["FeatureCache", "ImageFeatures", "default_folder", "picture_key"]

_log = logging.getLogger(__name__)
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_LEFTOVER = re.compile(r"[0-9a-f]{64}\.[0-9a-f]+\.tmp")


def default_folder() -> Path:
    """`$SKYLINK_CACHE`, else `skylink/features` in the user's cache (XDG base directories).

    Raises:
        OptionError: the user has no home folder.
    """
    try:
        if chosen := os.environ.get("SKYLINK_CACHE"):
            return Path(chosen).expanduser()
        caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not caches.is_absolute():  # the standard says that a relative one is ignored
            caches = Path.home() / ".cache"
    except RuntimeError as error:
        raise OptionError(
            f"no place for the cache of visual features: {error}",
            hint="set SKYLINK_CACHE to a folder",
        ) from error
    return caches / "skylink" / "features"


def picture_key(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 over the shape and the bytes of an (H, W, 3) picture, as 64 hex digits."""
    digest = hashlib.sha256(f"{rgb.dtype.str}{rgb.shape}".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


class FeatureCache:
    """Features by `picture_key`, for one model, on disk; the least recently used go first.

    Any number of processes and models may share a folder. Nothing that the disk does stops
    scoring: what can't be read is a miss, and what can't be written is counted, warned of once
    and described in `problem`.

    Args:
        folder: of all models; made when first needed.
        model_key: what the features depend on beside the picture (checkpoint, processor, dtype);
            letters, digits, `.`, `_` and `-`.
        max_bytes: bound on all models' entries in `folder`; 0 keeps none and touches no disk.

    Attributes:
        hits: entries that `get` found.
        misses: calls of `get` that found none, the corrupt ones included.
        corrupt: entries that were damaged, and were removed.
        failed_writes: entries that couldn't be written.
        evicted: entries that this object removed to make room.
        problem: what went wrong at the first failed write, and what to do about it.

    Raises:
        OptionError: `model_key` can't name a folder, or `max_bytes` is negative.
    """

    def __init__(self, folder: Path, model_key: str, *, max_bytes: int) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", model_key):
            raise OptionError(f"{model_key!r} can't be the key of a model")
        if max_bytes < 0:
            raise OptionError(f"max_bytes = {max_bytes} is negative", hint="0 keeps none")
        self.folder, self.model_key, self.max_bytes = Path(folder), model_key, max_bytes
        self.hits = self.misses = self.corrupt = self.failed_writes = self.evicted = 0
        self.problem: str | None = None
        self._counted = False

    def contains(self, key: str) -> bool:
        """Whether there is an entry; it's not read, so `get` may still find it damaged."""
        return self.max_bytes > 0 and os.path.isfile(self._path(key))

    def get(self, key: str) -> ImageFeatures | None:
        """The features of the picture with this `picture_key`, exactly as put; None: a miss."""
        path = self._path(key)
        data = _read(path) if self.max_bytes else None
        features = None if data is None else unpack(data, self._identity(key))
        if features is not None:
            self.hits += 1
            return features
        self.misses += 1
        if data is not None:
            self.corrupt += 1
            _log.debug("removing %s: it's damaged", path)
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def put(self, key: str, features: ImageFeatures) -> None:
        """Keep features, unless they alone exceed the bound. Never raises for what a disk does."""
        path = self._path(key)
        if not self.max_bytes:
            return
        data = pack(features, self._identity(key))
        if len(data) > min(self.max_bytes, MAX_ENTRY_BYTES):
            return
        try:
            with output_errors(self.folder):
                self._store(path, data)
        except OutputError as error:
            self.failed_writes += 1
            if self.problem is None:
                self.problem = f"{error.message} ({error.hint})"
                _log.warning("visual features aren't kept: %s", self.problem)

    def size_bytes(self) -> int:
        """Bytes in use by all models in the folder, counted now."""
        return sum(size for _, size, _ in self._files()) if self.max_bytes else 0

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise OptionError(f"{key!r} isn't a picture's key", hint="use picture_key")
        return self.folder / self.model_key / key[:2] / f"{key}.safetensors"

    def _identity(self, key: str) -> str:
        return f"{self.model_key}/{key}"

    def _store(self, path: Path, data: bytes) -> None:
        """Make room, write, rename: under the lock, so any other temporary file is a leftover."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # Once something is wrong, don't wait: a holder that was stopped would cost it every time.
        wait_s = LOCK_WAIT_S if self.problem is None else 0.0
        with _locked(self.folder / "lock", wait_s) as lock:
            # The first time, count: hands and kills may have changed what the last process left.
            total = _recorded(lock) if self._counted else None
            if total is None or total + len(data) > self.max_bytes:
                total = self._make_room(len(data))
                self._counted = True
            if total + len(data) > self.max_bytes:
                raise OSError(errno.ENOSPC, "the cache is full and can't be emptied")
            replaced = path.stat().st_size if path.exists() else 0
            # Before the write, so that a kill in between leaves the total too high, never too low.
            _record(lock, total + len(data) - min(replaced, total))
            temporary = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.tmp")
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise

    def _make_room(self, size: int) -> int:
        """Remove leftovers and, if `size` more bytes don't fit, the oldest; returns what stays."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        leftovers = [file for file in files if _LEFTOVER.fullmatch(file[2].name)]
        for _, taken, path in leftovers:
            total -= taken if _removed(path) else 0
        if total + size <= self.max_bytes:
            return total
        aim = max(int(KEPT_FRACTION * self.max_bytes) - size, 0)
        for _, taken, path in files:
            if total <= aim:
                break
            if _ENTRY.fullmatch(path.name) and _removed(path):
                total -= taken
                self.evicted += 1
        return total

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, bytes and path of each entry and leftover; nothing else in the folder."""
        shards = os.path.join(glob.escape(str(self.folder)), "*", "[0-9a-f][0-9a-f]", "*")
        for name in glob.iglob(shards):
            path = Path(name)
            if _ENTRY.fullmatch(path.name) or _LEFTOVER.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another process has just removed it
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield found.st_mtime, found.st_size, path


def _read(path: Path) -> bytes | None:
    """A file's bytes, its use recorded; empty if it's too large; None if it can't be read."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(MAX_ENTRY_BYTES) if found.st_size <= MAX_ENTRY_BYTES else b""
    except OSError:
        return None
    if abs(time.time() - found.st_mtime) > TOUCH_S:
        with contextlib.suppress(OSError):  # read-only, or evicted meanwhile: it was read all right
            os.utime(path)
    return data


@contextlib.contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[FileIO]:
    """The lock file, open and held; only open where the system or the disk has no locks.

    Raises:
        TimeoutError: someone else, perhaps stopped, has held it for `wait_s`.
    """
    with FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        held = _acquired(file, wait_s)
        try:
            yield file
        finally:
            if held:  # by hand, since a child forked meanwhile would keep it open, and so locked
                fcntl.flock(file, fcntl.LOCK_UN)


def _acquired(file: FileIO, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock") from None
            time.sleep(0.002)
        except OSError as error:
            _log.debug("no lock on %s: %s", file.name, error)
            return False
    return False


def _recorded(lock: FileIO) -> int | None:
    """The total that the lock file holds; None if it holds none."""
    lock.seek(0)
    text = lock.read(64)
    return int(text) if text and re.fullmatch(rb"\d{20}", text) else None


def _record(lock: FileIO, total: int) -> None:
    lock.seek(0)
    lock.write(b"%020d" % total)
    lock.truncate()


def _removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
