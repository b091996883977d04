"""The cache of visual features under full disks, lost locks, rivals and kill -9."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import random
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from feature_helpers import (  # noqa: E402
    PLENTY,
    age,
    entries,
    entry_bytes,
    fail,
    features_of,
    key_of,
    leftovers,
    same,
)
from skylink.lvlm import cache as cache_module  # noqa: E402
from skylink.lvlm.cache import FeatureCache  # noqa: E402

# Disks


@pytest.mark.parametrize("call", ["mkdir", "open", "replace"])
@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only")]
)
def test_a_failing_disk_does_not_stop_scoring(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
    hint: str,
) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features_of(1))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, call, fail(number))
        for other in (2, 3, 4):
            cache.put(key_of(other), features_of(other))
    assert cache.failed_writes == 3
    assert cache.problem is not None
    assert str(tmp_path) in cache.problem
    assert os.strerror(number) in cache.problem
    assert hint in cache.problem
    assert len(caplog.records) == 1  # warned of once
    assert same(cache.get(key_of(1)), features_of(1))
    assert not leftovers(tmp_path)
    cache.put(key_of(2), features_of(2))  # the disk is well again
    assert same(cache.get(key_of(2)), features_of(2))


def test_a_disk_that_fills_in_the_middle_of_a_file(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features_of(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        cache.put(key_of(2), features_of(2, rows=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.failed_writes == 1
    assert os.strerror(errno.EFBIG) in str(cache.problem)
    assert cache.get(key_of(2)) is None
    assert cache.corrupt == 0
    assert not leftovers(tmp_path)
    assert same(cache.get(key_of(1)), features_of(1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    FeatureCache(folder, "m", max_bytes=PLENTY).put(key_of(1), features_of(1))
    [path] = entries(folder)
    age(path, 1000)
    folders = [path.parent, path.parent.parent, folder]
    for each in (path, folder / "lock", *folders):
        each.chmod(0o500 if each in folders else 0o400)
    try:
        cache = FeatureCache(folder, "m", max_bytes=PLENTY)
        assert same(cache.get(key_of(1)), features_of(1))
        cache.put(key_of(2), features_of(2))
    finally:
        for each in folders:
            each.chmod(0o700)
    assert cache.failed_writes == 1
    assert "may write to" in str(cache.problem)


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.write_text("mine")
    cache = FeatureCache(folder, "m", max_bytes=PLENTY)
    assert cache.get(key_of(1)) is None
    cache.put(key_of(1), features_of(1))
    assert cache.failed_writes == 1
    assert str(folder) in str(cache.problem)
    assert not cache.contains(key_of(1))
    assert cache.size_bytes() == 0
    assert folder.read_text() == "mine"


def test_entries_that_cannot_be_removed_keep_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=entry_bytes(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail(errno.EACCES))
        cache.put(key_of(1), features_of(1))
    assert "can't be emptied" in str(cache.problem)
    assert not cache.contains(key_of(1))
    assert cache.contains(key_of(0))
    assert cache.evicted == 0


# Locks


def test_a_lock_that_is_never_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "LOCK_WAIT_S", 0.05)
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features_of(1))
    with (tmp_path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        cache.put(key_of(2), features_of(2))
        assert same(cache.get(key_of(1)), features_of(1))  # reading needs no lock
        assert cache.failed_writes == 1
        assert "lock" in str(cache.problem)
        monkeypatch.setattr(cache_module, "LOCK_WAIT_S", 1000.0)
        cache.put(key_of(2), features_of(2))  # nor does it wait a second time
        assert cache.failed_writes == 2
    cache.put(key_of(2), features_of(2))
    assert cache.contains(key_of(2))


@pytest.mark.parametrize("kind", ["system", "disk"])
def test_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    one = entry_bytes(tmp_path / "scale")
    if kind == "system":
        monkeypatch.setattr(cache_module, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", fail(errno.ENOLCK))
    cache = FeatureCache(tmp_path / "cache", "m", max_bytes=3 * one)
    for number in range(9):
        cache.put(key_of(number), features_of(number))
        assert same(cache.get(key_of(number)), features_of(number))
    assert cache.size_bytes() <= 3 * one
    assert cache.problem is None


def test_leftovers_of_a_killed_writer_go(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features_of(1))
    [path] = entries(tmp_path)
    left = path.with_name(f"{key_of(2)}.0123abcd.tmp")
    left.write_bytes(b"half of it")
    assert cache.size_bytes() == path.stat().st_size + 10
    FeatureCache(tmp_path, "m", max_bytes=PLENTY).put(key_of(3), features_of(3))
    assert not left.exists()
    assert cache.contains(key_of(1))


# Many at once


def hammer(folder: Path, max_bytes: int, seed: int, turns: int) -> FeatureCache:
    """Random gets and puts; every get is right or a miss."""
    chance = random.Random(seed)
    cache = FeatureCache(folder, f"m{seed % 2}", max_bytes=max_bytes)
    for _ in range(turns):
        number = chance.randrange(12)
        if chance.random() < 0.6:
            found = cache.get(key_of(number))
            assert found is None or same(found, features_of(number))
        else:
            cache.put(key_of(number), features_of(number))
    assert cache.corrupt == cache.failed_writes == 0, cache.problem
    return cache


def test_threads_share_a_cache(tmp_path: Path) -> None:
    bound = 5 * entry_bytes(tmp_path / "scale")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda seed: hammer(tmp_path / "c", bound, seed, 150), range(4)))
    assert sum(cache.hits for cache in done) > 20
    assert sum(cache.evicted for cache in done) > 20
    assert 0 < done[0].size_bytes() <= bound
    assert not leftovers(tmp_path)


def write_forever(folder: Path, max_bytes: int) -> None:
    cache = FeatureCache(folder, "m", max_bytes=max_bytes)
    features = [features_of(number, rows=2000) for number in range(12)]
    for number in range(10**9):
        cache.put(key_of(number % 12), features[number % 12])


def die_writing(folder: Path) -> None:
    """Kill this process when a file is written but hasn't got its name."""
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    FeatureCache(folder, "m", max_bytes=PLENTY).put(key_of(2), features_of(2))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Fresh processes (not copies of this one) that import torch once between them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "safetensors.torch", __name__])
    return context


