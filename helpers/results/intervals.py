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
        """Whether there is an estimate and an interval; too few or equal values give none."""
        return bool(np.isfinite(self).all())


def mean_and_interval(values: Iterable[float], *, seed: int = 0) -> Interval:
    """The mean, and a percentile bootstrap interval over the values, which are taken to be independent.

    Args:
        values: those that are not finite are left out. One value, or equal ones, give an interval without width: there is
            nothing to draw from, and its width says nothing of the truth.
        seed: of the draws.

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
    """Mean of independent values, and the ends of Student's interval for it.

    Args:
        values: of any shape; all of them count alike.
        confidence: of the interval; for k intervals that are to hold together, 1 − (1 − confidence)/k (Bonferroni).

    Raises:
        ValueError: fewer than two values, which have no spread.

    Example:
        >>> print(f"{student_interval([0.2, 0.4, 0.9, 1.3]):.2f}")
        0.70 [-0.09, 1.49]
    """
    values = np.asarray(
        values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float
    ).ravel()
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, not {len(values)}.")
    mean = float(values.mean())
    reach = float(sem(values) * t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean, mean - reach, mean + reach)


def share_and_interval(hits: Iterable[bool]) -> Interval:
    """The share of hits with Wilson's interval, which is honest about few trials and about 0 and 100 %.

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
    """Spearman's rank correlation, with a percentile bootstrap interval over pairs.

    Not a number where one of the two does not vary.
    """
    a, b = np.asarray(list(a), dtype=float), np.asarray(list(b), dtype=float)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    again = []
    for _ in range(draws):
        rows = random.integers(len(a), size=len(a))
        if np.ptp(a[rows]) and np.ptp(b[rows]):  # a draw of one value alone has no correlation
            again.append(spearmanr(a[rows], b[rows]).statistic)
    return Interval(
        float(spearmanr(a, b).statistic), *map(float, np.percentile(again, [2.5, 97.5]))
    )
