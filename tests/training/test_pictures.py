"""Tests of `skylink.training.pictures`: lists are shown as re-rankers are shown candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skylink.errors import OptionError, PhotoError
from skylink.gallery import Gallery
from skylink.lvlm.cache import FeatureCache
from skylink.lvlm.load import load_backbone
from skylink.lvlm.options import LvlmOptions
from skylink.mined import MapPlace, MinedCandidate, MinedList
from skylink.minedfile import MinedFile
from skylink.photo import load_photo
from skylink.prompt import TEMPLATES
from skylink.queries import QueryRow
from skylink.showing import GalleryShow
from skylink.training.pictures import ListShow, Prompter
from skylink.types import Candidate


def on_town(gallery: Gallery, row: QueryRow) -> tuple[MinedList, list[Candidate]]:
    """A list of three tiles of the town, and them."""
    tiles, query = gallery.tiles(), row.load()
    known = query.telemetry.without("lon", "lat")
    candidates = [
        Candidate(
            lon=float(tiles.lon[i]), lat=float(tiles.lat[i]), score=1.0 - i, id=str(tiles.id[i]),
            area=int(tiles.area[i]), level=int(tiles.level[i]),
            x_m=float(tiles.x_m[i]), y_m=float(tiles.y_m[i]), base_score=1.0 - i,
        )
        for i in range(3)
    ]  # fmt: skip
    mined = MinedList(
        query=row.file,
        path=row.file,
        telemetry=known,
        candidates=tuple(
            MinedCandidate(
                id=c.id,
                place=MapPlace(
                    area=c.area, level=c.level, x_m=c.x_m, y_m=c.y_m, lon=c.lon, lat=c.lat
                ),
                base_score=c.score,
                rank=rank,
                is_ground_truth=rank == 1,
                label=float(rank == 1),
            )
            for rank, c in enumerate(candidates, 1)
        ),
    )
    return mined, candidates


def test_places_on_a_map_are_shown_by_the_gallery(
    town_folder: Path, town_gallery: Gallery, town_rows: list[QueryRow]
) -> None:
    mined, candidates = on_town(town_gallery, town_rows[0])
    folder = town_folder / "photos"
    show = GalleryShow(town_gallery, size_px=64)
    ours = ListShow(folder, show, size_px=64)(mined, [0, 2])
    query = replace(load_photo(folder / mined.path), telemetry=mined.telemetry)
    theirs = show(query, [candidates[0], candidates[2]])
    assert ours.ids == theirs.ids
    assert (ours.photo_facts, ours.candidate_facts) == (theirs.photo_facts, theirs.candidate_facts)
    assert np.array_equal(ours.photo, theirs.photo)
    for mine, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert np.array_equal(mine, other)
    with pytest.raises(OptionError, match="places on a map") as caught:
        ListShow(folder, None, size_px=64)(mined, [0])
    assert "data.gallery" in str(caught.value.hint)


def test_pictures_are_made_no_larger_than_the_model_takes(folder: Path) -> None:
    mined = MinedFile(folder / "train.jsonl")[0]
    showing = ListShow(folder, None, size_px=32)(mined, [1, 3])
    assert showing.name == mined.query
    assert showing.ids == [mined.candidates[1].id, mined.candidates[3].id]
    assert {p.shape for p in (showing.photo, *showing.candidates)} == {(32, 32, 3)}
    whole = ListShow(folder, None, size_px=4000)(mined, [0])
    assert whole.photo.shape == (64, 64, 3)


def test_a_picture_that_is_no_picture_is_named(folder: Path) -> None:
    mined = MinedFile(folder / "train.jsonl")[0]
    (folder / mined.path).write_bytes(b"nothing")
    with pytest.raises(PhotoError, match=Path(mined.path).name):
        ListShow(folder, None, size_px=64)(mined, [0])


@pytest.mark.parametrize("facts", [True, False])
def test_prompts_say_what_is_known_and_look_once(
    checkpoint: Path, folder: Path, town_folder: Path, town_gallery: Gallery,
    town_rows: list[QueryRow], facts: bool,
) -> None:  # fmt: skip
    backbone = load_backbone(str(checkpoint), LvlmOptions(visual_tokens=16, device="cpu"))
    mined, _ = on_town(town_gallery, town_rows[0])
    show = ListShow.over(town_folder / "photos", town_gallery, backbone, "auto")
    cache = FeatureCache(folder / "kept", "model", max_bytes=10**8)
    template = TEMPLATES["pointwise-v1"]
    prompter = Prompter(backbone, template, show, facts=facts, cache=cache)
    first = prompter.prompts(mined, [0, 1])
    assert backbone.tower_passes == 3
    again = Prompter(backbone, template, show, facts=facts, cache=cache).prompts(mined, [1])
    assert backbone.tower_passes == 3
    assert again[0].ids == first[1].ids
    assert all(
        np.array_equal(a.tokens, b.tokens)
        for a, b in zip(again[0].images, first[1].images, strict=True)
    )
    said = backbone.processor.tokenizer.decode([t for text in first[0].texts for t in text])
    assert ("m wide" in said) == facts
