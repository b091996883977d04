"""Re-ranking by a relational model's file, on a small scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from map_helpers import FakeEncoder
from scene_helpers import Scene, candidate, descriptor, scene, scene_encoder, scene_gallery
from skylink.camera import ViewRenderer
from skylink.embedded.relational import LateInteraction
from skylink.embedded.relational_finish import export_relational
from skylink.errors import ModelError, OptionError
from skylink.gallery import Gallery
from skylink.reranker import Fusion, fusion_of, make_reranker, rerank
from skylink.rerankers.cells import GalleryCells, trunk_of
from skylink.rerankers.relational import RelationalReranker, model_file
from skylink.types import CameraPose, Candidate, Query, Telemetry

CHANNELS, SIDE, REACH = 6, 6, 1


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("hills"))


@pytest.fixture(scope="module")
def gallery(hills: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return scene_gallery([hills], tmp_path_factory.mktemp("gallery") / "g")


@pytest.fixture(scope="module")
def model() -> LateInteraction:
    torch.manual_seed(0)
    made = LateInteraction("mlp", channels=CHANNELS, side=SIDE, reach=REACH, hidden=8)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


@pytest.fixture(scope="module")
def folder(model: LateInteraction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    export_relational(
        model, path / "relational.onnx", trunk="fake-1", fusion=Fusion(base_weight=0.25)
    )
    return path


def pose_of(query: Query) -> CameraPose:
    t = query.telemetry
    assert t.relative_altitude_m
    assert t.horizontal_fov_deg
    return CameraPose(
        altitude_m=t.relative_altitude_m, heading_deg=t.heading_deg or 0.0, tilt_deg=0.0,
        hfov_deg=t.horizontal_fov_deg,
    )  # fmt: skip


def place(query: Query, col: float, row: float) -> Candidate:
    return candidate(east_m=col - 240, north_m=240 - row, pose=pose_of(query))


SPOTS = [(90, 90), (380, 380), (200, 300), (390, 120), (100, 380)]


def test_the_right_place_wins_and_scores_are_pytorchs(
    folder: Path, model: LateInteraction, gallery: Gallery, hills: Scene
) -> None:
    reranker = make_reranker(f"relational:{folder}", gallery, scene_encoder())
    assert reranker is not None
    query = hills.photo(col=200, row=300, heading_deg=30.0)
    candidates = [place(query, *spot) for spot in SPOTS]
    scores = reranker.score(query, candidates)
    assert scores.shape == (5,)
    assert scores.dtype == np.float32
    assert int(scores.argmax()) == 2
    found = GalleryCells(gallery, scene_encoder(), reach=REACH).compare(
        candidates, lambda: ViewRenderer(query.image), query.telemetry
    )
    assert len(found.views) == 1  # one pose, one view
    with torch.no_grad():
        given = (
            found.views, found.views_valid, found.windows, found.windows_valid, found.owner
        )  # fmt: skip
        expected = model(*map(torch.from_numpy, given)).numpy()
    assert scores == pytest.approx(expected, abs=1e-4)
    assert reranker.score(query, []).shape == (0,)
    assert fusion_of(reranker).base_weight == 0.25


def test_without_a_pose_headings_are_tried(folder: Path, gallery: Gallery, hills: Scene) -> None:
    reranker = make_reranker(f"relational:{folder}", gallery, scene_encoder())
    assert reranker is not None
    query = hills.photo(col=200, row=300, heading_deg=90.0)
    posed = [place(query, *spot) for spot in SPOTS]
    plain = [dataclasses.replace(each, pose=None) for each in posed]
    exact = reranker.score(query, posed)
    assert reranker.score(query, plain) == pytest.approx(exact, abs=1e-5)  # telemetry tells it
    unknown = dataclasses.replace(query, telemetry=query.telemetry.without("heading_deg"))
    scores = reranker.score(unknown, plain)
    assert int(scores.argmax()) == 2
    assert scores[2] > exact[2] - 0.1
    nothing = dataclasses.replace(query, telemetry=Telemetry())
    assert np.isfinite(reranker.score(nothing, plain)).all()


def test_windows_are_the_rasters_cells(gallery: Gallery) -> None:
    cells = GalleryCells(gallery, scene_encoder(), reach=REACH)
    level = gallery.levels[0]
    west, _, _, north = gallery.areas[0].bounds
    whole = gallery.features(area=0, level=0)
    assert whole is not None
    size = SIDE + 2 * REACH
    for row, column in ((4, 7), (-2, 3), (whole.valid.shape[0] - 3, 0)):
        at = candidate(
            east_m=west + (column + size / 2 + 0.3) * level.cell_m,
            north_m=north - (row + size / 2 - 0.3) * level.cell_m,
        )
        unit, valid = cells.window(at)
        padded = np.pad(whole.valid, size)[row + size :, column + size :][:size, :size]
        assert np.array_equal(valid, padded)
        raw = np.pad(whole.values, [(size, size), (size, size), (0, 0)])
        raw = raw[row + size :, column + size :][:size, :size].astype(np.float32)
        statistics = gallery.statistics(0)
        deviation = np.sqrt(np.diag(statistics.feature_covariance))
        expected = (raw - statistics.feature_mean) / deviation
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        assert unit[valid] == pytest.approx(expected[valid], abs=1e-3)
        assert (unit[~valid] == 0).all()


def test_it_re_ranks_what_the_descriptor_lists(
    folder: Path, gallery: Gallery, hills: Scene
) -> None:
    encoder = scene_encoder()
    query = hills.photo(col=200, row=300, heading_deg=30.0)
    candidates = descriptor(gallery, encoder).retrieve(query, 20).candidates
    reranker = make_reranker(f"relational:{folder}", gallery, encoder)
    assert reranker is not None
    found = rerank(reranker, query, candidates, Fusion())
    assert found.reranked, found.note
    best = found.candidates[0]
    assert np.hypot(best.x_m + 40, best.y_m + 60) < 24


def test_views_that_are_kept_are_not_rendered_again(gallery: Gallery, hills: Scene) -> None:
    cells = GalleryCells(gallery, scene_encoder(), reach=REACH)
    query = hills.photo(col=200, row=300)
    candidates = [place(query, *spot) for spot in SPOTS]
    rendered = []

    def photo() -> ViewRenderer:
        rendered.append(1)
        return ViewRenderer(query.image)

    first = cells.compare(candidates, photo, query.telemetry, key="photo")
    again = cells.compare(candidates, photo, query.telemetry, key="photo")
    assert len(rendered) == 1
    assert again.views == pytest.approx(first.views, abs=1e-3)
    cells.compare(candidates, photo, query.telemetry)
    assert len(rendered) == 2


def test_trained_encoders_share_their_trunk() -> None:
    assert trunk_of(scene_encoder()) == "fake-1"


def test_files_that_do_not_fit_say_so(
    folder: Path, model: LateInteraction, gallery: Gallery, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"has no relational\.onnx") as caught:
        make_reranker(f"relational:{tmp_path}", gallery, scene_encoder())
    assert "train-relational" in (caught.value.hint or "")
    with pytest.raises(OptionError, match="unknown re-ranker"):
        make_reranker("relational:", gallery, scene_encoder())
    with pytest.raises(ModelError, match="another encoder"):
        RelationalReranker(
            model_file(str(folder)), gallery, FakeEncoder(input_px=96, fingerprint="other")
        )
    (tmp_path / "relational.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="ONNX"):
        make_reranker(f"relational:{tmp_path}", gallery, scene_encoder())
    import onnx

    told = onnx.load(str(folder / "relational.onnx"))
    told.metadata_props[0].value = '{"channels": 0}'
    onnx.save(told, str(tmp_path / "relational.onnx"))
    with pytest.raises(ModelError, match="metadata"):
        make_reranker(f"relational:{tmp_path}", gallery, scene_encoder())


def test_until_one_is_shipped_it_says_how_to_train_one(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("skylink.rerankers.relational.resources.files", lambda _: tmp_path)
    with pytest.raises(ModelError, match="without a trained relational") as caught:
        make_reranker("relational", gallery, scene_encoder())
    assert "relational:FOLDER" in (caught.value.hint or "")
