"""Losses by name, with parameters of their own. `losses.py` has the equations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, partial

import torch
from torch import Tensor

from skylink import losses
from skylink.errors import OptionError
from skylink.losses import checked, has_candidate, has_order, has_positive, has_two_gaps


@dataclass(frozen=True)
class Loss:
    """A loss by its name, with its parameters.

    Attributes:
        name: as in `LOSSES`.
        function: the loss; see `losses.py` for its tensors.
        informative: of checked labels and mask, (B,) bool: which lists teach it something.
        params: what differs from the function's defaults.
    """

    name: str
    function: Callable[..., Tensor]
    informative: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    params: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def defaults(self) -> dict[str, float]:
        """All parameters and their values."""
        known = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY} | dict(self.params)

    def __call__(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss, a scalar; see `losses.py`."""
        return partial(self.function, **self.params)(scores, labels, mask)

    def usable(self, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B,) bool: which lists of (B, K) labels the loss can learn from; others it leaves out."""
        _, w, real = checked(torch.zeros(labels.shape, device=labels.device), labels, mask, 1.0)
        return self.informative(w, real)


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("relational", losses.relational_cross_entropy, has_positive),
        Loss("hard", losses.hard_cross_entropy, has_positive),
        Loss("binary", losses.binary_cross_entropy, has_candidate),
        Loss("symmetric-kl", losses.symmetric_kl, has_positive),
        Loss("ranknet", losses.ranknet, has_order),
        Loss("listnet", losses.listnet, has_positive),
        Loss("plackett-luce", losses.plackett_luce, has_order),
        Loss("plackett-luce-first", losses.plackett_luce_first, has_order),
        Loss("plackett-luce-second", losses.plackett_luce_second, has_two_gaps),
    )
}
"""Every loss by name, with its defaults."""


def make_loss(name: str, **params: float) -> Loss:
    """A loss by name, with parameters of its own.

    Raises:
        OptionError: there is no such loss, it has no such parameter, or the value can't be used.
    """
    if name not in LOSSES:
        raise OptionError(f"unknown loss {name!r}", hint=_nearest(name, LOSSES))
    loss = LOSSES[name]
    for param, value in params.items():
        if param not in loss.defaults:
            hint = _nearest(param, loss.defaults)
            raise OptionError(f"the loss {name} has no parameter {param!r}", hint=hint)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OptionError(f"{param} = {value!r} of the loss {name} is not a number")
    made = replace(loss, params=dict(params))
    # values are checked where they are used: once here, so that a typo does not wait for a batch
    made(torch.zeros(1, 3), torch.tensor([[1.0, 0.4, 0.0]]))
    return made


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
