"""The cache of visual features: what it keeps, what goes first, and where it is."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from feature_helpers import PLENTY, age, entries, entry_bytes, features_of, key_of, same  # noqa: E402
from skylink.errors import OptionError  # noqa: E402
from skylink.lvlm.cache import FeatureCache, default_folder  # noqa: E402


def test_the_last_put_counts_once(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=2 * entry_bytes(tmp_path))
    for _ in range(5):
        cache.put(key_of(0), features_of(1))
    cache.put(key_of(1), features_of(1))
    assert same(cache.get(key_of(0)), features_of(1))
    assert cache.contains(key_of(1))
    assert cache.evicted == 0


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\n", "x" * 129, "*\0"])
def test_names_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError):
        FeatureCache(tmp_path, name, max_bytes=1)
    with pytest.raises(OptionError):
        FeatureCache(tmp_path, "m", max_bytes=1).get(name)


def test_a_negative_bound(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="negative"):
        FeatureCache(tmp_path, "m", max_bytes=-1)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    one = entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    other = FeatureCache(folder, "other", max_bytes=10 * one)
    cache = FeatureCache(folder, "m", max_bytes=10 * one)
    other.put(key_of(0), features_of(0))
    for number in range(1, 10):
        cache.put(key_of(number), features_of(number))
    for path in entries(folder):
        age(path, 1000)
    age(folder / "other" / key_of(0)[:2] / f"{key_of(0)}.safetensors", 3000)
    age(folder / "m" / key_of(1)[:2] / f"{key_of(1)}.safetensors", 5000)
    age(folder / "m" / key_of(2)[:2] / f"{key_of(2)}.safetensors", 4000)
    assert cache.get(key_of(1)) is not None  # the oldest, but now it's in use
    cache.put(key_of(10), features_of(10))  # the bound is passed: down to 9 of 10
    assert [n for n in range(1, 11) if not cache.contains(key_of(n))] == [2]
    assert not other.contains(key_of(0))
    assert cache.evicted == 2
    assert cache.size_bytes() == 9 * one


def test_the_bound_holds_and_the_folder_is_rarely_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry_bytes(tmp_path / "scale")
    listed, really = [0], glob.iglob

    def counted(*args: Any) -> Any:
        listed[0] += 1
        return really(*args)

    monkeypatch.setattr(glob, "iglob", counted)
    folder = tmp_path / "cache"
    cache = FeatureCache(folder, "m", max_bytes=20 * one)
    for number in range(100):
        cache.put(key_of(number), features_of(number))
        assert sum(path.stat().st_size for path in entries(folder)) <= 20 * one
    assert listed[0] <= 1 + (100 - 20) / 2 + 1  # the first, then each tenth of the bound
    assert len(entries(folder)) >= 18
    assert cache.evicted == 100 - len(entries(folder))
    assert same(cache.get(key_of(99)), features_of(99))


def test_what_another_process_keeps_counts(tmp_path: Path) -> None:
    one = entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    a, b = (FeatureCache(folder, name, max_bytes=4 * one) for name in "ab")
    for number in range(12):
        (a, b)[number % 2].put(key_of(number), features_of(number))
        assert a.size_bytes() == b.size_bytes() <= 4 * one
    assert a.evicted + b.evicted == 12 - len(entries(folder))


@pytest.mark.parametrize("content", [b"", b"junk", b"-0000000000000000001", b"9" * 20, b"9" * 99])
def test_a_damaged_total_is_counted_anew(tmp_path: Path, content: bytes) -> None:
    one = entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    cache = FeatureCache(folder, "m", max_bytes=3 * one)
    for number in range(10):
        cache.put(key_of(number), features_of(number))
        assert cache.contains(key_of(number))
        assert cache.size_bytes() <= 3 * one
        (folder / "lock").write_bytes(content)
    assert cache.problem is None


def test_a_smaller_bound_than_before(tmp_path: Path) -> None:
    one = entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    large = FeatureCache(folder, "m", max_bytes=PLENTY)
    for number in range(10):
        large.put(key_of(number), features_of(number))
    small = FeatureCache(folder, "m", max_bytes=3 * one)
    assert same(small.get(key_of(4)), features_of(4))
    small.put(key_of(10), features_of(10))
    assert small.size_bytes() <= 3 * one
    assert small.contains(key_of(10))


def test_nothing_else_in_the_folder_is_touched(tmp_path: Path) -> None:
    one = entry_bytes(tmp_path / "scale")
    folder = tmp_path / "cache"
    digits = "ab" + "0" * 62
    mine = [
        folder / "notes.tmp",
        folder / f"{digits}.safetensors",
        folder / "m" / "ab" / "model.safetensors",
        folder / "m" / "ab" / f"{digits}.bin",
        folder / "m" / "abc" / f"{digits}.safetensors",
        folder / "m" / "ab" / "deep" / f"{digits}.safetensors",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10 * one)
        age(path, 10**7)
    cache = FeatureCache(folder, "m", max_bytes=2 * one)
    for number in range(8):
        cache.put(key_of(number), features_of(number))
    assert all(path.stat().st_size == 10 * one for path in mine)
    assert 0 < cache.size_bytes() <= 2 * one


def test_no_bound_no_disk(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = FeatureCache(folder, "m", max_bytes=0)
    cache.put(key_of(1), features_of(1))
    assert cache.get(key_of(1)) is None
    assert not cache.contains(key_of(1))
    assert cache.size_bytes() == 0
    assert (cache.misses, cache.failed_writes, cache.problem) == (1, 0, None)
    assert not folder.exists()


def test_an_entry_larger_than_the_bound(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=entry_bytes(tmp_path))
    cache.put(key_of(1), features_of(1, rows=60))
    assert not cache.contains(key_of(1))
    assert cache.contains(key_of(0))  # and what there was stays
    assert (cache.problem, cache.failed_writes, cache.evicted) == (None, 0, 0)
    cache.put(key_of(2), features_of(2))  # just as large as the bound
    assert cache.contains(key_of(2))
    assert not cache.contains(key_of(0))


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SKYLINK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    usual = tmp_path / ".cache" / "skylink" / "features"
    assert default_folder() == usual
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == usual
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/caches")
    assert default_folder() == Path("/var/caches/skylink/features")
    monkeypatch.setenv("SKYLINK_CACHE", "~/mine")
    assert default_folder() == tmp_path / "mine"
    monkeypatch.setenv("SKYLINK_CACHE", "~nobody-of-this-name/x")
    with pytest.raises(OptionError) as caught:
        default_folder()
    assert "SKYLINK_CACHE" in str(caught.value.hint)
