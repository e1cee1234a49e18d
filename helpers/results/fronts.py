"""Pareto fronts and hypervolumes of results that are each best at 0 and at most 0, such as E0, F and M0.

The computing is moocore's.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd


def on_front(table: pd.DataFrame, measures: Sequence[str]) -> pd.Series:
    """Which rows no other row dominates: none is at least as good in every measure and better in one.

    Rows with equal measures are all on the front, or none is. Rows that lack a measure (a failed fit) are not.

    Example:
        >>> table = pd.DataFrame({"E0": [0.0, -1.0, -2.0], "M0": [-9.0, -4.0, -5.0]})
        >>> on_front(table, ["E0", "M0"]).tolist()  # the second beats the third in both
        [True, True, False]
    """
    values = table[list(measures)].to_numpy(float)
    complete = np.isfinite(values).all(1)
    on = np.zeros(len(table), dtype=bool)
    if complete.any():
        on[complete] = moocore.is_nondominated(values[complete], maximise=True, keep_weakly=True)
    return pd.Series(on, index=table.index, name="on_front")


def shares(table: pd.DataFrame, measures: Sequence[str], by: str = "method") -> pd.Series:
    """Share of the front's points that each method has; points with equal measures of one method count once."""
    front = table[on_front(table, measures)].drop_duplicates([by, *measures])
    counts = front[by].value_counts().reindex(sorted(table[by].unique()), fill_value=0)
    return (counts / max(1, len(front))).rename("share")


def hypervolume(table: pd.DataFrame, measures: Sequence[str], reference: Sequence[float]) -> float:
    """Volume that the rows dominate above a reference point, as a share of the box from there to the ideal point 0.

    Args:
        table: rows worse than the reference in any measure add nothing.
        measures: columns, each at most 0.
        reference: one negative value a measure; the same for all methods that are compared.

    Raises:
        ValueError: a reference value that is not negative.

    Example:
        >>> table = pd.DataFrame({"E0": [0.0, -1.0], "M0": [-5.0, 0.0]})
        >>> hypervolume(table, ["E0", "M0"], reference=[-2.0, -10.0])
        0.75
    """
    reference = np.asarray(reference, dtype=float)
    if not (reference < 0).all():
        raise ValueError(f"reference values must be negative, not {reference.tolist()}.")
    values = table[list(measures)].to_numpy(float)
    values = values[np.isfinite(values).all(1)]
    if not len(values):
        return 0.0
    return float(
        moocore.hypervolume(values, ref=reference, maximise=True) / np.abs(reference).prod()
    )
