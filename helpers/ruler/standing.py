"""Where methods stand in the ruler's table: hypervolumes, and pairs with Holm's correction.

Pairs are compared over test prompts, both methods on the same prompt: intervals and tests speak of
other prompts for the edits that were made, and not of other training prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import ttest_rel

from helpers.models.checks import checked
from helpers.results.fronts import hypervolume
from helpers.results.intervals import numbers, student_interval
from helpers.ruler.axes import BUDGETS, MAIN

UNIT = ["task", "seed"]


@checked
def at_budget(table: pd.DataFrame, column: str, budget: float = MAIN) -> pd.DataFrame:
    """A column of the table at one budget: a row for each unit, a column for each method.

    Raises:
        ValueError: a budget or column that the table does not have, or two rows for one entry.
    """
    if missing := {column, "budget", "method", *UNIT} - {*table}:
        raise ValueError(f"the table has no column {min(missing)!r}; it has {', '.join(table)}.")
    rows = table[np.isclose(table["budget"], budget)]
    if rows.empty:
        raise ValueError(f"the table has no budget {budget}; it has {set(table['budget'])}.")
    if (twice := rows.duplicated([*UNIT, "method"])).any():
        raise ValueError(f"the table has two rows of {rows[twice].iloc[0]['method']!r} for a unit.")
    return rows.pivot(index=UNIT, columns="method", values=column)


@checked
def by_prompt(table: pd.DataFrame, budget: float = MAIN) -> pd.DataFrame:
    """E_0 of every test prompt at one budget: a row a prompt of a unit, a column a method, in nats.

    Raises:
        ValueError: a budget that the table does not have.
    """
    columns = {}
    for method, gaps in at_budget(table, "gaps", budget).items():
        each = gaps.dropna().str.split().explode().astype(float)
        columns[method] = each.set_axis(
            pd.MultiIndex.from_frame(each.index.to_frame().assign(prompt=_numbers(each)))
        )
    return pd.DataFrame(columns)


def _numbers(each: pd.Series) -> np.ndarray:
    """Numbers of the prompts within their units."""
    return each.groupby(level=UNIT).cumcount().to_numpy()


@checked
def hypervolumes(table: pd.DataFrame) -> pd.DataFrame:
    """Volume under each method's front of E_0 and damage, for each unit, as a share of the box.

    The box goes from doing nothing (E_0 of the untouched model) and twice the largest budget to
    both at 0; a strength that makes E_0 worse than doing nothing adds no volume.

    Raises:
        ValueError: an E_0 or a damage that is not finite.
    """
    rows = []
    if missing := {"E0", "E0_base", "kl", "budget", "method", *UNIT} - {*table}:
        raise ValueError(f"the table has no column {min(missing)!r}.")
    if not np.isfinite(table[["E0", "E0_base", "kl"]].to_numpy(float)).all():
        raise ValueError("the table has an E0, E0_base or kl that is not finite.")
    budgets = table[table["budget"] > 0].assign(minus_kl=lambda one: -one["kl"])
    if budgets.empty:
        raise ValueError("the table has no row with a budget above 0.")
    for (task, seed, method), part in budgets.groupby([*UNIT, "method"]):
        reference = [min(part["E0_base"].iloc[0], -1e-6), -2 * max(BUDGETS)]
        volume = hypervolume(part, ["E0", "minus_kl"], reference)
        rows.append({"task": task, "seed": seed, "method": method, "volume": volume})
    return pd.DataFrame(rows).pivot(index=UNIT, columns="method", values="volume")


def holm(p_values: ArrayLike) -> np.ndarray:
    """P values adjusted for how many there are, by Holm's (1979) step-down procedure.

    Raises:
        TypeError, ValueError: none, or one that is no probability.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = numbers("p_values", p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p values lie between 0 and 1, not between {p.min()} and {p.max()}.")
    order, n = np.argsort(p), len(p)
    stepped = np.maximum.accumulate(p[order] * (n - np.arange(n)))
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


@checked
def pairwise(values: pd.DataFrame, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """Every pair of methods: mean difference over rows, paired t test, Holm over all pairs.

    Args:
        values: a column for each method, as of :func:`by_prompt` or :func:`at_budget`.
        methods: which; all columns if not given.

    Returns:
        ``first``, ``second``, ``difference`` of first minus second, its 95 % interval ``low`` to
        ``high`` (of this pair alone), ``p`` and ``p_holm``; n is the number of rows.

    Raises:
        ValueError: fewer than two rows that have all methods; fewer than two methods, one twice, or
            one that there is no column of; infinity.
    """
    methods = list(values if methods is None else methods)
    if unknown := [name for name in methods if name not in values]:
        raise ValueError(f"there is no method {unknown[0]!r}; use {', '.join(values)}.")
    if len(set(methods)) < max(2, len(methods)):
        raise ValueError(f"pairs need two different methods at least, not {methods}.")
    values = values[methods].dropna()
    if len(values) < 2:
        raise ValueError(f"{len(values)} rows have all methods: pairs need two at least.")
    rows = []
    for first, second in combinations(values, 2):
        difference = numbers(first, values[first], least=2) - numbers(second, values[second])
        interval = student_interval(difference)
        # Two methods that always agree have no spread, and no difference to test.
        p = ttest_rel(values[first], values[second]).pvalue if np.ptp(difference) else 1.0
        rows.append((first, second, *interval, float(p)))
    pairs = pd.DataFrame(rows, columns=["first", "second", "difference", "low", "high", "p"])
    return pairs.assign(p_holm=holm(pairs["p"]), n=len(values))
