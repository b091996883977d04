"""Scores: equal to the plain way's in every mode, whoever else is scored, and finite or refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lvlm_helpers import FAMILIES, picked, picture, showing_of  # noqa: E402
from skylink.errors import ModelError, RerankError  # noqa: E402
from skylink.lvlm import scorer as scorer_module  # noqa: E402
from skylink.lvlm.backbone import Backbone  # noqa: E402
from skylink.lvlm.cache import FeatureCache  # noqa: E402
from skylink.lvlm.head import ValueHead  # noqa: E402
from skylink.lvlm.options import LvlmOptions  # noqa: E402
from skylink.lvlm.scorer import Scorer  # noqa: E402
from skylink.prompt import LETTERS, TEMPLATES, Facts, Picture  # noqa: E402

Backbones = Callable[..., Backbone]
POINTWISE = [name for name, template in TEMPLATES.items() if template.mode == "pointwise"]


def make(model: Backbone, template: str = "pointwise-v1", **options: Any) -> Scorer:
    return Scorer(model, TEMPLATES[template], LvlmOptions(**options))


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def least_gap(scores: NDArray[Any]) -> float:
    return float(np.diff(np.sort(scores)).min())


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairwise scores are then how far the first leads in each pair: ranks would hide errors."""

    def all_pairs(k: int, compare: Any, *, max_comparisons: int) -> NDArray[np.float32]:
        return np.asarray(compare(list(combinations(range(k), 2))), np.float32)

    monkeypatch.setattr(scorer_module, "tournament", all_pairs)


# ---- equal to the plain way

CASES = [
    *((family, False) for family in FAMILIES),
    *(pytest.param(family, True, marks=pytest.mark.slow) for family in ("smolvlm", "idefics3")),
]


@pytest.mark.parametrize("template", list(TEMPLATES))
@pytest.mark.parametrize(("family", "split"), CASES)
def test_fast_scores_are_the_plain_ones(
    backbone: Backbones, leads: None, family: str, split: bool, template: str
) -> None:
    model = backbone(family, split=split)
    showing = showing_of([(64, 64), (64, 160), (200, 300), (31, 77)], differing_facts=True)
    plain = make(model, template, plain=True).score(showing)
    together, alone = make(model, template), make(model, template, memory_gb=1e-9)
    assert apart(together.score(showing), plain) < 1e-5
    assert apart(alone.score(showing), plain) < 1e-5
    assert max(together.engine.chunks) > 1
    assert set(alone.engine.chunks) == {1}
    assert np.ptp(plain) > 0.05


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
def test_large_pictures_are_cut_into_tiles(backbone: Backbones, family: str) -> None:
    whole, split = backbone(family), backbone(family, split=True)
    one = whole.look(picture(128, 128, 0)).tokens
    assert len(one) == 16
    assert len(split.look(picture(128, 128, 0)).tokens) == 5 * len(one)
    assert len(split.look(picture(64, 256, 0)).tokens) < 5 * len(one)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_pictures_keep_their_shape_within_the_budget(backbone: Backbones, family: str) -> None:
    model = backbone(family)
    counts = {
        size: len(model.look(picture(*size, 0)).tokens)
        for size in ((64, 64), (400, 400), (1000, 1000), (300, 100), (100, 300))
    }
    assert max(counts.values()) == 16
    assert counts[400, 400] == counts[1000, 1000] == 16
    assert model.look(picture(300, 100, 0)).grid[1] > model.look(picture(100, 300, 0)).grid[1]


# ---- whoever else is scored


@pytest.mark.parametrize("family", FAMILIES)
def test_alone_or_together_in_any_order(backbone: Backbones, family: str) -> None:
    scorer, showing = make(backbone(family)), showing_of(differing_facts=True)
    together = scorer.score(showing)
    assert least_gap(together) > 1e-4
    alone = np.concatenate([scorer.score(picked(showing, [i])) for i in range(len(together))])
    assert apart(alone, together) < 1e-5
    order = [3, 0, 6, 1, 5, 2, 4]
    assert apart(scorer.score(picked(showing, order)), together[order]) < 1e-5


