"""Means, shares and rank correlations with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap, sem, spearmanr, t
from torch import Tensor


class Interval(NamedTuple):
    """An estimate and its 95 % interval.

    Example:
        >>> f"{Interval(0.51, 0.12, 0.88):+.2f}"
        '+0.51 [+0.12, +0.88]'
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if not self.is_finite:
            return "undefined"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    @property
    def is_finite(self) -> bool:
        """Whether all three are numbers; too few or equal values give none."""
        return bool(np.isfinite(self).all())


def mean_and_interval(values: Iterable[float], *, seed: int = 0) -> Interval:
    """Mean with a percentile bootstrap interval, for independent values.

    Args:
        values: NaN and infinity are left out. Equal values, or one alone, give an interval of width
            0, which says nothing about the population.
        seed: of the resampling.

    Raises:
        ValueError: no finite value.

    Example:
        >>> print(f"{mean_and_interval([0.2, 0.4, 0.9, 1.3]):.2f}")
        0.70 [0.30, 1.10]
    """
    numbers = np.asarray(list(values), dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        raise ValueError("a mean needs at least one finite value.")
    if np.ptp(numbers) == 0:
        return Interval(*[float(numbers.mean())] * 3)
    drawn = bootstrap((numbers,), np.mean, rng=np.random.default_rng(seed), method="percentile")
    return Interval(float(numbers.mean()), *map(float, drawn.confidence_interval))


def student_interval(values: ArrayLike | Tensor, confidence: float = 0.95) -> Interval:
    """Mean with Student's interval, for independent values.

    Args:
        values: of any shape, flattened.
        confidence: of the interval; for k of them together 1 − (1 − confidence)/k (Bonferroni).

    Raises:
        ValueError: fewer than two values.

    Example:
        >>> print(f"{student_interval([0.2, 0.4, 0.9, 1.3]):.2f}")
        0.70 [-0.09, 1.49]
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, not {len(values)}.")
    mean = float(values.mean())
    reach = float(sem(values) * t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean, mean - reach, mean + reach)


def share_and_interval(hits: Iterable[bool]) -> Interval:
    """Share of hits with Wilson's interval, which holds for few trials and near 0 and 100 %.

    Raises:
        ValueError: no trial.

    Example:
        Ten hits out of ten still leave room for misses:

        >>> print(f"{share_and_interval([True] * 10):.0%}")
        100% [72%, 100%]
    """
    hits = [bool(hit) for hit in hits]
    if not hits:
        raise ValueError("a share needs at least one trial.")
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return Interval(sum(hits) / len(hits), float(interval.low), float(interval.high))


def rank_correlation(
    a: Iterable[float], b: Iterable[float], *, seed: int = 0, draws: int = 999
) -> Interval:
    """Spearman's correlation with a percentile bootstrap interval over pairs.

    NaN if one of the two does not vary.
    """
    a, b = np.asarray(list(a), dtype=float), np.asarray(list(b), dtype=float)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(draws):
        rows = random.integers(len(a), size=len(a))
        if np.ptp(a[rows]) and np.ptp(b[rows]):  # otherwise there is no correlation
            resampled.append(spearmanr(a[rows], b[rows]).statistic)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(spearmanr(a, b).statistic), float(low), float(high))
