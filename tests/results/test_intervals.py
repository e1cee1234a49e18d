"""Intervals: they hold the truth as often as they say, and say so where there is nothing to draw from."""

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
    theirs = bootstrap(
        (values,), np.mean, rng=np.random.default_rng(3), method="percentile"
    ).confidence_interval
    assert mean_and_interval(values, seed=3) == pytest.approx(
        (values.mean(), theirs.low, theirs.high)
    )


def test_intervals_of_means_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = [
        low <= 0.0 <= high
        for _, low, high in (mean_and_interval(random.normal(size=20)) for _ in range(100))
    ]
    assert 0.85 <= np.mean(held) < 1.0


def test_equal_values_give_an_interval_without_width_and_missing_ones_are_left_out() -> None:
    assert mean_and_interval([2.0, float("nan"), 2.0]) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="at least one"):
        mean_and_interval([float("nan")])


def test_a_share_of_all_or_none_still_has_width() -> None:
    assert share_and_interval([True] * 5) == pytest.approx((1.0, 0.5655, 1.0), abs=1e-3)
    assert share_and_interval([False] * 5).high == pytest.approx(1 - 0.5655, abs=1e-3)
    with pytest.raises(ValueError, match="at least one"):
        share_and_interval([])


def test_a_rank_correlation_sees_order_alone() -> None:
    a = np.random.default_rng(0).normal(size=30)
    assert rank_correlation(a, np.exp(3 * a)) == pytest.approx((1.0, 1.0, 1.0))
    unrelated = rank_correlation(a, np.random.default_rng(1).normal(size=30))
    assert unrelated.low < 0 < unrelated.high
    assert not rank_correlation(a, np.ones(30)).is_finite


def test_an_interval_is_written_with_the_format_of_a_number() -> None:
    assert f"{Interval(0.5, -0.25, 1.0):+.2f}" == "+0.50 [-0.25, +1.00]"
    assert f"{Interval(0.5, 0.25, 1.0):.0%}" == "50% [25%, 100%]"
    assert f"{Interval(float('nan'), 0.0, 1.0):.2f}" == "undefined"


def test_an_interval_is_kept_for_the_pages_with_its_two_ends(monkeypatch) -> None:
    kept = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.update({name: value}))
    glue_intervals(gain=Interval(0.5, 0.25, 1.0))
    assert kept == {"gain": 0.5, "gain_low": 0.25, "gain_high": 1.0}


def test_the_interval_is_students():
    mean, low, high = student_interval([1.0, 2.0, 3.0])
    reach = (
        4.302653 * 1.0 / 3**0.5
    )  # t at 97.5 % with two degrees of freedom, times the standard error
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert student_interval(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))[0] == 2.0


def test_students_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [
        low < 5 < high
        for _, low, high in (student_interval(rng.normal(5, 2, size=8), 0.9) for _ in range(2000))
    ]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_to_student_values_that_do_not_vary_have_an_interval_of_no_width():
    assert student_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_to_student_one_value_has_no_interval():
    with pytest.raises(ValueError, match="two values or more, not 1"):
        student_interval([1.0])