@pytest.mark.parametrize("template", POINTWISE)
def test_equal_candidates_score_equally(backbone: Backbones, template: str) -> None:
    scorer = make(backbone("qwen3_vl"), template)
    scores = scorer.score(picked(showing_of(), [2, 4, 2, 0, 2]))
    assert scores[0] == pytest.approx(scores[2], abs=1e-6)
    assert scores[0] == pytest.approx(scores[4], abs=1e-6)
    assert abs(scores[0] - scores[1]) > 1e-3


def test_the_photo_and_what_is_known_matter(backbone: Backbones) -> None:
    model, showing = backbone("qwen2_5_vl"), showing_of()
    scores = make(model).score(showing)
    other = make(model).score(replace(showing, photo=picture(80, 100, 99)))
    assert apart(scores, other) > 1e-2
    silent = make(model, facts=False)
    assert apart(scores, silent.score(showing)) > 1e-3
    nothing = [Facts()] * len(scores)
    told = replace(showing, photo_facts=Facts(), candidate_facts=nothing)
    assert apart(silent.score(showing), make(model).score(told)) < 1e-5


@pytest.mark.parametrize("template", list(TEMPLATES))
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_any_number_of_candidates(backbone: Backbones, template: str, count: int) -> None:
    scorer = make(backbone("smolvlm"), template, max_comparisons=8)
    scores = scorer.score(showing_of([(64, 64)] * count))
    assert scores.shape == (count,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    if count == 0:
        assert scorer.engine.chunks == []
    if count == 20:
        assert np.ptp(scores) > 0.05


# ---- features, looked at once


@pytest.mark.parametrize("family", FAMILIES)
def test_a_warm_cache_needs_no_pass_over_tiles(
    backbone: Backbones, family: str, tmp_path: Path
) -> None:
    model, showing = backbone(family), showing_of()
    count = len(showing.candidates)
    key = model.features_key()

    def scorer() -> Scorer:
        cache = FeatureCache(tmp_path, key, max_bytes=10**9)
        return Scorer(model, TEMPLATES["pointwise-v1"], cache=cache)

    bare = make(model).score(showing)
    before = model.tower_passes
    cold = scorer().score(showing)
    assert model.tower_passes - before == count + 1
    warm = scorer()
    before = model.tower_passes
    scores = warm.score(showing)
    assert model.tower_passes - before == 1  # the photo, which is never kept
    assert warm.cache is not None
    assert (warm.cache.hits, warm.cache.misses) == (count, 0)
    assert apart(scores, cold) < 1e-6
    assert apart(scores, bare) < 1e-6


def test_cached_deepstack_features_are_used(backbone: Backbones, tmp_path: Path) -> None:
    """Qwen3-VL without what it feeds to its later layers gives other scores."""
    model, showing = backbone("qwen3_vl"), showing_of()
    features = model.look(showing.candidates[0])
    assert len(features.deepstack) > 0
    look = model.look

    def without(rgb: Any) -> Any:
        whole = look(rgb)
        return replace(whole, deepstack=tuple(torch.zeros_like(x) for x in whole.deepstack))

    scores = make(model).score(showing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "look", without)
        assert apart(make(model).score(showing), scores) > 1e-2


def test_listwise_and_pairwise_look_at_each_picture_once(backbone: Backbones) -> None:
    model, showing = backbone("idefics3"), picked(showing_of(), [0, 1, 2])
    for scorer in (make(model, "listwise-v1", orders=4), make(model, "pairwise-v1")):
        before = model.tower_passes
        scorer.score(showing)
        assert model.tower_passes - before == 4
        assert sum(scorer.engine.chunks) >= 4


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm", "llava"])
def test_the_key_tells_models_and_settings_apart(
    checkpoint: Callable[[str], Path], backbone: Backbones, family: str
) -> None:
    from skylink.lvlm.load import load_backbone

    folder = str(checkpoint(family))
    small = LvlmOptions(visual_tokens=16)
    model = load_backbone(folder, small)
    keys = [backbone(family).features_key(), load_backbone(folder, small).features_key()]
    assert keys[0] == keys[1] == model.features_key()
    keys = keys[:1]
    if family != "llava":  # whose pictures have one size
        keys.append(load_backbone(folder, LvlmOptions(visual_tokens=80)).features_key())
    keys.append(load_backbone(folder, replace(small, dtype="bfloat16")).features_key())
    weights = dict(model.inner.named_parameters())
    tower = next(n for n in weights if n.startswith(("visual", "vision")))
    text = next(n for n in weights if n.startswith(("language_model", "text_model")))
    with torch.no_grad():
        weights[text].view(-1)[-1] += 1.0  # not looked at with
        assert model.features_key() == keys[0]
        weights[tower].view(-1)[-1] += 1e-3
    keys.append(model.features_key())
    model.processor.image_processor.image_mean = [0.4, 0.5, 0.5]
    keys.append(model.features_key())
    assert len(set(keys)) == len(keys)


# ---- listwise


@pytest.fixture
def biased(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scorer, NDArray[Any], float], list[Any]]:
    """Replace the model's answers: candidates of known worth, and a liking for the first place.

    Returns the orders that were asked, as they come.
    """

    def bend(scorer: Scorer, worth: NDArray[Any], liking: float) -> list[Any]:
        asked: list[Any] = []

        def answers(showing: Any, looked: Any, orders: Sequence[Any]) -> NDArray[Any]:
            asked.extend(orders)
            rows = np.array([worth[list(order)] for order in orders], float)
            rows[:, 0] += liking
            return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

        monkeypatch.setattr(scorer, "_log_probabilities", answers)
        return asked

    return bend


