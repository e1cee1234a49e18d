"""Pareto fronts and hypervolumes of measures that are best at 0 and at most 0: E0, F and M0.

moocore computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd


def on_front(table: pd.DataFrame, measures: Sequence[str]) -> pd.Series:
    """Which rows are non-dominated: no other is as good in all measures and better in one.

    Ties are on the front together. Rows that lack a measure (a failed fit) are not on it.

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


def shares(table: pd.DataFrame, measures: Sequence[str]) -> pd.Series:
    """Each method's share of the points on the front; ties of one method count once."""
    front = table[on_front(table, measures)].drop_duplicates(["method", *measures])
    counts = front["method"].value_counts()
    counts = counts.reindex(sorted(table["method"].unique()), fill_value=0)
    return (counts / max(1, len(front))).rename("share")


def hypervolume(table: pd.DataFrame, measures: Sequence[str], reference: Sequence[float]) -> float:
    """Dominated volume above a reference point, as a share of the box from there to 0.

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
    volume = moocore.hypervolume(values, ref=reference, maximise=True)
    return float(volume / np.abs(reference).prod())
