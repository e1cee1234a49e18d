"""Intervals hold the truth as often as they say, and say when there is nothing to draw from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from scipy import stats

from helpers.results.glue import glue_intervals
from helpers.results.intervals import (
    Interval,
    mean_and_interval,
    rank_correlation,
    share_and_interval,
    student_interval,
)
from tests.results.test_rules import BOOK, code_cells

pytestmark = pytest.mark.unit
REPEATS = 1500


def coverage(estimate, truth: float, draw, *, repeats: int = REPEATS) -> float:
    rng, held = default_rng(0), []
    for _ in range(repeats):
        _, low, high = estimate(*draw(rng))
        held.append(low <= truth <= high)
    return float(np.mean(held))


@pytest.mark.parametrize("n", [3, 5, 8, 16, 30])
@pytest.mark.slow
def test_intervals_of_means_hold_the_truth_as_often_as_they_say(n: int) -> None:
    held = coverage(mean_and_interval, 5.0, lambda rng: [rng.normal(5, 2, n)])
    # Over three standard errors; intervals of 90 or 99 % are seven or more away.
    assert held == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
def test_an_interval_of_another_level_would_be_found() -> None:
    for level in (0.90, 0.99):
        held = coverage(
            lambda v, p=level: student_interval(v, p), 0, lambda rng: [rng.normal(size=8)]
        )
        assert held == pytest.approx(level, abs=0.02) and abs(held - 0.95) > 0.02


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("n", [8, 30])
@pytest.mark.slow
def test_intervals_of_shares_hold_the_truth_about_as_often(n: int, share: float) -> None:
    held = coverage(share_and_interval, share, lambda rng: [rng.random(n) < share], repeats=1000)
    assert 0.91 < held < 0.985  # few values are possible, so it jumps with n


@pytest.mark.parametrize("n", [10, 30])
def test_intervals_of_rank_correlations_hold_the_truth_about_as_often(n: int) -> None:
    rho, r = 0.6, 2 * np.sin(np.pi * 0.6 / 6)  # Spearman's of a normal pair, and Pearson's

    def draw(rng):
        a = rng.normal(size=n)
        return a, r * a + (1 - r**2) ** 0.5 * rng.normal(size=n)

    assert 0.925 < coverage(rank_correlation, rho, draw, repeats=1000) < 0.98


def of_page() -> dict:
    """The functions of the chapter on shared features that jackknife the couplings' gain."""
    page, names = BOOK / "observable-propagation" / "shared-features.ipynb", {"np": np}
    names |= {"stats": stats, "how_judged": lambda *ids: None}
    for source in code_cells(page):
        if "def gain_over_constant(" in source or "def jackknifed(" in source:
            exec(source, names)
    return names


N_HEADS, N_PEOPLE, N_POINTS, CONSTANT = 60, 24, 6, 0.8


def readings(rng, slopes) -> torch.Tensor:
    """What heads read for two observables, [observable 1 head person point]: y = slope · x, where
    the slope differs from person to person, and noise; slopes come out as exact as the chapter's.
    """
    x = rng.normal(size=(N_HEADS, N_PEOPLE, N_POINTS))
    own = slopes[:, None, None] + 0.04 * rng.normal(size=(N_HEADS, N_PEOPLE, 1))
    y = own * x + 0.05 * rng.normal(size=x.shape)
    return torch.tensor(np.stack([x, y]))[:, None]


def covered(average) -> float:
    """How often the interval of the share of a constant's error that couplings save holds it."""
    rng, page = default_rng(1), of_page()
    C = rng.uniform(0.5, 1.1, N_HEADS)
    slopes = C + 0.15 * rng.normal(size=N_HEADS)
    page |= {"couplings": torch.tensor(C)[None], "cosines": torch.tensor(C)[None] / 2}
    if average is not None:
        page["gain_over_constant"] = lambda slope, C, constant: (
            1 - average(np.abs(slope - C), -1) / average(np.abs(slope - constant), -1)
        )
    truth = page["gain_over_constant"](slopes, C, CONSTANT)

    def estimate(values):
        return student_interval(page["jackknifed"](values, CONSTANT)[0])

    return coverage(estimate, truth, lambda rng: [readings(rng, slopes)], repeats=200)


def test_the_interval_of_what_couplings_save_holds_it_as_often_as_it_says() -> None:
    assert covered(None) == pytest.approx(0.95, abs=0.04)


def test_a_jackknife_of_medians_would_be_found() -> None:
    assert covered(np.median) < 0.85


def test_the_interval_is_students() -> None:
    reach = 4.302653 / 3**0.5  # t at 97.5 % with two degrees of freedom, times the standard error
    assert student_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert student_interval(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).value == 2.0
    assert student_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_missing_values_are_left_out_and_one_alone_has_no_interval() -> None:
    assert mean_and_interval([1.0, float("nan"), 3.0]) == student_interval([1.0, 3.0])
    alone = mean_and_interval([2.0])
    assert alone.value == 2.0 and not alone.is_finite


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
    a = default_rng(0).normal(size=30)
    assert rank_correlation(a, np.exp(3 * a)) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
    unrelated = rank_correlation(a, default_rng(1).normal(size=30))
    assert unrelated.low < 0 < unrelated.high
    assert not rank_correlation(a, np.ones(30)).is_finite
    assert not rank_correlation(a[:3], a[:3]).is_finite
    # Ranks 1 2 3 4 and 2 1 3 4: ρ = 0.8, with the standard error √((1 + 0.32)/1).
    found, reach = (
        rank_correlation([0.0, 0.2, 0.6, 1.0], [0.2, 0.0, 0.6, 1.0]),
        1.959964 * 1.32**0.5,
    )
    ends = [np.tanh(np.arctanh(0.8) + sign * reach) for sign in (-1, 1)]
    assert found == pytest.approx((0.8, *ends))


def test_an_interval_is_written_with_the_format_of_a_number() -> None:
    assert f"{Interval(0.5, -0.25, 1.0):+.2f}" == "+0.50 [-0.25, +1.00]"
    assert f"{Interval(float('nan'), 0.0, 1.0):.2f}" == "undefined"


def test_an_interval_is_kept_for_the_pages_with_its_two_ends(monkeypatch) -> None:
    kept = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.update({name: value}))
    glue_intervals(gain=Interval(0.5, np.float64(0.25), torch.tensor(1.0)))
    assert kept == {"gain": 0.5, "gain_low": 0.25, "gain_high": 1.0}
    assert set(map(type, kept.values())) == {float}
