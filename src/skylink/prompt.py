"""The one prompt builder: what a vision-language model is shown and asked, everywhere.

Training, local inference and remote servers all take their prompts from here, so that a model is
never asked in other words than those it was trained with. A template has a name with a version;
a version that was shipped never changes its words.

Every template puts the photo first and the candidates after it, so that all prompts of one photo
begin alike: that shared beginning is computed once (`lvlm/engine.py`). In the `short` templates the
question comes before the candidate too, and only the candidate's own tokens remain to be computed.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skylink.errors import OptionError

Mode = Literal["pointwise", "listwise", "pairwise"]
MODES: tuple[Mode, ...] = ("pointwise", "listwise", "pairwise")
LETTERS = string.ascii_uppercase[:20]
"""Names of the candidates of a listwise prompt; their number bounds its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one picture; None is "not known", and is not spoken of.

    Attributes:
        north_up: True: its upper edge is north; False: it is not.
        width_m: ground that its width covers, metres.
        altitude_m: height above the ground that it was taken from, metres.
    """

    north_up: bool | None = None
    width_m: float | None = None
    altitude_m: float | None = None

    def words(self) -> str:
        """` (north is up, 160 m wide)`, or an empty text."""
        known = []
        if self.north_up is not None:
            known.append("north is up" if self.north_up else "north is not up")
        if self.width_m is not None:
            known.append(f"{self.width_m:.0f} m wide")
        if self.altitude_m is not None:
            known.append(f"taken from {self.altitude_m:.0f} m above the ground")
        return f" ({', '.join(known)})" if known else ""


NOTHING = Facts()


@dataclass(frozen=True, slots=True)
class Text:
    """Words of a prompt."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A place for a picture: the photo (`candidate` is None) or candidate number `candidate`."""

    candidate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to a model.

    Attributes:
        system: the system turn; None for none.
        user: words and pictures of the user's turn, in order.
        answers: the words whose logits are compared, as the template spells them: (yes, no), or
            one letter a candidate.
    """

    system: str | None
    user: tuple[Text | Picture, ...]
    answers: tuple[str, ...]

    def messages(
        self, picture: Callable[[Picture], dict[str, Any]] = lambda _: {"type": "image"}
    ) -> list[dict[str, Any]]:
        """Chat messages as chat templates and OpenAI-compatible servers take them.

        Args:
            picture: the message part for a picture; by default the bare `{"type": "image"}`.
        """
        parts = [
            picture(part) if isinstance(part, Picture) else {"type": "text", "text": part.text}
            for part in self.user
        ]
        turns: list[dict[str, Any]] = []
        if self.system is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        return [*turns, {"role": "user", "content": parts}]

    def __str__(self) -> str:
        """For people: pictures as `[photo]` and `[candidate 1]`."""
        user = "".join(
            part.text
            if isinstance(part, Text)
            else ("[photo]" if part.candidate is None else f"[candidate {part.candidate + 1}]")
            for part in self.user
        )
        system = f"system: {self.system}\n" if self.system is not None else ""
        return f"{system}user: {user}\nanswers: {' | '.join(self.answers)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A named, versioned way to ask.

    Attributes:
        name: with its version, such as `pointwise-v1`.
        mode: which scoring mode it serves.
        about: one line for people.
        build: (facts of the photo, facts of each candidate) -> the prompt.
    """

    name: str
    mode: Mode
    about: str
    build: Callable[[Facts, Sequence[Facts]], Prompt]


SYSTEM = "You compare a photo taken by a drone with satellite images."
YES_NO = ("Yes", "No")
QUESTION = "Does the satellite image show the place in the drone photo? Answer Yes or No."


