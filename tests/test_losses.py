"""Losses against naive loops, by gradcheck, at extremes, under masks, and by their identities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skylink.errors import ModelError, QueriesError
from skylink.loss_registry import LOSSES, make_loss

NAMES = sorted(LOSSES)
LISTS = [name for name in NAMES if name != "binary"]
CROSS_ENTROPIES = ["relational", "listnet"]

scores_of = st.lists(st.floats(-5, 5), min_size=6, max_size=6)
# few values, so that ties are common; the first candidate is the ground truth
labels_of = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.6, 1.0]), min_size=5, max_size=5)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(v - top) for v in values]
    return [weight / sum(weights) for weight in weights]


def naive_cross_entropy(s: list[float], w: list[float]) -> float:
    return -sum(wi / sum(w) * math.log(qi) for wi, qi in zip(w, softmax(s), strict=True))


def naive_hard(s: list[float], w: list[float]) -> float:
    return naive_cross_entropy(s, [float(v == max(w)) for v in w])


def naive_binary(s: list[float], w: list[float]) -> float:
    total = 0.0
    for si, wi in zip(s, w, strict=True):
        chance = 1 / (1 + math.exp(-si))
        total -= wi * math.log(chance) + (1 - wi) * math.log(1 - chance)
    return total / len(s)


def naive_symmetric_kl(s: list[float], w: list[float]) -> float:
    p, q = softmax([v / 0.1 for v in w]), softmax(s)
    forward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    backward = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return (forward + backward) / 2


def naive_ranknet(s: list[float], w: list[float]) -> float:
    k = range(len(s))
    each = [math.log1p(math.exp(s[j] - s[i])) for i in k for j in k if w[i] > w[j]]
    return sum(each) / len(each)


def naive_plackett_luce(s: list[float], w: list[float]) -> float | None:
    each = []
    for si, wi in zip(s, w, strict=True):
        worse = [math.exp(sj) for sj, wj in zip(s, w, strict=True) if wj < wi]
        if worse:
            each.append(-math.log(math.exp(si) / (math.exp(si) + sum(worse))))
    return sum(each) / len(each) if each else None


def naive_second(s: list[float], w: list[float]) -> float | None:
    k = range(len(s))
    pairs = [(s[i] - s[j], round(w[i] - w[j], 6)) for i in k for j in k if w[i] > w[j]]
    return naive_plackett_luce([a for a, _ in pairs], [b for _, b in pairs])


def naive_both(s: list[float], w: list[float]) -> float:
    first = naive_plackett_luce(s, w)
    assert first is not None
    return 0.7 * first + 0.3 * (naive_second(s, w) or 0.0)


NAIVE = {
    "relational": naive_cross_entropy,
    "listnet": naive_cross_entropy,
    "hard": naive_hard,
    "binary": naive_binary,
    "symmetric-kl": naive_symmetric_kl,
    "ranknet": naive_ranknet,
    "plackett-luce": naive_both,
    "plackett-luce-first": naive_plackett_luce,
    "plackett-luce-second": naive_second,
}


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and a mask with padding in the middle and at the end; 3 lists of 6."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 6, generator=generator, dtype=dtype) * 2
    labels = torch.tensor(
        [[1, 0.7, 0.2, 0, 0, 0], [0, 0.31, 1, 0.31, 0.9, 0], [0.05, 1, 0.6, 0.35, 0, 0.5]]
    )
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 4:] = False
    mask[1, 0] = False
    return scores.requires_grad_(), labels.to(dtype), mask


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(s=scores_of, rest=labels_of, temperature=st.sampled_from([0.5, 1.0, 3.0]))
def test_equals_a_naive_loop(name, s, rest, temperature) -> None:
    w = [1.0, *rest]
    loss = make_loss(name, temperature=temperature)
    scores, labels = torch.tensor([s], dtype=torch.float64), torch.tensor([w])
    if not loss.usable(labels).all():
        with pytest.raises(QueriesError, match="none of the 1 lists"):
            loss(scores, labels)
        return
    expected = NAIVE[name]([v / temperature for v in s], w)
    assert loss(scores, labels).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_every_loss_has_its_oracle() -> None:
    assert sorted(NAIVE) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_gradcheck(name, temperature) -> None:
    scores, labels, mask = batch()
    loss = make_loss(name, temperature=temperature)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, mask), (scores,))
    (gradient,) = torch.autograd.grad(loss(scores, labels, mask), scores)
    assert gradient[mask].abs().max() > 1e-3, "a check of gradients that are all zero is none"


@pytest.mark.parametrize("name", NAMES)
def test_extreme_scores_stay_finite_and_right(name) -> None:
    loss = LOSSES[name]
    labels = torch.tensor([[1.0, 0.5, 0.0, 0.2]])
    for values in ([1e4, -1e4, 1e4, 0.0], [-1e4, 1e4, 5e3, -5e3], [1e4] * 4, [-1e4] * 4):
        scores = torch.tensor([values], requires_grad=True)
        result = loss(scores, labels)
        (gradient,) = torch.autograd.grad(result, scores)
        assert result.dtype == torch.float32
        assert gradient.isfinite().all()
        exact = scores.detach().double().requires_grad_()
        expected = loss(exact, labels.double())
        (exact_gradient,) = torch.autograd.grad(expected, exact)
        assert result.item() == pytest.approx(expected.item(), rel=1e-5, abs=2e-3)
        # float32 has steps of 1e-3 at 1e4
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype) -> None:
    scores, labels, mask = batch(dtype=torch.float32)
    half = scores.detach().to(dtype).requires_grad_()
    result = LOSSES[name](half, labels.to(dtype), mask)
    assert result.dtype == torch.float32
    same = LOSSES[name](half.detach().float(), labels.to(dtype).float(), mask)
    assert result.item() == pytest.approx(same.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(result, half)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", [0.0, 1e9, -1e9, math.nan, math.inf, -math.inf])
def test_padding_changes_nothing_and_gets_no_gradient(name, padding) -> None:
    scores, labels, mask = batch()
    padded = torch.where(mask, scores.detach(), padding).requires_grad_()
    odd = torch.where(mask, labels, torch.tensor(7.0, dtype=labels.dtype))
    result = LOSSES[name](padded, odd, mask)
    (gradient,) = torch.autograd.grad(result, padded)
    assert (gradient[~mask] == 0).all()
    alone = [
        LOSSES[name](scores[i, mask[i]][None], labels[i, mask[i]][None]).item() for i in range(3)
    ]
    assert result.item() == pytest.approx(sum(alone) / 3, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(order=st.permutations(range(6)), seed=st.integers(0, 99))
def test_the_order_of_candidates_does_not_matter(name, order, seed) -> None:
    scores, labels, mask = batch(seed)
    expected = LOSSES[name](scores, labels, mask)
    (gradient,) = torch.autograd.grad(expected, scores)
    moved = scores.detach()[:, order].requires_grad_()
    result = LOSSES[name](moved, labels[:, order], mask[:, order])
    (moved_gradient,) = torch.autograd.grad(result, moved)
    assert result.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(moved_gradient, gradient[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_blind_to_a_shift_of_scores_and_single_pairs_are_not(name) -> None:
    scores, labels, mask = batch()
    shifted = LOSSES[name](scores + torch.tensor([[100.0], [-7.0], [3.0]]), labels, mask)
    blind = shifted.item() == pytest.approx(LOSSES[name](scores, labels, mask).item(), rel=1e-9)
    assert blind == (name in LISTS)


@pytest.mark.parametrize("name", NAMES)
def test_temperature_divides_the_scores(name) -> None:
    scores, labels, mask = batch()
    warm = make_loss(name, temperature=2.5)(scores * 2.5, labels, mask)
    assert warm.item() == pytest.approx(LOSSES[name](scores, labels, mask).item(), rel=1e-9)


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@settings(deadline=None)
@given(s=scores_of, similar=st.lists(st.floats(0, 0.99), min_size=5, max_size=5))
def test_labels_thresholded_at_one_make_soft_equal_hard(name, s, similar) -> None:
    scores = torch.tensor([s], dtype=torch.float64)
    labels = torch.tensor([[1.0, *similar]], dtype=torch.float64)
    thresholded = torch.where(labels >= 1, labels, 0)
    hard = LOSSES["hard"](scores, labels).item()
    assert LOSSES[name](scores, thresholded).item() == pytest.approx(hard, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@settings(deadline=None)
@given(s=scores_of, similar=st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_the_least_soft_cross_entropy_is_the_entropy_of_the_labels(name, s, similar) -> None:
    labels = torch.tensor([[1.0, *similar]], dtype=torch.float64)
    p = labels / labels.sum()
    entropy = -(p * p.log()).sum().item()
    best = (3.0 * p.log() + 5.0).requires_grad_()
    loss = make_loss(name, temperature=3.0)
    assert loss(best, labels).item() == pytest.approx(entropy, rel=1e-9)
    (gradient,) = torch.autograd.grad(loss(best, labels), best)
    assert gradient.abs().max() < 1e-9
    assert loss(torch.tensor([s], dtype=torch.float64), labels).item() >= entropy - 1e-9


def test_symmetric_kl_is_zero_only_where_the_distributions_agree() -> None:
    labels = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    assert LOSSES["symmetric-kl"](labels / 0.1 - 4, labels).item() == pytest.approx(0, abs=1e-12)
    assert LOSSES["symmetric-kl"](labels / 0.1 * 0.9, labels).item() > 1e-4


@pytest.mark.parametrize("name", ["hard", "ranknet", "plackett-luce-first"])
def test_a_perfect_order_with_a_growing_margin_goes_to_zero(name) -> None:
    labels = torch.tensor([[1.0, 0.75, 0.5, 0.25, 0.0]], dtype=torch.float64)
    values = [LOSSES[name](labels * margin, labels).item() for margin in (0, 4, 16, 64, 256)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-9
    assert values[0] > 0.5


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("hard", "plackett-luce-second")])
@settings(deadline=None)
@given(order=st.permutations(range(4)))
def test_among_all_orders_of_the_same_scores_the_right_one_is_best(name, order) -> None:
    labels = torch.tensor([[1.0, 0.6, 0.3, 0.0]], dtype=torch.float64)
    ranked = torch.tensor([[2.0, 1.1, 0.3, -1.0]], dtype=torch.float64)
    best, other = LOSSES[name](ranked, labels), LOSSES[name](ranked[:, order], labels)
    if order == [0, 1, 2, 3]:
        assert other.item() == best.item()
    else:
        assert other.item() > best.item() + 1e-3


def test_second_order_wants_larger_gaps_where_labels_have_them() -> None:
    labels = torch.tensor([[1.0, 0.9, 0.0]], dtype=torch.float64)
    loss = LOSSES["plackett-luce-second"]
    like_labels = torch.tensor([[3.0, 2.5, 0.0]], dtype=torch.float64)
    unlike = torch.tensor([[3.0, 0.5, 0.0]], dtype=torch.float64)  # same order, other gaps
    assert loss(like_labels, labels).item() < loss(unlike, labels).item()


def test_plackett_luce_without_ties_is_the_published_sum() -> None:
    scores = torch.tensor([[0.3, -1.2, 2.0, 0.7]], dtype=torch.float64)
    labels = torch.tensor([[0.2, 0.9, 0.4, 1.0]])
    s = scores[0, labels[0].argsort(descending=True)]
    steps = [torch.logsumexp(s[i:], 0) - s[i] for i in range(3)]
    expected = (sum(steps) / 3).item()
    assert LOSSES["plackett-luce-first"](scores, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_lists_that_teach_nothing_are_left_out_and_told(name) -> None:
    loss = LOSSES[name]
    scores, labels, mask = batch()
    nothing = torch.tensor(
        [
            [0, 0, 0, 0, 0, 0],  # no positive
            [1, 0.5, 0.2, 0, 0, 0],  # one candidate, by its mask
            [1, 0.5, 0.2, 0, 0, 0],  # all padding
        ],
        dtype=labels.dtype,
    )
    shown = torch.ones(3, 6, dtype=torch.bool)
    shown[1, 1:] = False
    shown[2] = False
    usable = loss.usable(nothing, shown).tolist()
    assert usable == ([True, True, False] if name == "binary" else [False] * 3)
    assert loss.usable(labels, mask).tolist() == [True] * 3
    both = torch.cat([scores.detach(), scores.detach() * 2]).requires_grad_()
    result = loss(both, torch.cat([labels, nothing]), torch.cat([mask, shown]))
    (gradient,) = torch.autograd.grad(result, both)
    assert gradient.isfinite().all()
    if name != "binary":
        assert result.item() == pytest.approx(loss(scores, labels, mask).item())
        assert (gradient[3:] == 0).all()
        with pytest.raises(QueriesError, match="none of the 3 lists"):
            loss(scores, nothing, shown)


def test_one_hot_labels_have_no_second_order_and_equals_ask_for_nothing() -> None:
    one_hot, equal = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    assert not LOSSES["plackett-luce-second"].usable(one_hot).any()
    for name in ("ranknet", "plackett-luce", "plackett-luce-first"):
        assert LOSSES[name].usable(one_hot).all()
        assert not LOSSES[name].usable(equal).any()


def test_tied_positives_share_the_hard_label() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0, 0.9]])
    each = -torch.log_softmax(scores, 1)[0, :2]
    assert LOSSES["hard"](scores, labels).item() == pytest.approx(each.mean().item())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
def test_scores_that_are_no_numbers_are_refused(name, value) -> None:
    scores, labels, mask = batch(dtype=torch.float32)
    broken = scores.detach().clone()
    broken[1, 3] = value
    with pytest.raises(ModelError, match=r"lists \[1\]"):
        LOSSES[name](broken, labels, mask)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_labels_out_of_range_are_refused(value) -> None:
    scores, labels, mask = batch()
    labels[2, 0] = value
    with pytest.raises(QueriesError, match=r"lists \[2\] .* 0\.\.1"):
        LOSSES["relational"](scores, labels, mask)


def test_tensors_that_do_not_fit_are_refused() -> None:
    scores, labels, mask = batch()
    loss = LOSSES["relational"]
    for arguments in (
        (scores[0], labels[0], None),
        (scores[:, :5], labels, None),
        (scores[:, :0], labels[:, :0], None),
        (scores.detach().long(), labels, None),
        (scores, labels, mask.float()),
        (scores, labels, mask[:, :5]),
    ):
        with pytest.raises(ValueError):
            loss(*arguments)