def test_listwise_orders_are_seeded_and_the_first_is_the_bases(
    backbone: Backbones, biased: Any
) -> None:
    def orders(**options: Any) -> list[Any]:
        scorer = make(backbone("smolvlm"), "listwise-v1", **options)
        asked: list[Any] = biased(scorer, np.zeros(7), 0.0)
        scorer.score(showing_of())
        return asked

    some = orders(orders=5)
    assert some[0] == tuple(range(7))
    assert len(set(some)) == 5
    assert all(sorted(order) == list(range(7)) for order in some)
    assert orders(orders=5) == some
    assert orders(orders=3) == some[:3]
    assert orders(orders=5, seed=1)[1:] != some[1:]


@pytest.mark.parametrize("seed", range(6))
def test_few_candidates_are_shown_in_all_their_orders(
    backbone: Backbones, biased: Any, seed: int
) -> None:
    """Two orders of two candidates are each other's reverse, not twice the same."""
    scorer = make(backbone("smolvlm"), "listwise-v1", orders=2, seed=seed)
    asked = biased(scorer, np.array([0.0, 1.0]), 3.0)
    scores = scorer.score(picked(showing_of(), [0, 1]))
    assert asked == [(0, 1), (1, 0)]
    assert scores[1] - scores[0] == pytest.approx(1.0, abs=1e-5)
    three = make(backbone("smolvlm"), "listwise-v1", orders=50, seed=seed)
    asked = biased(three, np.zeros(3), 0.0)
    three.score(picked(showing_of(), [0, 1, 2]))
    assert sorted(asked) == sorted(permutations(range(3)))


def test_averaging_takes_a_liking_for_the_first_place_away(
    backbone: Backbones, biased: Any
) -> None:
    worth = np.array([0.0, 1.0, 2.0, 3.0])
    scores = {}
    for orders in (1, 24):
        scorer = make(backbone("smolvlm"), "listwise-v1", orders=orders)
        biased(scorer, worth, 6.0)
        scores[orders] = scorer.score(picked(showing_of(), range(4)))
    assert scores[1].argmax() == 0
    gaps = np.diff(scores[24])  # all 24 orders: the liking is the same for everyone
    np.testing.assert_allclose(gaps, 1.0, atol=1e-5)


def test_listwise_scores_are_mean_log_probabilities(backbone: Backbones) -> None:
    scorer, showing = make(backbone("qwen2_vl"), "listwise-v1", orders=1), showing_of()
    assert np.exp(scorer.score(showing).astype(float)).sum() == pytest.approx(1.0, abs=1e-5)


