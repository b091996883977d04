"""`skylink train-encoder` from pictures to an encoder that builds and searches a map."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from embedded_helpers import recipe, write_pictures
from map_helpers import texture
from skylink import Gallery, densemap
from skylink.cli import app
from skylink.densemap import DenseMap, normaliser_for
from skylink.embedded.encoder import RelationalEncoder
from skylink.embedded.training import EncoderTraining
from skylink.encoder import EmbeddedEncoder, load_encoder
from skylink.errors import OptionError, QueriesError
from skylink.files import write_atomic
from skylink.retrievers.parts import MapParts
from skylink.town import write_inputs
from skylink.training.config_file import toml_text

FILES = {
    "README.md", "config.toml", "dense_head.onnx", "descriptor_tuned.onnx", "figures.json",
    "model.safetensors", "work",
}  # fmt: skip
pytestmark = pytest.mark.slow


def run(*args: str | Path) -> str:
    done = CliRunner().invoke(app, ["train-encoder", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder."""
    folder = tmp_path_factory.mktemp("made")
    path = write_atomic(folder / "r.toml", toml_text(recipe(pictures, folder / "out")))
    told = run(path)
    assert f"--encoder embedded:{folder / 'out'}" in told.replace("\n", "")
    return folder / "out"


def test_the_finished_folder(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == FILES
    about = json.loads((made / "figures.json").read_text())
    assert set(about["parts"]) == {"dense", "descriptor"}
    assert about["parts"]["dense"]["steps"] == 6
    assert 0 <= about["parts"]["dense"]["unsure"] <= 1
    card = (made / "README.md").read_text()
    for words in ("skylink train-encoder config.toml", "| hits |", "| recall@1 |", "## Limits"):
        assert words in card
    assert sum((made / n).stat().st_size for n in FILES if n.endswith(".onnx")) < 15e6


def test_again_nothing_is_done_twice_and_fresh_gives_the_same(
    made: Path, pictures: Path, tmp_path: Path
) -> None:
    before = (made / "dense_head.onnx").read_bytes()
    times = [p.stat().st_mtime_ns for p in sorted((made / "work").rglob("*.safetensors"))]
    run(made.parent / "r.toml")
    assert [p.stat().st_mtime_ns for p in sorted((made / "work").rglob("*.safetensors"))] == times
    assert (made / "dense_head.onnx").read_bytes() == before
    run(made / "config.toml", "--out", tmp_path / "other", "--fresh")
    assert (tmp_path / "other" / "dense_head.onnx").read_bytes() == before
    changed = recipe(pictures, made, views={"synthetic": 20})
    path = write_atomic(tmp_path / "changed.toml", toml_text(changed))
    done = CliRunner().invoke(app, ["train-encoder", str(path)])
    assert done.exit_code == 1
    assert "other pictures, choices" in " ".join(done.output.split())


def test_a_part_alone(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    write_atomic(path, toml_text(recipe(pictures, tmp_path / "out", parts=("dense",))))
    run(path)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == FILES - {"descriptor_tuned.onnx"}


def test_print_config_and_no_recipe() -> None:
    assert "[descriptor_optimizer]" in run("--print-config")
    done = CliRunner().invoke(app, ["train-encoder"])
    assert done.exit_code == 1
    assert "no configuration" in done.output


def test_pictures_that_are_not_there(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(QueriesError, match="no images"):
        EncoderTraining(recipe(tmp_path, tmp_path / "out"))
    with pytest.raises(QueriesError, match="can't be read"):
        EncoderTraining(recipe(pictures, tmp_path / "out", data={"photos": tmp_path / "none"}))
    with pytest.raises(OptionError, match="there is no folder 'lewis'"):
        EncoderTraining(recipe(pictures, tmp_path / "out", data={"held_out_photos": ["lewis"]}))


def test_real_photos_are_learnt_from_by_site(pictures: Path, tmp_path: Path) -> None:
    for site, seed in (("a", 50), ("b", 60)):
        folder = write_pictures(tmp_path / "photos" / site, 0)
        noise = np.random.default_rng(seed).integers(0, 256, (175, 225, 3), dtype=np.uint8)
        ground = cv2.resize(noise, (900, 700), interpolation=cv2.INTER_CUBIC) // 2
        ground += texture(700, 900, seed) // 2
        for n in range(2):
            cv2.imwrite(str(folder / f"p{n}.jpg"), ground[40 * n :, 60 * n :][:480, :640])
    chosen = recipe(
        pictures, tmp_path / "out",
        data={"photos": tmp_path / "photos", "held_out_photos": ["b"]},
        views={"synthetic": 4, "real": 4}, held_out={"synthetic": 3, "real": 2},
    )  # fmt: skip
    bank, held = EncoderTraining(chosen).build()
    assert held is not None
    assert (bank.synthetic, len(bank)) == (4, 8)
    assert (held.synthetic, len(held)) == (3, 5)
    assert len(set(bank.group[4:])) == 1
    assert bank.group[4] not in bank.group[:4]
    (listed,) = (tmp_path / "out" / "work").glob("overlaps-*.csv")
    assert str(tmp_path) not in listed.read_text()


def test_a_map_is_built_and_searched_with_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places of the map itself, in all channels, and in few as on large maps."""
    encoder = load_encoder(f"embedded:{made}")
    assert isinstance(encoder, RelationalEncoder)
    inputs = write_inputs(tmp_path, seed=3, size_m=420, cell_m=1, photos=1)
    Gallery.build([inputs.map], tmp_path / "gallery", encoder=encoder)
    gallery = Gallery.open(tmp_path / "gallery")
    assert gallery.info.encoder.name == f"embedded:{made}"
    normaliser = MapParts(gallery, encoder).normaliser(0)
    assert normaliser.channels == encoder.cell_channels
    raster = gallery.features(area=0, level=0)
    assert raster is not None
    part, valid = raster.values[6:20, 5:19], raster.valid[6:20, 5:19]
    kernel = normaliser.unit(part, valid)[None] / 196
    for full in (densemap.FULL_SPECTRA_BYTES, 0):
        monkeypatch.setattr(densemap, "FULL_SPECTRA_BYTES", full)
        dense_map = DenseMap(raster, normaliser_for(gallery.statistics(0), encoder), 14)
        assert dense_map.all_channels == (full > 0)
        scores = dense_map.everywhere(kernel)[0]
        assert np.unravel_index(int(scores.argmax()), scores.shape) == (13, 12)
        assert dense_map.around(kernel[0], 13, 12)[2, 2] == pytest.approx(1, abs=5e-3)


def test_specs_of_the_embedded_encoder() -> None:
    base = load_encoder("embedded-base")
    assert base.name == "efficientnet-lite0"
    assert base.fingerprint == load_encoder("efficientnet-lite0").fingerprint
    assert isinstance(load_encoder("embedded"), EmbeddedEncoder)
