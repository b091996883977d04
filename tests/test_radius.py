"""Radii of a mixture: by hand where it is simple, by properties elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.radius import Mixture


def mixture(**changes: Any) -> Mixture:
    values: dict[str, Any] = {
        "confidence": 1.0, "local_m": 15.0, "away_m": np.empty(0), "weights": np.empty(0),
        "listed": 0.5, "extent_m": 1000.0,
    }  # fmt: skip
    return Mixture(**(values | changes))


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    n = draw(st.integers(0, 6))
    away = np.array(draw(st.lists(st.floats(60, 5000), min_size=n, max_size=n)), float)
    parts = np.array(draw(st.lists(st.floats(0.01, 1), min_size=n, max_size=n)), float)
    return Mixture(
        confidence=draw(st.floats(0, 1)),
        local_m=draw(st.floats(1, 300)),
        away_m=away,
        weights=parts / parts.sum() if n else parts,
        listed=draw(st.floats(0, 1)),
        extent_m=draw(st.floats(60, 20_000)),
    )


def test_a_sure_place_has_the_radii_of_its_local_error() -> None:
    sure = mixture()
    assert sure.radius_m(0.5) == pytest.approx(15)
    assert sure.radius_m(0.9) == pytest.approx(15 * math.sqrt(math.log(10) / math.log(2)))


def test_a_guess_needs_the_map() -> None:
    """Nothing is known: half of a disc's area lies within its radius / sqrt(2)."""
    guess = mixture(confidence=0.0)
    assert guess.radius_m(0.5) == pytest.approx(1000 / math.sqrt(2), rel=1e-4)
    assert guess.radius_m(0.9) == pytest.approx(1000 * math.sqrt(0.9), rel=1e-4)


def test_another_candidate_holds_what_is_missing() -> None:
    """0.4 here; of the 0.6 elsewhere all at 300 m: half is reached there, whatever the map."""
    two = mixture(confidence=0.4, away_m=np.array([300.0]), weights=np.array([1.0]), listed=1.0)
    assert two.radius_m(0.5) == pytest.approx(300, rel=1e-4)
    assert two.radius_m(0.3) < 30


def test_a_share_above_the_confidence_makes_the_radius_large() -> None:
    for confidence in (0.6, 0.8):
        some = mixture(confidence=confidence)
        assert some.radius_m(confidence - 0.2) < 40
        assert some.radius_m(confidence + 0.1) > 300


@given(mixtures(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_radius_grows_with_the_share(made: Mixture, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert made.radius_m(low) <= made.radius_m(high) * (1 + 1e-5)


@given(mixtures(), st.floats(0, 30_000), st.floats(0, 30_000))
def test_the_mass_grows_with_the_radius(made: Mixture, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert 0 <= made.within(low) <= made.within(high) + 1e-12 <= 1 + 1e-9


@given(mixtures(), st.floats(0.05, 0.95))
def test_the_radius_holds_its_share(made: Mixture, share: float) -> None:
    radius = made.radius_m(share)
    assert math.isfinite(radius)
    limit = max(made.extent_m, float(made.away_m.max(initial=0.0)))
    if radius < limit:
        assert made.within(radius * (1 + 1e-4)) >= share - 1e-6


@given(mixtures(), st.floats(0.05, 0.95), st.floats(0, 1))
def test_the_radius_falls_with_confidence(made: Mixture, share: float, other: float) -> None:
    """Where the local error is small beside everything else."""
    low, high = sorted((made.confidence, other))
    parts = {"local_m": 1.0, "away_m": made.away_m, "weights": made.weights,
             "listed": made.listed, "extent_m": made.extent_m}  # fmt: skip
    sure, unsure = (mixture(confidence=c, **parts).radius_m(share) for c in (high, low))
    assert sure <= unsure * (1 + 1e-5)


def test_drawn_places_lie_within_as_often_as_they_should() -> None:
    """By simulation: places drawn from the mixture, 20,000 times."""
    rng = np.random.default_rng(3)
    away, weights = np.array([200.0, 700.0]), np.array([0.7, 0.3])
    made = mixture(confidence=0.7, away_m=away, weights=weights, listed=0.6)
    n = 20_000
    local = 15 / math.sqrt(2 * math.log(2)) * np.hypot(*rng.standard_normal((2, n)))
    anywhere = 1000 * np.sqrt(rng.random(n))
    other = rng.choice(away, n, p=weights)
    wrong = np.where(rng.random(n) < 0.6, other, anywhere)
    found = np.where(rng.random(n) < 0.7, local, wrong)
    for share in (0.3, 0.6, 0.95):
        assert np.mean(found <= made.radius_m(share)) == pytest.approx(share, abs=0.012)
