"""Visual features come back from the disk to the bit, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from feature_helpers import (  # noqa: E402
    PLENTY,
    entries,
    features_of,
    key_of,
    same,
)
from skylink.lvlm.cache import FeatureCache, ImageFeatures, picture_key  # noqa: E402


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_come_back_to_the_bit(tmp_path: Path, dtype: Any, levels: int) -> None:
    features = features_of(3, dtype=dtype, levels=levels)
    features.tokens[0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-7])
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    assert cache.get(key_of(3)) is None
    assert not cache.contains(key_of(3))
    cache.put(key_of(3), features)
    assert cache.contains(key_of(3))
    assert same(cache.get(key_of(3)), features)
    assert same(FeatureCache(tmp_path, "m", max_bytes=PLENTY).get(key_of(3)), features)
    assert (cache.hits, cache.misses, cache.corrupt, cache.failed_writes) == (1, 1, 0, 0)
    assert cache.problem is None


def test_slices_of_a_batch_and_empty_layouts(tmp_path: Path) -> None:
    batch = torch.randn(3, 8, 4, requires_grad=True)
    features = ImageFeatures((), (), batch[1, ::2], (batch[1, ::2], batch[2].T))
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(1), features)
    assert same(cache.get(key_of(1)), features)


def test_keys_tell_pictures_apart() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    keys = {picture_key(p) for p in (picture, picture.reshape(4, 2, 3), picture + 1, picture[:1])}
    assert len(keys) == 4
    assert picture_key(np.asfortranarray(picture)) == picture_key(picture.copy())
    assert len(picture_key(picture)) == 64


def test_models_do_not_mix(tmp_path: Path) -> None:
    a, b = (FeatureCache(tmp_path, name, max_bytes=PLENTY) for name in "ab")
    a.put(key_of(1), features_of(1))
    assert b.get(key_of(1)) is None
    b.put(key_of(1), features_of(2))
    assert same(a.get(key_of(1)), features_of(1))
    assert same(b.get(key_of(1)), features_of(2))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_is_a_miss(tmp_path: Path, data: st.DataObject) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    features = features_of(5, rows=2, dtype=torch.bfloat16, levels=1)
    cache.put(key_of(5), features)
    [path] = entries(tmp_path)
    content = bytearray(path.read_bytes())
    header_end = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(
        st.integers(0, len(content) - 1) | st.integers(0, header_end - 1), label="place"
    )
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(content)
    got = cache.get(key_of(5))
    if got is None:
        assert (cache.corrupt, cache.misses) == (1, 1)
        assert not path.exists()
    else:  # only blanks between parts of the header mean nothing
        assert place < header_end
        assert same(got, features)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1, exclude_max=True), tail=st.binary(max_size=40))
def test_a_cut_or_foreign_file_is_a_miss(tmp_path: Path, share: float, tail: bytes) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(5), features_of(5))
    [path] = entries(tmp_path)
    content = path.read_bytes()
    for damaged in (content[: int(share * len(content))], content + tail + b"\0", tail):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged)
        assert cache.get(key_of(5)) is None
        assert not path.exists()
    assert cache.corrupt == cache.misses == 3


def test_a_file_in_anothers_place_is_a_miss(tmp_path: Path) -> None:
    a, b = (FeatureCache(tmp_path, name, max_bytes=PLENTY) for name in "ab")
    a.put(key_of(1), features_of(1))
    [first] = entries(tmp_path)
    content = first.read_bytes()
    a.put(key_of(2), features_of(2))
    b.put(key_of(1), features_of(3))
    for other in entries(tmp_path):
        other.write_bytes(content)
    assert same(a.get(key_of(1)), features_of(1))
    assert a.get(key_of(2)) is None
    assert b.get(key_of(1)) is None
    assert (a.corrupt, b.corrupt) == (1, 1)


@pytest.mark.parametrize(
    "header",
    [
        {"tokens": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}},
        {"tokens": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
        {"tokens": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}},
        {"digest": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}},
        {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(5000)},
        [1],
    ],
    ids=["too long", "overflow", "empty", "no digest", "many", "a list"],
)
def test_absurd_headers_are_refused(tmp_path: Path, header: object) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(5), features_of(5))
    [path] = entries(tmp_path)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert cache.get(key_of(5)) is None
    assert cache.corrupt == 1


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "m", max_bytes=PLENTY)
    cache.put(key_of(5), features_of(5))
    [path] = entries(tmp_path)
    os.truncate(path, 1 << 40)  # sparse: it takes no room
    assert cache.get(key_of(5)) is None
    assert cache.corrupt == 1
    assert not path.exists()
