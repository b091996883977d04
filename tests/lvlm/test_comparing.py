"""A language model that begins by holding a candidate's tokens against the photo's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skylink.lvlm.random_checkpoint import write_random_checkpoint
from skylink.prompt import NOTHING, template_of

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from skylink.lvlm.backbone import Backbone, Encoded  # noqa: E402
from skylink.lvlm.cache import ImageFeatures  # noqa: E402
from skylink.lvlm.comparing import begin_comparing, picture_distance  # noqa: E402
from skylink.lvlm.load import load_backbone  # noqa: E402
from skylink.lvlm.options import LvlmOptions  # noqa: E402
from skylink.lvlm.taught_tower import MARK, token_axes  # noqa: E402

WIDTH, CODE, TOKENS = 128, 64, 49
TEMPLATE = template_of("pointwise-short-v1", "pointwise")
AXES = token_axes(WIDTH, CODE)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("begun") / "checkpoint"

    def prepare(model: Any, processor: Any) -> None:
        begin_comparing(model, AXES, picture_distance(processor, TEMPLATE))

    write_random_checkpoint(folder, "smolvlm", shape="small", prepare=prepare)
    return load_backbone(str(folder), LvlmOptions(device="cpu", visual_tokens=TOKENS))


def picture(backbone: Backbone, codes: Any) -> ImageFeatures:
    """A picture whose tokens have these codes (T, D), as a taught tower's have."""
    seen = backbone.look(np.zeros((112, 112, 3), np.uint8))
    tokens = WIDTH**0.5 * (MARK**0.5 * AXES[0] + (1 - MARK) ** 0.5 * codes @ AXES[1:])
    return ImageFeatures(ids=seen.ids, grid=seen.grid, tokens=tokens, deepstack=())


def codes(seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(TOKENS, CODE, generator=draw), dim=-1)


def prompt(backbone: Backbone, photo: Any, candidate: Any) -> Encoded:
    asked = TEMPLATE.build(NOTHING, [NOTHING])
    return backbone.encode(asked, picture(backbone, photo), [picture(backbone, candidate)])


def test_the_distance_is_that_of_the_same_place_in_both_pictures(backbone: Backbone) -> None:
    ids = np.array(prompt(backbone, codes(0), codes(1)).ids)
    places = np.flatnonzero(ids == backbone.image_token_id)
    apart = places[TOKENS:] - places[:TOKENS]
    assert len(places) == 2 * TOKENS
    assert set(apart.tolist()) == {picture_distance(backbone.processor, TEMPLATE)}


def left(backbone: Backbone, photo: Any, candidate: Any) -> float:
    """Mean square of the candidate's codes after the first layer's attention, of 1 before."""
    asked = prompt(backbone, photo, candidate)
    layer = backbone.inner.text_model.layers[0]
    kept: list[Any] = []
    handle = layer.post_attention_layernorm.register_forward_pre_hook(
        lambda _, given: kept.append(given[0])
    )
    try:
        with torch.no_grad():
            ids = torch.tensor([asked.ids])
            backbone.forward(ids, backbone.positions(asked), asked.images)
    finally:
        handle.remove()
    places = np.flatnonzero(np.array(asked.ids) == backbone.image_token_id)[TOKENS:]
    length = (kept[0][0, places] @ AXES[1:].T).square().sum(-1)
    return float(length.mean()) / ((1 - MARK) * WIDTH)


def test_alike_pictures_leave_less_of_themselves_than_others(backbone: Backbone) -> None:
    photo = codes(0)
    same, shifted = left(backbone, photo, photo), left(backbone, photo, photo.roll(1, 0))
    others = [left(backbone, photo, codes(seed)) for seed in (1, 2, 3)]
    assert same < 0.6 * min(others)
    assert same < min(others)
    assert shifted < min(others)  # what is alike is found beside its place, too
    # of pictures that are all alike but for noise, too
    noisy = torch.nn.functional.normalize(photo + 0.1 * codes(8), dim=-1)
    assert left(backbone, photo, noisy) < 0.7 * min(others)
