"""Pareto fronts and hypervolumes of measures that are best at 0 and at most 0: E0, F and M0.

moocore computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from helpers.models.checks import checked

ROUNDING = 1e-5  # a divergence of 0 may come out as little below 0, in nats


def _values(table: pd.DataFrame, measures: Sequence[str]) -> np.ndarray:
    """Columns as numbers, [row measure]."""
    if missing := [name for name in measures if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(table)}.")
    if not len(measures):
        raise ValueError("a front needs at least one measure.")
    try:
        return table[list(measures)].to_numpy(float)
    except ValueError as error:
        raise TypeError(f"measures must be numbers: {error}.") from None


@checked
def on_front(table: pd.DataFrame, measures: Sequence[str]) -> pd.Series:
    """Which rows are non-dominated: no other is as good in all measures and better in one.

    Ties are on the front together. Rows that lack a measure (a failed fit) are not on it.

    Raises:
        TypeError, ValueError: no measure, or one that is no column of numbers.

    Example:
        >>> table = pd.DataFrame({"E0": [0.0, -1.0, -2.0], "M0": [-9.0, -4.0, -5.0]})
        >>> on_front(table, ["E0", "M0"]).tolist()  # the second beats the third in both
        [True, True, False]
    """
    values = _values(table, measures)
    complete = np.isfinite(values).all(1)
    on = np.zeros(len(table), dtype=bool)
    if complete.any():
        on[complete] = moocore.is_nondominated(values[complete], maximise=True, keep_weakly=True)
    return pd.Series(on, index=table.index, name="on_front")


@checked
def shares(table: pd.DataFrame, measures: Sequence[str]) -> pd.Series:
    """Each method's share of the points on the front; ties of one method count once.

    Raises:
        TypeError, ValueError: as :func:`on_front`, or a table without the column ``method``.
    """
    if "method" not in table:
        raise ValueError(f"the table has no column method; it has {', '.join(table)}.")
    front = table[on_front(table, measures)].drop_duplicates(["method", *measures])
    counts = front["method"].value_counts()
    counts = counts.reindex(sorted(table["method"].unique()), fill_value=0)
    return (counts / max(1, len(front))).rename("share")


@checked
def hypervolume(table: pd.DataFrame, measures: Sequence[str], reference: Sequence[float]) -> float:
    """Dominated volume above a reference point, as a share of the box from there to 0.

    Args:
        table: rows worse than the reference in any measure, or that lack one, add nothing.
        measures: columns, each at most 0.
        reference: one negative value a measure; the same for all methods that are compared.

    Raises:
        TypeError, ValueError: as :func:`on_front`; reference values that are not negative and
            finite, or not one a measure; a measure above 0.

    Example:
        >>> table = pd.DataFrame({"E0": [0.0, -1.0], "M0": [-5.0, 0.0]})
        >>> hypervolume(table, ["E0", "M0"], reference=[-2.0, -10.0])
        0.75
    """
    reference = np.asarray(reference, dtype=float)
    if not (reference < 0).all() or not np.isfinite(reference).all():
        raise ValueError(f"reference values must be negative, not {reference.tolist()}.")
    values = _values(table, measures)
    if reference.shape != values.shape[1:]:
        raise ValueError(f"{reference.size} reference values for {values.shape[1]} measures.")
    values = values[np.isfinite(values).all(1)]
    if not len(values):
        return 0.0
    if (highest := values.max()) > ROUNDING:
        raise ValueError(f"measures are at most 0, and one is {highest}.")
    values = values.clip(max=0)
    volume = moocore.hypervolume(values, ref=reference, maximise=True)
    return float(volume / np.abs(reference).prod())