def _pointwise(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    (candidate,) = candidates
    return Prompt(
        system=SYSTEM,
        user=(
            Text(f"Drone photo{photo.words()}:"),
            Picture(),
            Text(f"Satellite image{candidate.words()}:"),
            Picture(0),
            Text(QUESTION),
        ),
        answers=YES_NO,
    )


def _pointwise_short(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    (candidate,) = candidates
    return Prompt(
        system=SYSTEM,
        user=(
            Text(f"{QUESTION} Drone photo{photo.words()}:"),
            Picture(),
            Text(f"Satellite image{candidate.words()}:"),
            Picture(0),
        ),
        answers=YES_NO,
    )


def _qwen3_reranker(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    (candidate,) = candidates
    return Prompt(
        system="Judge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".',
        user=(
            Text(
                "<Instruct>: Given a photo taken by a drone, retrieve the satellite image of the "
                "same place."
            ),
            Text("<Query>:"),
            Picture(),
            Text(photo.words().strip() + "\n<Document>:"),
            Picture(0),
            *((Text(candidate.words().strip()),) if candidate != NOTHING else ()),
        ),
        answers=("yes", "no"),
    )


def _lettered(
    photo: Facts, candidates: Sequence[Facts], question: str, cue: str = "The letter is:"
) -> Prompt:
    if not 1 <= len(candidates) <= len(LETTERS):
        raise OptionError(
            f"a lettered prompt shows 1 to {len(LETTERS)} candidates, not {len(candidates)}"
        )
    letters = LETTERS[: len(candidates)]
    user: list[Text | Picture] = [Text(f"{question} Drone photo{photo.words()}:"), Picture()]
    for index, (letter, facts) in enumerate(zip(letters, candidates, strict=True)):
        user += [Text(f"Satellite image {letter}{facts.words()}:"), Picture(index)]
    user.append(Text(cue))
    return Prompt(system=SYSTEM, user=tuple(user), answers=tuple(letters))


def _listwise(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    question = (
        f"A drone photo and {len(candidates)} satellite images follow, each under a letter. Which "
        "satellite image shows the place in the drone photo? Answer with its letter alone."
    )
    return _lettered(photo, candidates, question)


def _ranking(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    question = (
        f"A drone photo and {len(candidates)} satellite images follow, each under a letter. Rank "
        "the satellite images by how well they fit the place in the drone photo."
    )
    cue = "Answer with JSON alone: all letters, the best first."
    return _lettered(photo, candidates, question, cue)


def _pairwise(photo: Facts, candidates: Sequence[Facts]) -> Prompt:
    if len(candidates) != 2:
        raise OptionError(f"a pairwise prompt compares two candidates, not {len(candidates)}")
    question = (
        "A drone photo and two satellite images, A and B, follow. Which of the two fits the place "
        "in the drone photo better? Answer with its letter alone."
    )
    return _lettered(photo, candidates, question)


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="pointwise-v1",
            mode="pointwise",
            about="photo, candidate, then a yes-or-no question (the paper's setting)",
            build=_pointwise,
        ),
        Template(
            name="pointwise-short-v1",
            mode="pointwise",
            about="the question before both pictures: less to compute for each candidate",
            build=_pointwise_short,
        ),
        Template(
            name="qwen3-reranker-v1",
            mode="pointwise",
            about="the words that Qwen3-VL-Reranker was trained with",
            build=_qwen3_reranker,
        ),
        Template(
            name="listwise-v1",
            mode="listwise",
            about="all candidates under letters; which is it?",
            build=_listwise,
        ),
        Template(
            name="listwise-ranking-v1",
            mode="listwise",
            about="for servers: all candidates under letters; the ranking as JSON",
            build=_ranking,
        ),
        Template(
            name="pairwise-v1",
            mode="pairwise",
            about="two candidates, A and B; which fits better?",
            build=_pairwise,
        ),
    )
}
DEFAULT_TEMPLATES: dict[Mode, str] = {
    "pointwise": "pointwise-v1",
    "listwise": "listwise-v1",
    "pairwise": "pairwise-v1",
}


def template_of(name: str | None, mode: Mode) -> Template:
    """The template of a name, or a mode's own.

    Raises:
        OptionError: no such template, or one of another mode.
    """
    template = TEMPLATES.get(name or DEFAULT_TEMPLATES[mode])
    fitting = [t.name for t in TEMPLATES.values() if t.mode == mode]
    if template is None or template.mode != mode:
        what = "no such prompt template" if template is None else f"is for {template.mode} scoring"
        raise OptionError(
            f"template {name!r}: {what}", hint=f"for {mode} scoring there are: {', '.join(fitting)}"
        )
    return template
