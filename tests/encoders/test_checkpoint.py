from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bases]'")

from safetensors.torch import save_file  # noqa: E402

from encoder_helpers import saved  # noqa: E402
from skylink.encoders import checkpoint  # noqa: E402
from skylink.encoders.checkpoint import load_whole, read_tensors  # noqa: E402
from skylink.errors import ModelError  # noqa: E402

TWO = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, Any]) -> bool:
    return found.keys() == TWO.keys() and all(torch.equal(found[k], v) for k, v in TWO.items())


def test_every_way_that_trainers_save(tmp_path: Path) -> None:
    assert same(read_tensors(saved(TWO, tmp_path / "plain.pth")))
    assert same(read_tensors(saved(TWO, tmp_path / "more.pt", epoch=3, optimizer={"lr": 0.1})))
    parallel = {f"module.{key}": value for key, value in TWO.items()}
    assert same(read_tensors(saved(parallel, tmp_path / "parallel.pth")))
    save_file(TWO, tmp_path / "w.safetensors")
    assert same(read_tensors(tmp_path / "w.safetensors"))
    torch.save(TWO, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_tensors(tmp_path / "old.pth"))


def test_module_is_a_prefix_only_if_all_have_it(tmp_path: Path) -> None:
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_tensors(saved(mixed, tmp_path / "mixed.pth")).keys() == mixed.keys()


class Evil:
    """Runs code when it's unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran-by-unpickling"),))


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1), "evil": Evil()}, "evil.pth")
    with pytest.raises(ModelError, match="Python objects") as caught:
        read_tensors("evil.pth")
    assert "state_dict()" in (caught.value.hint or "")
    Path("raw.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError):
        read_tensors("raw.pth")
    torch.save(torch.nn.Linear(2, 2), "module.pth")
    with pytest.raises(ModelError, match="Python objects"):
        read_tensors("module.pth")
    assert not Path("ran-by-unpickling").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02.", b"x" * 100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path.name)):
        read_tensors(path)


def test_what_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no checkpoint at"):
        read_tensors(tmp_path / "none.pth")
    with pytest.raises(ModelError, match="by its name"):
        read_tensors(tmp_path / "weights.pkl")
    with pytest.raises(ModelError, match="no dictionary"):
        read_tensors(saved({}, tmp_path / "empty.pth"))
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no dictionary"):
        read_tensors(tmp_path / "list.pth")
    with pytest.raises(ModelError, match="'epoch' is not a tensor"):
        read_tensors(saved({"a": torch.ones(1), "epoch": 3}, tmp_path / "flat.pth"))
    small = saved(TWO, tmp_path / "small.pth")
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 64)
    with pytest.raises(ModelError, match="more than"):
        read_tensors(small)


def test_an_archive_that_unpacks_to_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 100_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="more than"):
        read_tensors(path)


def test_every_key_is_accounted_for() -> None:
    network = torch.nn.Sequential()
    network.add_module("a", torch.nn.Linear(3, 2))
    load_whole(network, dict(TWO), "here")
    assert torch.equal(network.a.weight, TWO["a.weight"])
    with pytest.raises(ModelError, match=r"here lacks 1 .* a\.bias"):
        load_whole(network, {"a.weight": TWO["a.weight"]}, "here")
    with pytest.raises(ModelError, match=r"unknown to us, 1 .* b"):
        load_whole(network, {**TWO, "b": torch.ones(1)}, "here")
    with pytest.raises(ModelError, match=r"a\.bias has shape \(3,\), not \(2,\)"):
        load_whole(network, {**TWO, "a.bias": torch.ones(3)}, "here")
    with pytest.raises(ModelError, match="finite"):
        load_whole(network, {**TWO, "a.bias": torch.tensor([0.0, torch.nan])}, "here")