def test_listwise_takes_as_many_as_there_are_letters(backbone: Backbones) -> None:
    scorer = make(backbone("smolvlm"), "listwise-v1")
    many = showing_of([(64, 64)] * (len(LETTERS) + 1))
    before = scorer.backbone.tower_passes
    for ask in (scorer.score, scorer.prompt_of):
        with pytest.raises(RerankError, match="21 candidates are more than the 20") as caught:
            ask(many)
        assert caught.value.hint
    assert scorer.backbone.tower_passes == before


# ---- pairwise


def test_pairwise_asks_both_orders_and_ranks(backbone: Backbones, biased: Any) -> None:
    scorer = make(backbone("smolvlm"), "pairwise-v1", max_comparisons=100)
    worth = np.array([3.0, 0.0, 5.0, 1.0, 4.0, 2.0])
    asked = biased(scorer, worth, 10.0)
    scores = scorer.score(picked(showing_of(), range(6)))
    np.testing.assert_array_equal(scores, worth + 1)
    assert all(order[::-1] in asked for order in asked)


def test_pairwise_comparisons_are_bounded(backbone: Backbones) -> None:
    scorer = make(backbone("smolvlm"), "pairwise-v1", max_comparisons=3)
    scores = scorer.score(showing_of())
    assert sum(scorer.engine.chunks) == 2 * 3
    assert sorted(scores) == list(range(1, 8))


# ---- what can't be scored


@contextlib.contextmanager
def one_bad(model: Backbone, bad: NDArray[Any], value: float) -> Iterator[None]:
    """Features of one picture are not finite."""
    look = model.look

    def looking(rgb: NDArray[Any]) -> Any:
        seen = look(rgb)
        wrong = rgb.shape == bad.shape and (rgb == bad).all()
        return replace(seen, tokens=seen.tokens * value) if wrong else seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "look", looking)
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_the_candidate_that_gives_nan_is_named(backbone: Backbones, family: str) -> None:
    model, showing = backbone(family), showing_of()
    with one_bad(model, showing.candidates[3], float("nan")):
        with pytest.raises(RerankError, match="tile-3 as nan"):
            make(model).score(showing)
        # and nobody else is touched by it
        fine = picked(showing, [0, 1, 2, 4, 5, 6])
        scores = make(model).score(fine)
    assert apart(scores, make(model).score(fine)) == 0


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("template", list(TEMPLATES))
def test_nan_weights_are_an_error_in_every_mode(
    checkpoint: Callable[[str], Path], template: str, plain: bool
) -> None:
    from skylink.lvlm.load import load_backbone

    model = load_backbone(str(checkpoint("qwen2_vl")), LvlmOptions(visual_tokens=16))
    scorer = make(model, template, plain=plain)
    with torch.no_grad():
        model.inner.language_model.norm.weight[0] = float("nan")
    with pytest.raises(RerankError, match="tile-0"):
        scorer.score(showing_of())


def test_an_infinite_head_names_the_candidate(backbone: Backbones) -> None:
    model = backbone("qwen2_vl")
    width = model.model.config.get_text_config().hidden_size
    head = ValueHead(torch.full((width,), float("inf")))
    scorer = Scorer(model, TEMPLATES["pointwise-v1"], head=head)
    with pytest.raises(RerankError, match="scored candidate tile-0 as"):
        scorer.score(showing_of())


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((40, 40, 3), np.float32),
    ],
    ids=["grey", "four channels", "empty", "float"],
)
def test_what_is_no_picture_is_refused(backbone: Backbones, bad: Any, plain: bool) -> None:
    showing = showing_of()
    tiles = [*showing.candidates[:6], bad]
    for family in FAMILIES:
        with pytest.raises(RerankError, match=r"takes pictures \(H, W, 3\) uint8"):
            make(backbone(family), plain=plain).score(replace(showing, candidates=tiles))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (500, 1), (7, 1500)])
def test_odd_pictures_are_scored_alike_or_refused(
    backbone: Backbones, family: str, size: tuple[int, int]
) -> None:
    model, showing = backbone(family), showing_of([(64, 64), size])
    outcomes: list[Any] = []
    for plain in (True, False):
        try:
            outcomes.append(make(model, plain=plain).score(showing))
        except RerankError as error:
            assert f"{size[0]}, {size[1]}, 3" in error.message  # noqa: PT017 - either is right
            outcomes.append(None)
    assert (outcomes[0] is None) == (outcomes[1] is None)
    if outcomes[0] is not None:
        assert apart(outcomes[0], outcomes[1]) < 1e-5


