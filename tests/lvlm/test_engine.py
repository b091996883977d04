"""The fast path is exact: held to the plain forward, however prompts are grouped."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lvlm_helpers import FAMILIES, showing_of  # noqa: E402
from skylink.errors import RerankError  # noqa: E402
from skylink.lvlm.backbone import Backbone, Encoded  # noqa: E402
from skylink.lvlm.cache import ImageFeatures  # noqa: E402
from skylink.lvlm.engine import Engine, common_prefix  # noqa: E402
from skylink.lvlm.plain import plain_states  # noqa: E402
from skylink.prompt import TEMPLATES  # noqa: E402
from skylink.showing import Showing  # noqa: E402

SIZES = [(64, 64), (48, 96), (96, 64), (120, 90), (200, 300)]


def encoded(
    backbone: Backbone, showing: Showing, template: str = "pointwise-v1"
) -> tuple[list[Encoded], Any]:
    """Pointwise prompts of all candidates, shortest first, and their plain states."""
    build = TEMPLATES[template].build
    prompts = [build(showing.photo_facts, [facts]) for facts in showing.candidate_facts]
    photo = backbone.look(showing.photo)
    rows = [
        (backbone.encode(prompt, photo, [backbone.look(tile)]), prompt, tile)
        for prompt, tile in zip(prompts, showing.candidates, strict=True)
    ]
    rows.sort(key=lambda row: len(row[0].ids))
    plain = plain_states(
        backbone, [row[1] for row in rows], showing.photo, [[row[2]] for row in rows]
    )
    return [row[0] for row in rows], plain


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max())


@contextlib.contextmanager
def watched(
    model: Backbone, before: Callable[[Any], None] = lambda ids: None
) -> Iterator[list[tuple[int, ...]]]:
    """Note the shapes of token ids that go through a model; `before` may raise."""
    shapes: list[tuple[int, ...]] = []
    forward = model.forward

    def noting(ids: Any, *args: Any, **named: Any) -> Any:
        shapes.append(tuple(ids.shape))
        before(ids)
        return forward(ids, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "forward", noting)
        yield shapes


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_plain_way_in_groups_of_any_size(
    backbone: Callable[..., Backbone], family: str
) -> None:
    model = backbone(family)
    prompts, plain = encoded(model, showing_of(SIZES, differing_facts=True))
    shared, _ = common_prefix(prompts)
    for size, groups in ((1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [5])):
        need = Engine(model)._bytes(shared, len(prompts[-1].ids))
        engine = Engine(model, memory_bytes=size * need + need // 2)
        states = engine.last_states(prompts)
        assert engine.chunks == groups
        assert apart(states, plain) < 1e-5
        assert engine.shrunk == 0
    least = min(apart(plain[i], plain[j]) for i in range(5) for j in range(i))
    assert least > 1e-2  # they are told apart by far more than that


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", ["pointwise-v1", "pointwise-short-v1", "qwen3-reranker-v1"])
def test_the_photo_is_computed_once(
    backbone: Callable[..., Backbone], family: str, template: str
) -> None:
    model = backbone(family)
    prompts, _ = encoded(model, showing_of(SIZES, differing_facts=True), template)
    shared, pictures = common_prefix(prompts)
    assert pictures == 1
    assert shared > len(prompts[0].texts[0]) + len(prompts[0].images[0].ids)
    with watched(model) as shapes:
        Engine(model).last_states(prompts)
    longest = max(len(prompt.ids) for prompt in prompts)
    assert shapes == [(1, shared), (5, longest - shared)]


def test_the_short_template_leaves_less_to_compute(backbone: Callable[..., Backbone]) -> None:
    model, showing = backbone("qwen3_vl"), showing_of(SIZES)
    rests = []
    for template in ("pointwise-v1", "pointwise-short-v1"):
        prompts, _ = encoded(model, showing, template)
        rests.append(len(prompts[-1].ids) - common_prefix(prompts)[0])
    assert rests[1] < rests[0] - 10


def test_no_prompts_and_one(backbone: Callable[..., Backbone]) -> None:
    model = backbone("qwen2_vl")
    engine = Engine(model)
    assert len(engine.last_states([])) == 0
    prompts, plain = encoded(model, showing_of(SIZES))
    assert apart(engine.last_states(prompts[:1]), plain[:1]) < 1e-5
    assert engine.chunks == [1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_prompt_twice(backbone: Callable[..., Backbone], family: str) -> None:
    """All but the last token is shared then, pictures included."""
    model = backbone(family)
    prompts, plain = encoded(model, showing_of(SIZES))
    one = prompts[2]
    assert common_prefix([one, one]) == (len(one.ids) - 1, 2)
    states = Engine(model).last_states([one, one, one])
    assert apart(states[0], states[1]) == 0
    assert apart(states, plain[2].expand_as(states)) < 1e-5


def test_lower_precision_stays_near(backbone: Callable[..., Backbone]) -> None:
    exact = backbone("qwen3_vl")
    model = copy.deepcopy(exact.model).to(torch.bfloat16)
    half = Backbone(model, exact.processor, exact.family, exact.name, picture_px=exact.picture_px)
    prompts, plain = encoded(half, showing_of(SIZES))
    states = Engine(half, memory_bytes=1).last_states(prompts)
    assert states.dtype == torch.float32
    spread = float((plain - plain.mean(0)).norm(dim=1).min())
    assert float((states - plain).norm(dim=1).max()) < 0.2 * spread


# ---- memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_out_of_memory_makes_groups_smaller(
    backbone: Callable[..., Backbone], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    model = backbone("smolvlm")
    prompts, plain = encoded(model, showing_of(SIZES))

    def refuse(ids: Any) -> None:
        if len(ids) > 1:
            raise error

    engine = Engine(model)
    with watched(model, refuse), caplog.at_level(logging.WARNING, "skylink"):
        states = engine.last_states(prompts)
        again = engine.last_states(prompts)
    assert apart(states, plain) < 1e-5
    assert apart(again, plain) < 1e-5
    assert engine.chunks == [1] * 10
    assert engine.shrunk == 2  # 5, 2, 1; the second time it knows
    assert "memory ran out with 5 candidates at once: 2 from now on" in caplog.text


@pytest.mark.parametrize("refused", ["prefix", "rest"])
def test_not_enough_memory_for_one(backbone: Callable[..., Backbone], refused: str) -> None:
    model = backbone("smolvlm")
    prompts, _ = encoded(model, showing_of(SIZES))
    shared, _ = common_prefix(prompts)

    def refuse(ids: Any) -> None:
        if (ids.shape == (1, shared)) == (refused == "prefix"):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with watched(model, refuse), pytest.raises(RerankError, match="not enough memory") as no:
        Engine(model).last_states(prompts)
    assert "--lvlm-tokens" in str(no.value.hint)


def test_other_errors_are_not_taken_for_memory(backbone: Callable[..., Backbone]) -> None:
    model = backbone("smolvlm")
    prompts, _ = encoded(model, showing_of(SIZES))

    def fail(ids: Any) -> None:
        if len(ids) > 1:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    engine = Engine(model)
    with watched(model, fail), pytest.raises(RuntimeError, match="mat1 and mat2"):
        engine.last_states(prompts)
    assert engine.shrunk == 0


# ---- the shared beginning


def features(ids: Sequence[int]) -> ImageFeatures:
    return ImageFeatures(ids=tuple(ids), grid=(), tokens=torch.zeros(len(ids), 1))


PICTURES = [features(ids) for ids in ([9], [9, 9], [8, 9, 8], [9, 9])]
WORDS = st.lists(st.integers(0, 1), max_size=3).map(tuple)


@st.composite
def some_prompts(draw: st.DrawFn) -> list[Encoded]:
    """Prompts over few tokens and pictures, so that many begin alike."""
    count = draw(st.integers(1, 4))
    made = []
    for _ in range(count):
        images = draw(st.lists(st.sampled_from(PICTURES), max_size=3))
        texts = [draw(WORDS) for _ in images]
        last = (*draw(WORDS), draw(st.integers(0, 1)))
        made.append(Encoded(texts=(*texts, last), images=tuple(images)))
    if draw(st.booleans()):
        made.append(made[0])
    return made


def by_definition(prompts: Sequence[Encoded]) -> tuple[int, int]:
    """All prompts as lists of whole pieces, a word or a picture each, compared one by one."""
    pieces: list[list[Any]] = []
    for prompt in prompts:
        row: list[Any] = list(prompt.texts[0])
        for image, text in zip(prompt.images, prompt.texts[1:], strict=True):
            row += [image, *text]
        pieces.append(row)
    tokens = pictures = 0
    for column in zip(*(row[:-1] for row in pieces), strict=False):
        first = column[0]
        if isinstance(first, ImageFeatures):
            if any(piece is not first for piece in column):
                break
            tokens, pictures = tokens + len(first.ids), pictures + 1
        else:
            if any(isinstance(p, ImageFeatures) or p != first for p in column):
                break
            tokens += 1
    return tokens, pictures


@given(some_prompts())
def test_common_prefix(prompts: list[Encoded]) -> None:
    tokens, pictures = common_prefix(prompts)
    assert (tokens, pictures) == by_definition(prompts)
    assert all(len(p.ids) > tokens for p in prompts)
    assert len({tuple(p.ids[:tokens]) for p in prompts}) == 1


def test_pictures_that_only_look_alike_are_not_shared() -> None:
    one, other = PICTURES[1], PICTURES[3]
    assert one.ids == other.ids
    prompts = [Encoded(texts=((1,), (2,)), images=(image,)) for image in (one, other)]
    assert common_prefix(prompts) == (1, 0)


def test_padding_is_never_a_pictures_place(backbone: Callable[..., Backbone]) -> None:
    """A prompt of two pictures beside one of none: rests of very different lengths."""
    model = backbone("qwen2_vl")
    prompts, plain = encoded(model, showing_of(SIZES))
    words = Encoded(texts=((*prompts[0].texts[0], *prompts[0].texts[-1]),), images=())
    states = Engine(model).last_states([words, *prompts])
    assert apart(states[1:], plain) < 1e-5
    assert torch.isfinite(states).all()
