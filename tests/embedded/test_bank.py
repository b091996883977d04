"""Banks: completed to the same bytes, bound to what they are of, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedded_helpers import source
from map_helpers import FakeEncoder
from skylink.embedded import bank as module
from skylink.embedded.bank import Bank, build_bank
from skylink.embedded.sources import turned, usable
from skylink.errors import ModelError, OptionError

ENCODER = FakeEncoder(input_px=96)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 2)


def test_an_interrupted_bank_is_completed_to_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    whole = build_bank(tmp_path / "whole", source(pictures, 5), ENCODER)
    reported: list[tuple[int, int]] = []

    class Killed(Exception):
        pass

    def kill(done: int, total: int, _: str) -> None:
        reported.append((done, total))
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        build_bank(tmp_path / "cut", source(pictures, 5), ENCODER, progress=kill)
    assert reported == [(2, 5), (4, 5)]
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("shard-*")}
    again = build_bank(tmp_path / "cut", source(pictures, 5), ENCODER)
    assert len(again) == len(whole) == 5
    for path in sorted((tmp_path / "whole").iterdir()):
        other = tmp_path / "cut" / path.name
        assert other.read_bytes() == path.read_bytes()
        assert before.get(path.name, other.stat().st_mtime_ns) == other.stat().st_mtime_ns


def test_rows_are_the_features_of_the_samples(pictures: Path, tmp_path: Path) -> None:
    made = source(pictures, 5)
    bank = build_bank(tmp_path, made, ENCODER)
    rows = bank.rows([4, 0, 3])
    assert rows.maps.shape == (3, 8, 8, 6)
    assert rows.views.shape == (3, 3, 6, 6, 6)
    for row, number in enumerate((4, 0, 3)):
        samples, group = made.samples(number)
        assert rows.group[row] == group
        features = ENCODER.feature_map(samples[0].map[None])[0]
        assert np.array_equal(rows.maps[row], features.astype(np.float16))
        told = np.array([(s.row, s.column) for s in samples]) / 16
        assert rows.places[row] == pytest.approx(told, abs=1e-6)
        assert all(map(usable, samples))
        decoy, _ = made.decoy(number, samples[0])
        assert np.abs(decoy.astype(int) - samples[0].view).mean() > 2
    assert bank.views == 2
    assert (bank.synthetic, len(bank)) == (5, 5)


@pytest.mark.parametrize(
    "other",
    [
        lambda pictures: (source(pictures, 5, seed=1), ENCODER),
        lambda pictures: (source(pictures, 6), ENCODER),
        lambda pictures: (source(pictures, 5), FakeEncoder(input_px=96, fingerprint="fake-2")),
    ],
)
def test_other_samples_or_weights_are_refused(pictures: Path, tmp_path: Path, other) -> None:  # type: ignore[no-untyped-def]
    build_bank(tmp_path, source(pictures, 5), ENCODER)
    with pytest.raises(OptionError, match="other pictures, choices or weights"):
        build_bank(tmp_path, *other(pictures))
    fresh = build_bank(tmp_path, *other(pictures), fresh=True)
    assert fresh.identity.encoder == other(pictures)[1].fingerprint
    assert len(list(tmp_path.glob("shard-*"))) == 3


def test_damage_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no bank\.json"):
        Bank(tmp_path)
    build_bank(tmp_path, source(pictures, 4), ENCODER)
    shard = tmp_path / "shard-00001.safetensors"
    data = shard.read_bytes()
    for spoilt in (data[:1000], b"", b"\xff" * 100):
        shard.write_bytes(spoilt)
        with pytest.raises(ModelError, match="shard-00001"):
            Bank(tmp_path)
    shard.unlink()
    with pytest.raises(ModelError, match="shard-00001"):
        Bank(tmp_path)
    for spoilt in (b"", b"[]", b'{"format": 2}'):
        (tmp_path / "bank.json").write_bytes(spoilt)
        with pytest.raises(ModelError, match=r"bank\.json can't be read"):
            Bank(tmp_path)


def test_a_turned_view_comes_back_by_the_opposite_turn() -> None:
    view = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)
    mask = np.ones((64, 64), bool)
    quarter = turned(view, mask, 90)
    assert np.array_equal(quarter[0], np.rot90(view))
    assert quarter[1].all()
    corner = turned(view, mask, 45)[1]
    assert not corner[0, 0]
    assert corner[32, 32]