@pytest.mark.parametrize("plain", [False, True])
def test_a_tower_without_memory_is_an_error_of_this_query(
    backbone: Backbones, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone("qwen2_vl")

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.inner.visual, "forward", full)
    with pytest.raises(RerankError, match="not enough memory") as caught:
        make(model, plain=plain).score(showing_of())
    assert caught.value.hint


# ---- what is asked


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_the_prompt_is_what_the_model_is_asked(backbone: Backbones, template: str) -> None:
    scorer, showing = make(backbone("qwen3_vl"), template), showing_of(differing_facts=True)
    text = scorer.prompt_of(showing)
    pictures = {"pointwise": 2, "pairwise": 3, "listwise": 8}[scorer.mode]
    assert text.count(scorer.backbone.image_token) == pictures
    assert "north is up, 160 m wide, taken from 90 m above the ground" in text
    assert text.endswith("<|im_start|>assistant\n")
    assert make(scorer.backbone, template, facts=False).prompt_of(showing).count("north") == 0


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_no_prompt_where_nothing_is_asked(backbone: Backbones, template: str) -> None:
    scorer = make(backbone("qwen3_vl"), template)
    assert scorer.prompt_of(showing_of([])) == ""
    alone = scorer.prompt_of(showing_of([(64, 64)]))
    assert (alone == "") == (scorer.mode == "pairwise")
    scorer.score(showing_of([(64, 64)]))
    assert (scorer.engine.chunks == []) == (scorer.mode == "pairwise")


@pytest.mark.parametrize("template", list(TEMPLATES))
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_checkpoints_own_processor(
    backbone: Backbones, family: str, template: str
) -> None:
    model, showing = backbone(family), picked(showing_of(), [1, 2])
    count = 1 if TEMPLATES[template].mode == "pointwise" else 2
    prompt = TEMPLATES[template].build(showing.photo_facts, showing.candidate_facts[:count])
    pictures = [showing.photo, *showing.candidates[:count]]
    photo, *tiles = [model.look(rgb) for rgb in pictures]
    rendered = model.render(prompt)
    inputs = model.process(rendered, pictures, special=model.starts_bare(rendered))
    ids = model.encode(prompt, photo, tiles).ids
    assert ids == inputs["input_ids"][0].tolist()
    assert ids.count(model.image_token_id) == sum(len(x.tokens) for x in (photo, *tiles))
    assert sum(isinstance(part, Picture) for part in prompt.user) == len(pictures)


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_answers_are_checked_before_the_first_photo(
    backbone: Backbones, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone("smolvlm")
    wordy = replace(
        TEMPLATES[template],
        build=lambda photo, shown: replace(
            TEMPLATES[template].build(photo, shown), answers=("Affirmative", "Negative")
        ),
    )
    with pytest.raises(ModelError, match="Affirmative, Negative are not single tokens"):
        Scorer(model, wordy)


def test_answers_that_are_one_token_are_refused(backbone: Backbones) -> None:
    model = backbone("smolvlm")
    build = TEMPLATES["pointwise-v1"].build
    same = replace(build(Facts(), [Facts()]), answers=("Yes", "Yes"))
    with pytest.raises(ModelError, match="not single tokens"):
        model.answer_ids(same)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_continue_the_prompt(backbone: Backbones, family: str) -> None:
    """Prompt and answer tokenised together are the prompt's tokens and the answer's one."""
    model = backbone(family)
    for template in POINTWISE:
        prompt = TEMPLATES[template].build(Facts(), [Facts()])
        rendered = model.render(prompt)
        space = "" if rendered[-1].isspace() else " "
        tokenizer = model.processor.tokenizer
        before = tokenizer(rendered)["input_ids"]
        for answer, token in zip(prompt.answers, model.answer_ids(prompt), strict=True):
            assert tokenizer(f"{rendered}{space}{answer}")["input_ids"] == [*before, token]
