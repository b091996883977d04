"""What a user can choose of a vision-language re-ranker. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skylink.errors import OptionError
from skylink.prompt import MODES, Mode, template_of

Way = Literal["auto", "north-up", "as-taken"]
WAYS: tuple[Way, ...] = ("auto", "north-up", "as-taken")
"""How a photo is shown; `showing.GalleryShow` says what each means."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class LvlmOptions:
    """What was chosen; None is "not chosen": then what an adapter was trained with is used, or
    the model's preset, or the default given here.

    Attributes:
        mode: how candidates are scored. By default `pairwise` for an untrained model, whose
            pointwise scores are known to do harm.
        template: prompt template; by default the mode's own.
        facts: tell the model what is known (north, ground width, altitude). Yes by default.
        show: how photo and candidates are shown, see `showing.GalleryShow`; `auto` by default.
        adapter: folder written by training: LoRA weights, value head, or both.
        revision: of a checkpoint on the hub (branch, tag or commit).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto` is bfloat16 on a GPU and float32 on a CPU, where bfloat16 is far slower.
        visual_tokens: budget of a picture, in tokens, 256 by default; its size follows from it.
        orders: listwise: seeded orders of the candidates that are averaged.
        max_comparisons: pairwise: at most so many comparisons a photo; each is two prompts.
        seed: of the orders.
        memory_gb: what scoring may take beside the weights; candidates are scored in groups that
            fit. None: half of what is free.
        cache: folder for the visual features of tiles; None: the user's cache folder.
        cache_gb: its size bound; 0 keeps none.
        trust_remote_code: run Python code that comes with a checkpoint.
        served_as: the model's name on a server; None: the only one that it lists.
        plain: the slow reference way, one full forward a prompt; for comparisons.
        on_prompt: called with what the model is asked about each photo.
    """

    mode: Mode | None = None
    template: str | None = None
    facts: bool | None = None
    show: Way | None = None
    adapter: Path | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    visual_tokens: int | None = None
    orders: int = 2
    max_comparisons: int = 60
    seed: int = 0
    memory_gb: float | None = None
    cache: Path | None = None
    cache_gb: float = 10.0
    trust_remote_code: bool = False
    served_as: str | None = None
    plain: bool = False
    on_prompt: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("show", WAYS), ("dtype", DTYPES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise OptionError(f"unknown {name} {value!r}", hint=f"known: {', '.join(known)}")
        if self.mode is not None:
            template_of(self.template, self.mode)
        for name, low, high in (
            ("visual_tokens", 4, 16384),
            ("orders", 1, 100),
            ("max_comparisons", 1, 10_000),
            ("cache_gb", 0, 100_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(
                    f"{name} = {value!r} is not in {low}..{high}",
                    hint="`--help` says what each --lvlm option means",
                )
        if self.memory_gb is not None and not 0 < self.memory_gb < 1e6:
            raise OptionError(f"memory_gb = {self.memory_gb!r} is not a positive number")

    def check_served(self) -> None:
        """Raises OptionError if a choice was made that a server makes, not we."""
        defaults = LvlmOptions()
        for name in ("adapter", "revision", "device", "dtype", "visual_tokens", "memory_gb"):
            if getattr(self, name) != getattr(defaults, name):
                flag = "tokens" if name == "visual_tokens" else name.replace("_", "-")
                raise OptionError(
                    f"--lvlm-{flag} is for a model that runs here, not on a server",
                    hint="choose it where the server is started (docs/lvlm.md)",
                )
