"""What is trained: a value head on a frozen model, or LoRA weights in it and the head."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from skylink.errors import ModelError, OptionError, pip_hint
from skylink.lvlm.backbone import TEXT_MODULES, Backbone, Encoded
from skylink.lvlm.head import ValueHead
from skylink.lvlm.load import agrees_with_plain, load_backbone
from skylink.lvlm.options import Dtype, LvlmOptions
from skylink.prompt import NOTHING, Template, template_of
from skylink.training.config import TrainConfig, Tune
from skylink.training.draws import drawn_from
from skylink.training.groups import group_states, whole_states
from skylink.training.state import Weights, put_back, weights_of

TOLERANCE = 1e-3
"""States of a group may differ from those of whole prompts by this, relative to their size, for a
family that we have not tested to be trained."""


class Student:
    """A model under training.

    Args:
        backbone: loaded, frozen.
        template: how it is asked, pointwise.
        tune: what is trained.
        precision: what activations of the model are computed in.
        gradient_checkpointing: compute activations twice instead of keeping them.
        seed: of LoRA's first weights.

    Attributes:
        head: the value head, float32; untrained it is the model's log-odds of Yes.
        lora: the PEFT model around the backbone's; None: the backbone stays frozen.

    Raises:
        OptionError: no layer of the model has a name that `tune.targets` says.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template,
        tune: Tune,
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        self.backbone, self.template, self.precision = backbone, template, precision
        prompt = template.build(NOTHING, [NOTHING])
        self.head = ValueHead.yes_minus_no(backbone, prompt).to(backbone.device)
        self.lora: Any = None
        if tune.how == "lora":
            self.lora = _with_lora(backbone, tune, seed)
            if gradient_checkpointing:
                # the layers call it in training only, so the tower, in evaluation mode, never does
                with warnings.catch_warnings():  # of what transformers will rename
                    warnings.simplefilter("ignore")
                    backbone.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def frozen(self) -> bool:
        """Whether the states of a prompt never change, the head alone being trained."""
        return self.lora is None

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """What is trained, in a stable order."""
        for name, parameter in self.head.named_parameters():
            yield f"head.{name}", parameter
        if self.lora is not None:
            for name, parameter in self.lora.named_parameters():
                if parameter.requires_grad:
                    yield f"lora.{name}", parameter

    def weights(self) -> Weights:
        """Copies of what is trained, on the CPU."""
        return weights_of(self.named_parameters())

    def set_weights(self, weights: Weights) -> None:
        """Put back what `weights` gave.

        Raises:
            ModelError: they are of another model or another choice of what to train.
        """
        put_back(self.named_parameters(), weights)

    def states(self, prompts: Sequence[Encoded]) -> torch.Tensor:
        """(K, H) last states of one list's prompts; without gradients where the model is frozen."""
        kind = self.backbone.device.type
        bf16 = self.precision == "bf16"
        with (
            torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen),
            torch.autocast(kind, torch.bfloat16, enabled=bf16),
        ):
            return group_states(self.backbone, prompts)

    def scores(self, prompts: Sequence[Encoded]) -> torch.Tensor:
        """(K,) float32 relevance of one list's candidates."""
        scores: torch.Tensor = self.head(self.states(prompts))
        return scores

    @contextmanager
    def training(self, seed: tuple[int, ...]) -> Iterator[None]:
        """Dropout is on, drawn from these numbers alone, whatever was drawn before.

        So a step drops the same whether the run was interrupted or not, and on any number of
        processes, and there is no state of a generator to keep.
        """
        if self.frozen:
            yield
            return
        body = _text_model(self.backbone)
        body.train()
        try:
            with drawn_from(seed, self.backbone.device):
                yield
        finally:
            body.eval()


def load_student(config: TrainConfig, *, device: str | None = None) -> Student:
    """The model of a configuration, loaded and ready to be trained.

    Args:
        config: the training's.
        device: instead of the configuration's, for one of several processes.

    Raises:
        ModelError: it can't be loaded, or its family can't be trained in groups.
        OptionError: a choice that doesn't fit it, or packages are not installed.
    """
    device = device or config.compute.device
    template = template_of(config.asking.template, "pointwise")
    kinds: dict[str, Dtype] = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}
    options = LvlmOptions(
        revision=config.revision,
        device=device,
        dtype=kinds[config.compute.precision],
        visual_tokens=config.asking.visual_tokens,
    )
    backbone = load_backbone(config.checkpoint, options)
    if not agrees_with_plain(backbone):
        raise _untrainable(backbone)
    return Student(
        backbone,
        template,
        config.tune,
        precision="bf16" if backbone.dtype == torch.bfloat16 else "fp32",
        gradient_checkpointing=config.compute.gradient_checkpointing,
        seed=config.seed,
    )


def check_groups(backbone: Backbone, prompts: Sequence[Encoded]) -> None:
    """For a family that we have not tested: a group's states are those of whole prompts.

    Raises:
        ModelError: they are not.
    """
    if backbone.family.tested:
        return
    with torch.no_grad():
        whole = whole_states(backbone, prompts).float()
        group = group_states(backbone, prompts).float()
    if not float((whole - group).abs().max()) <= TOLERANCE * float(whole.abs().max()):
        raise _untrainable(backbone)


def _untrainable(backbone: Backbone) -> ModelError:
    return ModelError(
        f"{backbone.name}: models of the family {backbone.family.model_type} score otherwise in "
        "groups than one by one, so they can't be trained here",
        hint="`skylink models` lists families that can",
    )


def _with_lora(backbone: Backbone, tune: Tune, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise OptionError(
            f"LoRA needs packages that are not installed ({error})",
            hint=pip_hint("lvlm"),
        ) from error

    within = "|".join(TEXT_MODULES)
    ends = "|".join(re.escape(target) for target in tune.targets)
    wanted = rf"(?:.*\.)?(?:{within})\.(?:.*\.)?(?:{ends})"
    linear = [n for n, m in backbone.model.named_modules() if isinstance(m, torch.nn.Linear)]
    found = [name for name in linear if re.fullmatch(wanted, name)]
    missing = [t for t in tune.targets if not any(name.endswith(t) for name in found)]
    if missing:
        inside = [name for name in linear if re.search(rf"(?:^|\.)(?:{within})\.", name)]
        known = sorted({name.rsplit(".", 1)[-1] for name in inside})
        raise OptionError(
            f"{backbone.name}: its language model has no linear layer {missing[0]!r}",
            hint=f"tune.targets: choose among {', '.join(known)}",
        )
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of what transformers will rename
        torch.manual_seed(seed)
        return get_peft_model(
            backbone.model,
            LoraConfig(
                r=tune.r, lora_alpha=tune.alpha, lora_dropout=tune.dropout, target_modules=wanted
            ),
        )


def _text_model(backbone: Backbone) -> torch.nn.Module:
    for name in TEXT_MODULES:
        if hasattr(backbone.inner, name):
            module: torch.nn.Module = getattr(backbone.inner, name)
            return module
    raise _untrainable(backbone)
