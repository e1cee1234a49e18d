"""Fronts against brute force, hypervolume against counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.results.fronts import hypervolume, on_front, shares

pytestmark = pytest.mark.unit


def random_table(seed: int, rows: int = 40) -> pd.DataFrame:
    # Few distinct values, so that there are ties.
    values = -np.random.default_rng(seed).integers(0, 6, (rows, 3)).astype(float)
    return pd.DataFrame(values, columns=["E0", "F", "M0"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("measures", [["E0", "F"], ["E0", "M0"], ["E0", "F", "M0"]])
def test_the_front_is_what_brute_force_finds(seed, measures):
    table = random_table(seed)
    values, brute = table[measures].to_numpy(), []
    for a in values:
        brute.append(not any((b >= a).all() and (b > a).any() for b in values))
    assert on_front(table, measures).tolist() == brute
    assert 0 < sum(brute) < len(table)


def test_rows_without_a_measure_are_on_no_front_and_dominate_nothing():
    table = pd.DataFrame({"E0": [np.nan, -1.0, -2.0], "F": [0.0, -1.0, -2.0]})
    assert on_front(table, ["E0", "F"]).tolist() == [False, True, False]
    assert not on_front(table.iloc[:1], ["E0", "F"]).any()


def test_shares_count_each_point_of_a_method_once():
    table = pd.DataFrame({"E0": [0.0, 0.0, -1.0, -3.0], "F": [-2.0, -2.0, -1.0, -3.0]})
    table["method"] = ["A", "A", "B", "C"]
    assert shares(table, ["E0", "F"]).to_dict() == {"A": 0.5, "B": 0.5, "C": 0.0}
    table["method"] = ["A", "D", "B", "C"]  # a tie of two methods is a point of each
    assert shares(table, ["E0", "F"]).to_dict() == {m: (m != "C") / 3 for m in "ABCD"}


def test_the_hypervolume_is_the_share_of_the_box_that_is_dominated():
    table, dominated = random_table(7), []
    values = table[["E0", "F"]].to_numpy()
    # The values are whole numbers, so a unit cell of the box is dominated as a whole or not at all.
    for x, y in np.ndindex(6, 6):
        corner = np.array([x - 5, y - 5])
        dominated.append(any((value >= corner).all() for value in values))
    share = np.mean(dominated)
    assert hypervolume(table, ["E0", "F"], [-6.0, -6.0]) == pytest.approx(share)
    assert 0 < share < 1


def test_the_hypervolume_grows_with_a_better_point_and_ignores_those_beyond_the_reference():
    table = pd.DataFrame({"E0": [-1.0], "F": [-1.0]})
    assert hypervolume(table, ["E0", "F"], [-2, -2]) == pytest.approx(0.25)
    better = pd.concat([table, pd.DataFrame({"E0": [0.0], "F": [-1.5]})])
    assert hypervolume(better, ["E0", "F"], [-2, -2]) == pytest.approx(0.375)
    assert hypervolume(pd.DataFrame({"E0": [-3.0], "F": [0.0]}), ["E0", "F"], [-2, -2]) == 0
    with pytest.raises(ValueError, match="must be negative"):
        hypervolume(table, ["E0", "F"], [0, -2])
