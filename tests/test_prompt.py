"""What models are asked. The words of a version that was shipped never change."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.errors import OptionError
from skylink.prompt import (
    DEFAULT_TEMPLATES,
    LETTERS,
    MODES,
    NOTHING,
    TEMPLATES,
    Facts,
    Mode,
    Picture,
    Prompt,
    Template,
    Text,
    template_of,
)

PHOTO = Facts(north_up=False, altitude_m=87.6)
TILES = [Facts(north_up=True, width_m=160.2 + i) for i in range(20)]
SHOWN = {"pointwise": 1, "pairwise": 2, "listwise": 3}
EVERY = pytest.mark.parametrize("template", TEMPLATES.values(), ids=lambda t: t.name)


def prompt_of(template: Template, *, told: bool = True) -> Prompt:
    count = SHOWN[template.mode]
    if told:
        return template.build(PHOTO, TILES[:count])
    return template.build(NOTHING, [NOTHING] * count)


@EVERY
def test_the_photo_comes_first_and_every_candidate_once(template: Template) -> None:
    pictures = [part for part in prompt_of(template).user if isinstance(part, Picture)]
    assert pictures == [Picture(), *(Picture(i) for i in range(SHOWN[template.mode]))]


@EVERY
def test_names(template: Template) -> None:
    assert TEMPLATES[template.name] is template
    assert template.mode in MODES
    assert template.name.rpartition("-v")[2].isdigit()
    assert len(template.about) > 10
    assert "\n" not in template.about


def test_every_mode_has_a_template_of_its_own() -> None:
    assert set(DEFAULT_TEMPLATES) == set(MODES)
    for mode in MODES:
        assert template_of(None, mode).mode == mode
        assert template_of(None, mode).name == DEFAULT_TEMPLATES[mode]


FROZEN = {
    "pointwise-v1": "4dc2b60e72139056",
    "pointwise-short-v1": "f794c46bbbb856cf",
    "qwen3-reranker-v1": "4d3e6790e3c75335",
    "listwise-ranking-v1": "95125a73f17f21d5",
    "listwise-v1": "376946698d14caeb",
    "pairwise-v1": "e01d857be75a23b7",
}
"""SHA-256 of the prompts below, its first digits. A change of words is a new version of the
template, under a new name, with a hash of its own: never edit a hash here."""


@EVERY
def test_the_words_of_a_version_never_change(template: Template) -> None:
    everything = "\n".join(str(prompt_of(template, told=told)) for told in (True, False))
    assert hashlib.sha256(everything.encode()).hexdigest()[:16] == FROZEN[template.name]


def test_a_prompt_for_people() -> None:
    assert str(prompt_of(TEMPLATES["pointwise-v1"])) == (
        "system: You compare a photo taken by a drone with satellite images.\n"
        "user: Drone photo (north is not up, taken from 88 m above the ground):[photo]"
        "Satellite image (north is up, 160 m wide):[candidate 1]"
        "Does the satellite image show the place in the drone photo? Answer Yes or No.\n"
        "answers: Yes | No"
    )


def test_a_prompt_without_a_system_turn() -> None:
    prompt = Prompt(system=None, user=(Text("Look:"), Picture()), answers=("Yes", "No"))
    assert str(prompt) == "user: Look:[photo]\nanswers: Yes | No"
    assert [turn["role"] for turn in prompt.messages()] == ["user"]


@EVERY
def test_facts_are_told_and_what_is_not_known_is_not(template: Template) -> None:
    told, silent = (str(prompt_of(template, told=told)) for told in (True, False))
    assert "north is not up, taken from 88 m above the ground" in told
    for i in range(SHOWN[template.mode]):
        assert f"north is up, {160 + i} m wide" in told
    for word in ("north", "wide", "above the ground", "None", "()", "nan"):
        assert word not in silent


@EVERY
def test_prompts_of_one_photo_begin_alike(template: Template) -> None:
    """Up to and with the photo, whatever is told of the candidates: that part is computed once."""
    count = SHOWN[template.mode]
    one, other = template.build(PHOTO, TILES[:count]), template.build(PHOTO, TILES[-count:])
    first = one.user.index(Picture())
    assert one.user[: first + 1] == other.user[: first + 1]
    assert one.system == other.system


@EVERY
def test_nothing_but_words_after_the_last_candidate(template: Template) -> None:
    prompt = prompt_of(template, told=False)
    last = max(i for i, part in enumerate(prompt.user) if isinstance(part, Picture))
    tail = prompt.user[last + 1 :]
    short = template.name in ("pointwise-short-v1", "qwen3-reranker-v1")
    assert (tail == ()) == short


@EVERY
def test_chat_messages(template: Template) -> None:
    prompt = prompt_of(template)
    assert prompt.system is not None
    system, user = prompt.messages()
    assert system == {"role": "system", "content": [{"type": "text", "text": prompt.system}]}
    assert user["role"] == "user"
    kinds = [part["type"] for part in user["content"]]
    assert kinds.count("image") == 1 + SHOWN[template.mode]
    assert all(part["text"] for part in user["content"] if part["type"] == "text")

    def url(picture: Picture) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"data:{picture.candidate}"}}

    parts = prompt.messages(url)[1]["content"]
    shown = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert shown == ["data:None", *(f"data:{i}" for i in range(SHOWN[template.mode]))]


@pytest.mark.parametrize("count", [1, 2, 20])
def test_letters_name_the_candidates(count: int) -> None:
    prompt = TEMPLATES["listwise-v1"].build(PHOTO, TILES[:count])
    assert prompt.answers == tuple(LETTERS[:count])
    assert len(set(LETTERS)) == len(LETTERS) == 20
    text = str(prompt)
    assert f"and {count} satellite images follow" in text
    places = [text.index(f"Satellite image {letter} (") for letter in prompt.answers]
    assert places == sorted(places)


@pytest.mark.parametrize("count", [0, 21])
def test_as_many_candidates_as_letters(count: int) -> None:
    with pytest.raises(OptionError, match=f"1 to 20 candidates, not {count}"):
        TEMPLATES["listwise-v1"].build(NOTHING, [NOTHING] * count)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pairs_are_pairs(count: int) -> None:
    with pytest.raises(OptionError, match=f"two candidates, not {count}"):
        TEMPLATES["pairwise-v1"].build(NOTHING, [NOTHING] * count)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(), ""),
        (Facts(north_up=True), " (north is up)"),
        (Facts(north_up=False, width_m=79.6), " (north is not up, 80 m wide)"),
        (Facts(altitude_m=120.0), " (taken from 120 m above the ground)"),
        (Facts(width_m=0.0), " (0 m wide)"),
    ],
)
def test_facts_in_words(facts: Facts, words: str) -> None:
    assert facts.words() == words


@given(
    st.builds(
        Facts,
        north_up=st.none() | st.booleans(),
        width_m=st.none() | st.floats(0.1, 1e5),
        altitude_m=st.none() | st.floats(0.5, 2e4),
    )
)
def test_facts_are_never_half_said(facts: Facts) -> None:
    words = facts.words()
    known = [f for f in (facts.north_up, facts.width_m, facts.altitude_m) if f is not None]
    assert words.count(",") == max(0, len(known) - 1)
    assert (words == "") == (not known)
    assert "<" not in words  # nothing that a chat template could take for a token


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("nonsense", "pointwise", "no such prompt template"),
        ("listwise-v1", "pointwise", "is for listwise scoring"),
        ("pointwise-v1", "pairwise", "is for pointwise scoring"),
    ],
)
def test_wrong_templates_are_refused(name: str, mode: Mode, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        template_of(name, mode)
    assert DEFAULT_TEMPLATES[mode] in str(caught.value.hint)
    assert name in caught.value.message
