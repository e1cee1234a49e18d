"""Means, shares and rank correlations with their 95 % intervals, over independent units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm, sem, spearmanr, t
from torch import Tensor

from helpers.models.checks import checked, real


def numbers(name: str, values: Any, least: int = 1, *, finite: bool = True) -> np.ndarray:
    """Numbers of any shape, at least so many of them, in one row.

    Raises:
        TypeError: something that is no number.
        ValueError: too few; NaN or infinity, unless these are allowed.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        found = np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be numbers: {error}.") from None
    if len(found) < least:
        raise ValueError(f"{name} has {len(found)} numbers and needs at least {least}.")
    if finite and not np.isfinite(found).all():
        raise ValueError(f"{name} has NaN or infinity in it, of which nothing can be said.")
    return found


@checked
def hits_of(name: str, values: Iterable[Any]) -> np.ndarray:
    """Whether each trial is a hit. NaN and shares are no answer, though Python calls them true.

    Raises:
        TypeError: anything but True and False, or 1 and 0.
        ValueError: no trial.
    """
    found = [value.item() if hasattr(value, "item") else value for value in values]
    if wrong := [value for value in found if isinstance(value, str) or value not in (0, 1)]:
        raise TypeError(f"{name} must be True or False, and {wrong[0]!r} is neither.")
    if not found:
        raise ValueError(f"{name}: a share needs at least one trial.")
    return np.asarray(found, dtype=bool)


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
        ValueError: fewer than two values, or a confidence that is not between 0 and 1.

    Example:
        >>> print(f"{student_interval([0.2, 0.4, 0.9, 1.3]):.2f}")
        0.70 [-0.09, 1.49]
    """
    values = numbers("values", values, 2, finite=False)
    if not 0 < real("confidence", confidence) < 1:
        raise ValueError(f"confidence = {confidence} must lie between 0 and 1.")
    mean = float(values.mean())
    reach = float(sem(values) * t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean, mean - reach, mean + reach)


@checked
def mean_and_interval(values: Iterable[float]) -> Interval:
    """Mean of the finite values, with Student's interval.

    Args:
        values: NaN and infinity are left out. One value alone has no interval: NaN.

    Raises:
        ValueError: no finite value.
    """
    found = numbers("values", [*values], finite=False)
    found = found[np.isfinite(found)]
    if not len(found):
        raise ValueError("a mean needs at least one finite value.")
    if len(found) == 1:
        return Interval(float(found[0]), float("nan"), float("nan"))
    return student_interval(found)


def share_and_interval(hits: Iterable[bool]) -> Interval:
    """Share of hits with Wilson's interval, which holds for few trials and near 0 and 100 %.

    Raises:
        TypeError, ValueError: as :func:`hits_of`.

    Example:
        Ten hits out of ten still leave room for misses:

        >>> print(f"{share_and_interval([True] * 10):.0%}")
        100% [72%, 100%]
    """
    hits = hits_of("hits", hits)
    n, found = len(hits), int(hits.sum())
    interval = binomtest(found, n).proportion_ci(method="wilson")
    return Interval(found / n, float(interval.low), float(interval.high))


@checked
def rank_correlation(a: Iterable[float], b: Iterable[float]) -> Interval:
    """Spearman's correlation over independent pairs, with Bonett and Wright's (2000) interval.

    That is Fisher's transform with the standard error √((1 + ρ²/2)/(n − 3)). NaN if one of the two
    does not vary or there are fewer than four pairs.

    Raises:
        ValueError: lists of different lengths.
    """
    a, b = (numbers("values", [*values], 0, finite=False) for values in (a, b))
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs.")
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    rho = float(spearmanr(a, b).statistic)
    reach = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return Interval(rho, float(np.tanh(centre - reach)), float(np.tanh(centre + reach)))