@pytest.mark.slow
def test_processes_share_a_cache(tmp_path: Path, processes: Any) -> None:
    bound = 5 * entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    workers = [processes.Process(target=hammer, args=(folder, bound, i, 250)) for i in range(4)]
    for worker in workers:
        worker.start()
    looks, most = 0, 0
    watcher = FeatureCache(folder, "m0", max_bytes=bound)
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.01)
        if (folder / "lock").exists():
            with (folder / "lock").open("rb") as lock:  # nobody writes while we count
                fcntl.flock(lock, fcntl.LOCK_EX)
                most = max(most, watcher.size_bytes())
            looks += 1
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert looks > 0
    assert 0 < most <= bound
    assert not leftovers(tmp_path)


@pytest.mark.slow
def test_killed_writers_leave_a_usable_cache(tmp_path: Path, processes: Any) -> None:
    rows = 2000
    bound = 5 * entry_bytes(tmp_path / "scale", rows=rows)
    folder = tmp_path / "cache"
    chance = random.Random(1)
    for _ in range(8):
        before = time.time_ns()
        writers = [processes.Process(target=write_forever, args=(folder, bound)) for _ in range(2)]
        for writer in writers:
            writer.start()
        lock, deadline = folder / "lock", time.monotonic() + 60
        while time.monotonic() < deadline:  # until they write
            if lock.exists() and lock.stat().st_mtime_ns > before and entries(folder):
                break
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [-signal.SIGKILL] * 2
        cache = FeatureCache(folder, "m", max_bytes=bound)
        for number in range(12):
            found = cache.get(key_of(number))
            assert found is None or same(found, features_of(number, rows=rows))
        assert cache.hits > 0
        assert cache.corrupt == 0
        assert cache.size_bytes() <= bound  # leftovers included
    cache.put(key_of(100), features_of(100, rows=rows))
    assert same(cache.get(key_of(100)), features_of(100, rows=rows))
    assert not leftovers(folder)
    assert cache.problem is None


@pytest.mark.slow
def test_a_writer_killed_before_the_rename(tmp_path: Path, processes: Any) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features_of(1))
    for _ in range(2):  # the second finds what the first left
        writer = processes.Process(target=die_writing, args=(tmp_path,))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert len(leftovers(tmp_path)) == 1
    assert cache.get(key_of(2)) is None
    cache.put(key_of(2), features_of(2))  # the lock died with its holder
    assert same(cache.get(key_of(2)), features_of(2))
    assert same(cache.get(key_of(1)), features_of(1))
    FeatureCache(tmp_path, "m", max_bytes=PLENTY).put(key_of(3), features_of(3))
    assert not leftovers(tmp_path)
