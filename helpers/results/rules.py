"""Rules by which claims are judged: conditions, what data say of them, and their power.

A rule is a list of conditions. The data meet a condition, fail it, or leave it open; its power is
the probability that the data meet it if the paper is right, simulated with the run's own spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, norm, sem, t

from helpers.models.checks import checked, real, whole
from helpers.results.intervals import hits_of, numbers

HOLDS, IN_PART, FAILS, UNDECIDED = "holds", "holds in part", "does not hold", "undecided"
VERDICTS = (HOLDS, IN_PART, FAILS, UNDECIDED)
ENOUGH = 0.8  # with less power, nothing can be said not to hold
SIMULATIONS = 500


class Condition(NamedTuple):
    """What the data say of one condition: met, not met, or None (open); and its power."""

    met: bool | None
    power: float


class Judged(NamedTuple):
    """A verdict, one of ``VERDICTS``, and the power of its rule."""

    verdict: str
    power: float


@checked
def judge(conditions: Sequence[Condition]) -> Judged:
    """All conditions met: holds. Some: in part. None, and all failed with power: does not hold.

    The power is the product of the conditions', as if they were independent.

    Raises:
        TypeError, ValueError: no condition, or a power that is no probability.

    Example:
        >>> judge([Condition(True, 0.99), Condition(False, 0.95)]).verdict
        'holds in part'
        >>> judge([Condition(False, 0.3)]).verdict  # it would have failed had the paper been right
        'undecided'
    """
    met = [condition.met for condition in _checked(conditions)]
    power = prod(condition.power for condition in conditions)
    if any(met):
        return Judged(HOLDS if all(met) else IN_PART, power)
    failed = None not in met and power >= ENOUGH
    return Judged(FAILS if failed else UNDECIDED, power)


@checked
def every(conditions: Iterable[Condition]) -> Condition:
    """All conditions as one: met if each is, failed if any is.

    Raises:
        TypeError, ValueError: as :func:`judge`.
    """
    conditions = _checked(list(conditions))
    met = [condition.met for condition in conditions]
    verdict = False if False in met else None if None in met else True
    return Condition(verdict, prod(condition.power for condition in conditions))


def _checked(conditions: Sequence[Condition]) -> Sequence[Condition]:
    """Conditions as they are, once it is sure that they are some."""
    if not conditions:
        raise ValueError("a rule needs a condition.")
    for condition in conditions:
        if not isinstance(condition, Condition) or condition.met not in (True, False, None):
            raise TypeError(f"{condition!r} is no condition: make one with a rule of this module.")
        real("power", condition.power, 0, 1)
    return conditions


def above(
    values: ArrayLike, limit: float, *, if_right: float, of: int = 1, seed: int = 0
) -> Condition:
    """The mean of independent values is above a limit.

    Met if Student's interval lies above the limit, failed if below, open if it contains it; open
    too if the values are equal, for then their spread is unknown, or if one is not defined (NaN or
    infinite), as a correlation is where nothing varies. The power is simulated: values
    are drawn from this run's, moved so that their mean is ``if_right``.

    Args:
        values: one number for each independent unit, at least two.
        if_right: the mean if the paper is right.
        of: number of conditions of the rule. Each is met by chance in at most 5 %/of, and where
            there is one, in 2.5 %.
        seed: of the simulation.

    Raises:
        TypeError, ValueError: fewer than two values, or a limit that is not finite.

    Example:
        >>> above([2.0, 3.0, 2.5, 3.5], 1.0, if_right=3.0).met
        True
    """
    values, of = numbers("values", values, least=2, finite=False), whole("of", of)
    n, limit, if_right = len(values), real("limit", limit), real("if_right", if_right)
    generator = np.random.default_rng(whole("seed", seed, 0))
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return Condition(None, 0.0)
    quantile = t.ppf(1 - 0.05 / max(of, 2), n - 1)
    mean, reach = values.mean(), quantile * sem(values)
    met = True if mean - reach > limit else False if mean + reach < limit else None
    # A sample's spread is smaller than its population's by √((n − 1)/n).
    spread = (values - mean) * np.sqrt(n / (n - 1))
    drawn = generator.choice(spread, (SIMULATIONS, n)) + if_right
    found = drawn.mean(1) - quantile * sem(drawn, axis=1) > limit
    return Condition(met, float(found.mean()))


def share_above(hits: Iterable[bool], limit: float, *, if_right: float, of: int = 1) -> Condition:
    """The share of hits among independent trials is above a limit, by Wilson's interval.

    Its power is exact, from the binomial distribution. For the arguments see :func:`above`.

    Raises:
        TypeError, ValueError: no trial, one that is neither hit nor miss, or an ``if_right`` that
            is no share.
    """
    hits, of, limit = hits_of("hits", hits), whole("of", of), real("limit", limit)
    if_right = real("if_right", if_right, 0, 1)
    n, z = len(hits), norm.ppf(1 - 0.05 / max(of, 2))
    share = np.arange(n + 1) / n  # of all numbers of hits that there could be
    centre, width = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)
    low, high = np.stack([centre - width, centre + width]) / (1 + z**2 / n)
    found = hits.sum()
    met = True if low[found] > limit else False if high[found] < limit else None
    power = binom.pmf(np.arange(n + 1), n, if_right)[low > limit].sum()
    return Condition(met, float(power))


def more_often(
    hits: Iterable[bool], control: Iterable[bool], *, if_right: float, of: int = 1
) -> Condition:
    """Hits are more frequent than the control's on the same units: an exact sign test (McNemar's).

    Its power is exact, if the two differ on a share ``if_right`` of the units and the hits win all
    of these. For the other arguments see :func:`above`.

    Raises:
        TypeError, ValueError: as :func:`share_above`, or another number of the control's units.

    Example:
        >>> more_often([True] * 9, [False] * 8 + [True], if_right=0.9).met
        True
    """
    hits, control = hits_of("hits", hits), hits_of("control", control)
    if len(hits) != len(control):
        raise ValueError(f"{len(hits)} units, and {len(control)} of the control: they must match.")
    if_right, chance = real("if_right", if_right, 0, 1), 0.05 / max(whole("of", of), 2)
    won, lost = (hits & ~control).sum(), (control & ~hits).sum()
    met = True if binom.sf(won - 1, won + lost, 0.5) <= chance else None
    met = False if binom.cdf(won, won + lost, 0.5) <= chance else met
    least = np.ceil(-np.log2(chance))  # wins without a loss
    return Condition(met, float(binom.sf(least - 1, len(hits), if_right)))


def beats(
    value: float, control: ArrayLike, *, if_right: float, of: int = 1, seed: int = 0
) -> Condition:
    """A value is larger than what a control without the effect reaches, and not by chance.

    Met if p = (1 + number of control draws as large)/(1 + number of draws) is at most 5 %/of, else
    failed. The power is simulated, with draws from the control.

    Args:
        control: the same number for each draw of the control.
        if_right: the value if the paper is right; for the other arguments see :func:`above`.

    Raises:
        TypeError, ValueError: no draw, or numbers that are not finite.
    """
    control, of = numbers("control", control), whole("of", of)
    drawn = np.random.default_rng(whole("seed", seed, 0)).choice(
        control, (SIMULATIONS, len(control))
    )
    met = p_value(value, control) <= 0.05 / of
    found = p_value(if_right, drawn) <= 0.05 / of
    return Condition(bool(met), float(np.mean(found)))


def p_value(value: float, control: ArrayLike) -> float | np.ndarray:
    """Share of draws, the value itself included, that are as large; over the last axis.

    Raises:
        TypeError, ValueError: no draw, or numbers that are not finite, which are never as large.
    """
    value, found = real("value", value), numbers("control", control)
    control = found.reshape(np.shape(control) or (1,))
    # Rounding decides no ties.
    as_large = control >= value - 1e-9 * max(1.0, abs(value))
    return (1 + as_large.sum(-1)) / (1 + control.shape[-1])


def within(values: ArrayLike, low: float, high: float, *, if_right: float) -> Condition:
    """The mean of independent values lies between two limits; see :func:`above`.

    Raises:
        TypeError, ValueError: as :func:`above`, or limits that leave nothing between them.
    """
    values = numbers("values", values, least=2, finite=False)
    if real("low", low) >= real("high", high):
        raise ValueError(f"nothing lies between {low} and {high}.")
    return every([above(values, low, if_right=if_right), above(-values, -high, if_right=-if_right)])


def certain(met: bool) -> Condition:
    """A condition in which nothing is drawn: an identity, or a count.

    Raises:
        TypeError: neither True nor False.
    """
    return Condition(bool(hits_of("met", [met])[0]), 1.0)
