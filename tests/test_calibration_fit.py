"""Fitting confidence and radii to photos drawn from a model that is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from skylink.calibration_fit import (
    OFF_MAP,
    Sample,
    confidences,
    fit,
    left_out,
    quality,
    weighted_ece,
    weights,
)
from skylink.estimate import Signs
from skylink.metrics import expected_calibration_error

TRUE = {"bias": -4.0, "score": 30.0, "lead": 3.0}
SIGMA = 1 / math.sqrt(2 * math.log(2))


def drawn(n: int, *, seed: int = 0, elsewhere: int = 0) -> list[Sample]:
    """Photos whose estimate is right as often as TRUE says; local errors 1.5 times the expected."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(n + elsewhere):
        own = i < n
        score, lead = rng.uniform(0.05, 0.3), rng.uniform(0, 0.7)
        if not own:
            score, lead = rng.uniform(0.05, 0.12), rng.uniform(0, 0.2)
        logit = TRUE["bias"] + TRUE["score"] * score + TRUE["lead"] * lead
        right = own and rng.random() < 1 / (1 + math.exp(-logit))
        error = 1.5 * 10 * SIGMA * float(np.hypot(*rng.standard_normal(2)))
        others = rng.uniform(100, 900, 4)
        if own and not right:
            error = float(rng.uniform(100, 900))
            others[int(rng.integers(4))] = 20.0 if rng.random() < 0.5 else 500.0
        scores = np.sort(rng.uniform(0, score, 4))[::-1]
        signs = Signs(
            score=score, lead=lead, local_m=10.0,
            scores=scores, away_m=rng.uniform(100, 900, 4), extent_m=1000.0,
        )  # fmt: skip
        samples.append(
            Sample(signs=signs, own=own, error_m=error, others_m=others, group=f"town {i % 5}")
        )
    return samples


def test_the_model_behind_the_data_is_found() -> None:
    samples = drawn(4000)
    found = fit(samples)
    assert found.score == pytest.approx(TRUE["score"], rel=0.15)
    assert found.lead == pytest.approx(TRUE["lead"], rel=0.2)
    assert found.bias == pytest.approx(TRUE["bias"], abs=0.8)
    assert found.local == pytest.approx(1.5, rel=0.05)
    assert found.listed == pytest.approx(0.5, abs=0.07)
    held = quality(fresh := drawn(4000, seed=1), [found] * len(fresh))
    assert held.ece < 0.03
    assert held.within_50 is not None
    assert held.within_90 is not None
    assert 0.45 < held.within_50 < 0.6
    assert 0.85 < held.within_90 < 0.98


def test_photos_of_elsewhere_count_as_assumed() -> None:
    """A fifth, whether there are few or many of them."""
    for elsewhere in (30, 300):
        samples = drawn(200, elsewhere=elsewhere)
        weight = weights(samples)
        assert weight[200:].sum() / weight.sum() == pytest.approx(OFF_MAP)
        by = fit(samples)
        said = confidences(samples, [by] * len(samples))
        right = np.array([s.right for s in samples])
        assert np.average(said, weights=weight) == pytest.approx(
            np.average(right, weights=weight), abs=0.01
        )
    assert (weights(drawn(5)) == 1).all()


def test_nothing_that_fits_better_is_believed_less() -> None:
    """Data that say otherwise leave the sign out."""
    turned = [
        dataclasses.replace(s, signs=dataclasses.replace(s.signs, lead=-s.signs.lead))
        for s in drawn(500)
    ]
    assert fit(turned).lead == 0
    assert fit(turned).score > 0


def test_data_that_can_be_told_apart_give_finite_coefficients() -> None:
    samples = [
        dataclasses.replace(s, own=s.signs.score > 0.15, error_m=5.0) for s in drawn(60, seed=2)
    ]
    by = fit(samples)
    assert math.isfinite(by.bias)
    assert quality(samples, [by] * 60).auroc_map == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("own", [True, False])
def test_it_needs_both(own: bool) -> None:
    samples = [dataclasses.replace(s, own=own, error_m=1.0) for s in drawn(20)]
    with pytest.raises(ValueError, match="right and some"):
        fit(samples)


def test_each_group_is_judged_by_the_others() -> None:
    samples = drawn(100)
    by = left_out(samples)
    rest = [s for s in samples if s.group != samples[0].group]
    assert by[0] == fit(rest)
    assert len({c.bias for c in by}) == 5


def test_weights_of_one_leave_the_calibration_error_as_it_is() -> None:
    rng = np.random.default_rng(0)
    said, right = rng.random(200), rng.random(200) < 0.5
    assert weighted_ece(said, right, np.ones(200)) == pytest.approx(
        expected_calibration_error(said, right)
    )
