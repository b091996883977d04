"""Losses that teach a re-ranker to order candidate lists: pure functions of tensors.

Every loss takes the same three tensors and gives a scalar:

    input    shape    type                       meaning
    scores   (B, K)   float, any precision       the model's scores, higher is better, any range
    labels   (B, K)   float or bool, 0..1        relevance: 1 the ground truth, 0 not relevant
    mask     (B, K)   bool, or None              True where there is a candidate; None: everywhere

In the equations s are the scores, w the labels, q = softmax(s / T) and sums run over the real
candidates of one list. The result is the mean over lists, computed in float32 at least. Padded
candidates may hold anything, NaN too: they change nothing and get a gradient of exactly zero.

A list that can teach a loss nothing (no positive, one candidate, all padding; each loss says what
it needs) is left out of the mean; `loss_registry.Loss.usable` says which, so that they can be
counted. A batch of nothing else is refused.

Raises, all of them:
    ValueError: shapes or types don't fit each other.
    ModelError: a score is NaN, infinite or beyond `MAX_SCORE`.
    QueriesError: a label is not in 0..1, or no list of the batch is usable.
    OptionError: a temperature or weight can't be used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, logsigmoid

from skylink.errors import ModelError, OptionError, QueriesError

MAX_SCORE = 1e30
"""Of s / T; beyond it differences of scores overflow."""

TIED = 1e-6
"""Differences of labels that are closer than this are one: float32 labels know no better."""


def relational_cross_entropy(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Soft cross-entropy with relational labels.

    | input  | meaning here                                                       |
    | scores | logits of a softmax over the list                                  |
    | labels | w: 1 for the ground truth, similarity to it above a threshold or 0 |

    Equation: L = - sum p log q with p = w / sum(w). Its minimum is the entropy of p. Usable: a
    positive and two candidates.

    Source: SkyLink (arXiv 2603.08063), whose code is not public: the equation is a reconstruction.
    Labels thresholded at 1 make it `hard_cross_entropy`.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    return _mean(_cross_entropy(s, w, real), has_positive(w, real))


def hard_cross_entropy(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy with one positive: the contrastive loss without soft labels.

    | input  | meaning here                                                            |
    | scores | logits of a softmax over the list                                       |
    | labels | only where the largest is; candidates that tie for it share it equally, |
    |        | so that their order does not matter                                     |

    Equation: L = - log q_g with g = argmax w. Usable: a positive and two candidates.

    Source: InfoNCE (arXiv 1807.03748).
    """
    s, w, real = checked(scores, labels, mask, temperature)
    best = real & (w == w.amax(1, keepdim=True))
    return _mean(_cross_entropy(s, best.to(w.dtype), real), has_positive(w, real))


