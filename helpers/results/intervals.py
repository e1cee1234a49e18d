"""Means, shares and rank correlations with their 95 % intervals, over independent units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm, sem, spearmanr, t
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


def mean_and_interval(values: Iterable[float]) -> Interval:
    """Mean of the finite values, with Student's interval.

    Args:
        values: NaN and infinity are left out. One value alone has no interval: NaN.

    Raises:
        ValueError: no finite value.
    """
    numbers = np.asarray(list(values), dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        raise ValueError("a mean needs at least one finite value.")
    if len(numbers) == 1:
        return Interval(float(numbers[0]), float("nan"), float("nan"))
    return student_interval(numbers)


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


def rank_correlation(a: Iterable[float], b: Iterable[float]) -> Interval:
    """Spearman's correlation over independent pairs, with Bonett and Wright's (2000) interval.

    That is Fisher's transform with the standard error √((1 + ρ²/2)/(n − 3)). NaN if one of the two
    does not vary or there are fewer than four pairs.
    """
    a, b = np.asarray(list(a), dtype=float), np.asarray(list(b), dtype=float)
    if np.ptp(a) == 0 or np.ptp(b) == 0 or len(a) < 4:
        return Interval(float("nan"), float("nan"), float("nan"))
    rho = float(spearmanr(a, b).statistic)
    reach = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return Interval(rho, float(np.tanh(centre - reach)), float(np.tanh(centre + reach)))
