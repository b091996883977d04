"""What a user can choose of a re-ranker that asks a server. Imports no HTTP library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skylink.errors import OptionError
from skylink.prompt import MODES, Mode, template_of

Api = Literal["auto", "chat", "score"]
APIS: tuple[Api, ...] = ("auto", "chat", "score")
ImageFormat = Literal["png", "jpeg"]
FORMATS: tuple[ImageFormat, ...] = ("png", "jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """See each.

    Attributes:
        model: as the server names it; None: the only one that it lists.
        mode: how candidates are scored.
        template: prompt template; None: the mode's own. With `/score` the words are the server's.
        facts: tell the model what is known (north, ground width, altitude).
        api: `chat` asks `/v1/chat/completions`, `score` asks vLLM's `/score` (servers started with
            `--runner pooling`; pointwise only), `auto` looks at what the server offers.
        concurrency: requests in flight at once, within one photo.
        timeout_s: a whole try of a request, answer included.
        connect_timeout_s: of it, for the connection.
        retries: tries after the first, where another may help (busy, restarting, cut off).
        image_px: longest side of a picture that is sent; larger ones are made smaller.
        image_format: `png` sends the pixels as they are; `jpeg` (quality 95) sends less.
        orders: listwise: seeded orders of the candidates that are averaged.
        max_comparisons: pairwise: at most so many comparisons a photo; each is two requests.
        seed: of the orders.
        key_env: environment variable with the server's key. No other is looked at: a key meant
            for one server is never sent to another.
        plain_key: send the key even over plain http to another machine.
    """

    model: str | None = None
    mode: Mode = "pointwise"
    template: str | None = None
    facts: bool = True
    api: Api = "auto"
    concurrency: int = 8
    timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    retries: int = 4
    image_px: int = 1024
    image_format: ImageFormat = "png"
    orders: int = 2
    max_comparisons: int = 60
    seed: int = 0
    key_env: str = "SKYLINK_API_KEY"
    plain_key: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, MODES),
            ("api", self.api, APIS),
            ("image format", self.image_format, FORMATS),
        ):
            if value not in known:
                raise OptionError(f"unknown {name} {value!r}", hint=f"known: {', '.join(known)}")
        template_of(self.template, self.mode)
        if self.api == "score" and self.mode != "pointwise":
            raise OptionError(
                f"/score serves pointwise scoring, not {self.mode}", hint="use the chat interface"
            )
        if self.api == "score" and self.template is not None:
            raise OptionError(
                "/score asks in the words of the server's own chat template",
                hint="leave out the prompt template, or use the chat interface",
            )
        for name, low, high in (
            ("concurrency", 1, 256),
            ("timeout_s", 0.001, 86_400),
            ("connect_timeout_s", 0.001, 3_600),
            ("retries", 0, 100),
            ("image_px", 16, 8192),
            ("orders", 1, 100),
            ("max_comparisons", 1, 10_000),
            ("seed", 0, 2**63),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"{name} = {getattr(self, name)!r} is not in {low}..{high}")
        if not self.key_env:
            raise OptionError("the name of the key's environment variable is empty")