def binary_cross_entropy(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Every candidate on its own, with soft targets; the scores become probabilities.

    | input  | meaning here                                        |
    | scores | logits: sigmoid(s / T) is the chance of being right |
    | labels | that chance                                         |

    Equation: L = - mean(w log sigmoid(s / T) + (1 - w) log sigmoid(-s / T)). Unlike the losses of
    lists it is not blind to a shift of all scores. Usable: any candidate, positive or not.

    Source: pointwise learning to rank; sentence-transformers' BinaryCrossEntropyLoss.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    each = torch.where(real, binary_cross_entropy_with_logits(s, w, reduction="none"), 0)
    return _mean(each.sum(1) / real.sum(1).clamp_min(1), has_candidate(w, real))


def symmetric_kl(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    label_temperature: float = 0.1,
) -> Tensor:
    """Symmetric divergence between the scores' and the labels' distributions.

    | input  | meaning here                                                         |
    | scores | logits of q                                                          |
    | labels | soft-maxed, for KL(q || p) needs a p that is nowhere zero; 0.1 makes |
    |        | a label of 0.5 weigh e^-5 of the ground truth                        |

    Equation: L = (KL(p || q) + KL(q || p)) / 2 = sum (p - q)(log p - log q) / 2 with
    p = softmax(w / label_temperature). Its minimum is 0. Usable: a positive and two candidates.

    Source: UniME-V2 (arXiv 2510.13515), whose code has 0.1 for both temperatures.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    log_q = _log_softmax(s, real)
    log_p = _log_softmax(w / _positive("label_temperature", label_temperature), real)
    gap = torch.where(real, log_p, 0) - torch.where(real, log_q, 0)
    return _mean(((log_p.exp() - log_q.exp()) * gap).sum(1) / 2, has_positive(w, real))


def ranknet(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Every pair in the right order.

    | input  | meaning here                                            |
    | scores | their differences are log-odds of one before the other  |
    | labels | only their order counts; ties ask for nothing           |

    Equation: L = mean over pairs with w_i > w_j of log(1 + exp(-(s_i - s_j) / T)). Usable: two
    candidates with different labels.

    Source: Burges et al., Learning to Rank using Gradient Descent, ICML 2005.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    lead, ahead, pairs = _pairs(s, w, real)
    each = torch.where(pairs & (ahead > 0), -logsigmoid(lead), 0)
    return _mean(each.sum(1) / (pairs & (ahead > 0)).sum(1).clamp_min(1), has_order(w, real))


def listnet(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """ListNet's top-one cross-entropy with labels that are normalised, not soft-maxed.

    | input  | meaning here                                                           |
    | scores | logits of a softmax over the list                                      |
    | labels | already on a ratio scale: a softmax of 0..1 would be nearly flat (at   |
    |        | K = 10 the ground truth would get 0.23 and each other candidate 0.085) |

    Equation: L = - sum p log q with p = w / sum(w), to the letter the paper's relational loss: the
    name is there for tables that compare with ListNet. Usable: a positive and two candidates.

    Source: Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, ICML 2007.
    """
    return relational_cross_entropy(scores, labels, mask, temperature=temperature)


def plackett_luce_first(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Likelihood of the whole order: the best is chosen among all, the next among the rest, ...

    | input  | meaning here                                                                |
    | scores | log-strengths in a Plackett-Luce model                                      |
    | labels | only their order counts. Ties don't compete: a candidate is chosen among    |
    |        | itself and those strictly below, so that the order of equals does not matter|

    Equation: L = - mean over i of log(e^(s_i / T) / (e^(s_i / T) + sum over w_j < w_i of
    e^(s_j / T))), the mean over candidates that have one below them. Usable: two candidates with
    different labels.

    Source: GeoRanker (arXiv 2505.13731), first order. Its code orders by distance, takes exp(s) as
    it is, which overflows, counts the last candidate's zero in the mean, and by default keeps the
    first choice alone.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    loss, found = _plackett_luce(s, w, real)
    return _mean(loss, found)


def plackett_luce_second(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """The same likelihood for the order of gaps: larger gaps of labels get larger gaps of scores.

    | input  | meaning here                                                                 |
    | scores | s_i - s_j is the log-strength of the pair (i, j)                             |
    | labels | w_i - w_j > 0 orders the pairs; those within `TIED` are tied. Hard labels    |
    |        | have one gap only and teach nothing                                          |

    Equation: `plackett_luce_first` of the pairs with w_i > w_j. Usable: two different gaps, so at
    least three candidates.

    Source: GeoRanker (arXiv 2505.13731), second order.
    """
    s, w, real = checked(scores, labels, mask, temperature)
    return _mean(*_second_order(s, w, real))


def plackett_luce(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    first: float = 0.7,
    second: float = 0.3,
) -> Tensor:
    """Both orders together.

    | input  | meaning here                                                           |
    | scores | as in both                                                             |
    | labels | as in both; a list with one gap only has nothing of second order (0)   |

    Equation: L = first L1 + second L2, list by list. Usable: two candidates with different labels.

    Source: GeoRanker (arXiv 2505.13731); 0.7 and 0.3 are its weights.
    """
    for name, weight in (("first", first), ("second", second)):
        if not (math.isfinite(weight) and weight >= 0):
            raise OptionError(f"{name} = {weight!r} is not a weight", hint="0 or more")
    if first == second == 0:
        raise OptionError("first and second are both 0: there is no loss", hint="0.7 and 0.3")
    s, w, real = checked(scores, labels, mask, temperature)
    one, found = _plackett_luce(s, w, real)
    return _mean(first * one + second * _second_order(s, w, real)[0], found)


def checked(
    scores: Tensor, labels: Tensor, mask: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(s / T, w, which are real), float32 or float64; zeros where there is padding.

    Raises as the module says.
    """
    if scores.ndim != 2 or scores.numel() == 0 or labels.shape != scores.shape:
        raise ValueError(f"scores {tuple(scores.shape)}, labels {tuple(labels.shape)}: not (B, K)")
    if not scores.is_floating_point() or labels.is_complex():
        raise ValueError(f"scores are {scores.dtype} and labels {labels.dtype}, not float")
    real = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    if real.dtype != torch.bool or real.shape != scores.shape:
        raise ValueError(f"the mask is {real.dtype} {tuple(real.shape)}, not bool like the scores")
    exact = scores if scores.dtype == torch.float64 else scores.float()
    s = torch.where(real, exact, 0) / _positive("temperature", temperature)
    wild = ~(s.abs() <= MAX_SCORE).all(1)  # True for NaN
    if wild.any():
        lists = wild.nonzero().flatten().tolist()
        raise ModelError(
            f"scores of the lists {lists[:5]} of this batch are NaN, infinite or overflow",
            hint="lower the learning rate, or train in bfloat16 or float32 instead of float16",
        )
    w = torch.where(real, labels.detach().to(s.dtype), 0)
    wrong = ~((w >= 0) & (w <= 1)).all(1)
    if wrong.any():
        lists = wrong.nonzero().flatten().tolist()
        raise QueriesError(f"labels of the lists {lists[:5]} of this batch are not in 0..1")
    return s, w, real


def _positive(name: str, value: float) -> float:
    if not 1e-6 <= value <= 1e6:
        raise OptionError(f"{name} = {value!r} is not in 1e-6..1e6", hint=f"{name} = 1.0")
    return value


def _mean(losses: Tensor, usable: Tensor) -> Tensor:
    """Mean of (B,) over the usable lists."""
    if not usable.any():
        raise QueriesError(
            f"none of the {len(usable)} lists of this batch can teach this loss anything",
            hint="its lists have no positive, one candidate or equal labels: see `Loss.usable`",
        )
    return torch.where(usable, losses, 0).sum() / usable.sum()


def _log_softmax(s: Tensor, real: Tensor) -> Tensor:
    # the least number rather than -inf: a list of nothing but padding must not give NaN gradients
    return log_softmax(s.masked_fill(~real, torch.finfo(s.dtype).min), dim=1)


def _cross_entropy(s: Tensor, w: Tensor, real: Tensor) -> Tensor:
    p = w / w.sum(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    return -(p * torch.where(real, _log_softmax(s, real), 0)).sum(1)


def _pairs(s: Tensor, w: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K * K) each: s_i - s_j, w_i - w_j, whether i and j are both real."""
    lead, ahead = s[:, :, None] - s[:, None, :], w[:, :, None] - w[:, None, :]
    return lead.flatten(1), ahead.flatten(1), (real[:, :, None] & real[:, None, :]).flatten(1)


def _plackett_luce(s: Tensor, w: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean over the choices, (B,) whether there is any; O(K log K)."""
    # padding goes to the end, behind the best, where no sum of the strictly worse reaches it
    order = torch.where(real, w, torch.inf).argsort(dim=1, stable=True)
    s, w, real = s.gather(1, order), w.gather(1, order), real.gather(1, order)
    w = torch.where(real, w, torch.inf).contiguous()
    below = torch.searchsorted(w, w)  # how many are strictly worse
    worse = torch.logcumsumexp(s, dim=1).gather(1, (below - 1).clamp_min(0))
    chosen = real & (below > 0)
    each = torch.where(chosen, -logsigmoid(s - worse), 0)
    return each.sum(1) / chosen.sum(1).clamp_min(1), chosen.any(1)


def _second_order(s: Tensor, w: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    lead, ahead, pairs = _pairs(s, w, real)
    gap = (ahead / TIED).round()
    kept = pairs & (gap > 0)
    return _plackett_luce(torch.where(kept, lead, 0), gap, kept)


def has_candidate(w: Tensor, real: Tensor) -> Tensor:
    """(B,) bool of checked labels and mask: the list is not all padding."""
    return real.any(1)


def has_positive(w: Tensor, real: Tensor) -> Tensor:
    """(B,) bool of checked labels and mask: a positive, and two candidates."""
    return (real.sum(1) >= 2) & (real & (w > 0)).any(1)


def has_order(w: Tensor, real: Tensor) -> Tensor:
    """(B,) bool of checked labels and mask: two different labels."""
    return _plackett_luce(torch.zeros_like(w), w, real)[1]


def has_two_gaps(w: Tensor, real: Tensor) -> Tensor:
    """(B,) bool of checked labels and mask: two different gaps between labels."""
    return _second_order(torch.zeros_like(w), w, real)[1]
