"""The dense head: nothing learnt changes nothing, cells by themselves, ONNX is PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from skylink.embedded.encoder import DENSE_HEAD, RelationalEncoder, trained_encoder
from skylink.embedded.finish import export_head
from skylink.embedded.head import DenseHead, Kind, relational
from skylink.encoder import EmbeddedEncoder, load_encoder
from skylink.errors import ModelError
from skylink.retrievers.dense import FITS_BETTER, UNSURE, _doubts


def filled(head: DenseHead) -> DenseHead:
    source = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=source)
    return head.eval()


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_an_untrained_head_leaves_cosines(kind: Kind) -> None:
    cells = torch.randn(2, 40, 112)
    made = DenseHead(kind)(cells)
    torch.testing.assert_close(
        cosine_similarity(made[0], made[1], dim=-1), cosine_similarity(cells[0], cells[1], dim=-1)
    )
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(2, 40))


@pytest.mark.parametrize(("kind", "size"), [("mlp", 112), ("mlp", 48), ("linear", 160)])
def test_onnx_is_pytorch_for_any_number_of_cells(tmp_path: Path, kind: Kind, size: int) -> None:
    head = filled(DenseHead(kind, hidden=24, size=size))
    assert export_head(head, tmp_path / DENSE_HEAD, (0.2, 0.05)) < 1e-4
    encoder = trained_encoder(tmp_path, name="mine")
    assert isinstance(encoder, RelationalEncoder)
    assert encoder.cell_channels == size
    assert (encoder.unsure, encoder.fits_better) == (0.2, 0.05)
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(100, 90, 112)).astype(np.float32)
    valid = rng.random((100, 90)) < 0.95  # more than one run of 8192
    with torch.no_grad():
        expected = relational(head, torch.from_numpy(cells), torch.from_numpy(valid).float())
    got = encoder.relational_cells(cells, valid)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    window = encoder.relational_cells(cells[20:30, 5:9], valid[20:30, 5:9])
    np.testing.assert_allclose(window, got[20:30, 5:9], atol=1e-6)
    assert not encoder.relational_cells(cells[:2], np.zeros((2, 90), bool)).any()


def test_search_doubts_headings_at_the_head_s_own_scores(tmp_path: Path) -> None:
    head = filled(DenseHead(hidden=8))
    assert _doubts(EmbeddedEncoder()) == (UNSURE, FITS_BETTER)
    for told, expected in ((None, (UNSURE, FITS_BETTER)), ((0.3, 0.07), (0.3, 0.07))):
        export_head(head, tmp_path / DENSE_HEAD, told)
        assert _doubts(trained_encoder(tmp_path, name="mine")) == expected
    export_head(head, tmp_path / DENSE_HEAD, (3.0, 0.0))
    with pytest.raises(ModelError, match=r"skylink\.unsure is not in 0\.\.1"):
        trained_encoder(tmp_path, name="mine")


def test_files_that_come_with_skylink_are_the_embedded_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_head(filled(DenseHead(hidden=8)), tmp_path / DENSE_HEAD)
    monkeypatch.setattr("skylink.embedded.encoder.shipped_folder", lambda: tmp_path)
    load_encoder.cache_clear()
    try:
        made = load_encoder("embedded")
    finally:
        load_encoder.cache_clear()
    assert made.name == "embedded"
    assert isinstance(made, RelationalEncoder)
    assert made.fingerprint != load_encoder("embedded-base").fingerprint


def test_a_head_alone_leaves_descriptors(tmp_path: Path) -> None:
    export_head(filled(DenseHead(hidden=8)), tmp_path / DENSE_HEAD)
    encoder, base = trained_encoder(tmp_path, name="mine"), EmbeddedEncoder()
    assert encoder.parts == base.parts
    assert encoder.fingerprint != base.fingerprint
    assert encoder.unsure is None  # type: ignore[attr-defined]
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    assert np.array_equal(encoder.encode(images), base.encode(images))
