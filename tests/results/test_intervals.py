"""Intervals hold the truth as often as they say, and say when there is nothing to draw from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from helpers.results.glue import glue_intervals
from helpers.results.intervals import (
    Interval,
    mean_and_interval,
    rank_correlation,
    share_and_interval,
    student_interval,
)

pytestmark = pytest.mark.unit


def test_a_mean_and_its_interval_are_scipys() -> None:
    values = np.random.default_rng(1).normal(size=12)
    options = {"rng": np.random.default_rng(3), "method": "percentile"}
    theirs = bootstrap((values,), np.mean, **options).confidence_interval
    expected = (values.mean(), theirs.low, theirs.high)
    assert mean_and_interval(values, seed=3) == pytest.approx(expected)


def test_intervals_of_means_hold_the_truth_about_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(0), []
    for _ in range(100):
        _, low, high = mean_and_interval(random.normal(size=20))
        held.append(low <= 0.0 <= high)
    assert 0.85 <= np.mean(held) < 1.0


def test_students_interval_covers_the_mean_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), []
    for _ in range(2000):
        _, low, high = student_interval(random.normal(5, 2, size=8), 0.9)
        held.append(low < 5 < high)
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_the_interval_is_students() -> None:
    reach = 4.302653 / 3**0.5  # t at 97.5 % with two degrees of freedom, times the standard error
    assert student_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert student_interval(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).value == 2.0
    assert student_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_equal_values_give_an_interval_without_width_and_missing_ones_are_left_out() -> None:
    assert mean_and_interval([2.0, float("nan"), 2.0]) == (2.0, 2.0, 2.0)


def test_a_share_of_all_or_none_still_has_width() -> None:
    assert share_and_interval([True] * 5) == pytest.approx((1.0, 0.5655, 1.0), abs=1e-3)
    assert share_and_interval([False] * 5).high == pytest.approx(1 - 0.5655, abs=1e-3)


@pytest.mark.parametrize(
    ("estimate", "values"),
    [(mean_and_interval, [float("nan")]), (share_and_interval, []), (student_interval, [1.0])],
)
def test_too_few_values_are_refused(estimate, values) -> None:
    with pytest.raises(ValueError, match="needs"):
        estimate(values)


def test_a_rank_correlation_sees_order_alone() -> None:
    a = np.random.default_rng(0).normal(size=30)
    assert rank_correlation(a, np.exp(3 * a)) == pytest.approx((1.0, 1.0, 1.0))
    unrelated = rank_correlation(a, np.random.default_rng(1).normal(size=30))
    assert unrelated.low < 0 < unrelated.high
    assert not rank_correlation(a, np.ones(30)).is_finite


def test_an_interval_is_written_with_the_format_of_a_number() -> None:
    assert f"{Interval(0.5, -0.25, 1.0):+.2f}" == "+0.50 [-0.25, +1.00]"
    assert f"{Interval(float('nan'), 0.0, 1.0):.2f}" == "undefined"


def test_an_interval_is_kept_for_the_pages_with_its_two_ends(monkeypatch) -> None:
    kept = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.update({name: value}))
    glue_intervals(gain=Interval(0.5, np.float64(0.25), torch.tensor(1.0)))
    assert kept == {"gain": 0.5, "gain_low": 0.25, "gain_high": 1.0}
    assert set(map(type, kept.values())) == {float}
