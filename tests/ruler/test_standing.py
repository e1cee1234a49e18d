"""Fronts and pairs: known values, Holm's correction, and no finding where there is no effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.ruler.axes import BUDGETS, MAIN
from helpers.ruler.standing import at_budget, by_prompt, holm, hypervolumes, pairwise

pytestmark = pytest.mark.unit


def table(**methods) -> pd.DataFrame:
    """Twelve units; each method's E0 at every budget is its argument, a number for each unit."""
    rows = []
    for number in range(12):
        for name, values in methods.items():
            for budget in BUDGETS:
                row = {"task": f"t{number % 4}", "seed": number // 4, "method": name}
                row |= {"budget": budget, "E0": values[number], "E0_base": -2.0, "kl": budget}
                row["gaps"] = f"{values[number] - 1} {values[number] + 1}"
                rows.append(row)
    return pd.DataFrame(rows)


def test_holm_is_as_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@pytest.mark.slow
def test_pairs_without_an_effect_are_rarely_told_apart() -> None:
    """At least one false finding in at most 5 % of tables; 200 tables of six methods."""
    draw, false = np.random.default_rng(0), 0
    for _ in range(200):
        values = pd.DataFrame(draw.normal(size=(12, 6)), columns=list("abcdef"))
        false += (pairwise(values)["p_holm"] < 0.05).any()
    assert false <= 0.05 * 200 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_a_real_difference_is_found_and_has_its_sign() -> None:
    noise = np.random.default_rng(1).normal(scale=0.1, size=(2, 12))
    noise -= noise.mean(1, keepdims=True)
    pairs = pairwise(at_budget(table(good=noise[0] - 0.2, bad=noise[1] - 1.5), "E0", MAIN))
    assert pairs["n"].tolist() == [12]
    (row,) = pairs.to_dict("records")
    sign = 1 if row["first"] == "good" else -1
    assert sign * row["difference"] == pytest.approx(1.3) and row["p_holm"] < 0.001


def test_prompts_are_matched_within_their_units() -> None:
    values = by_prompt(table(one=np.arange(12.0), two=np.arange(12.0) + 5), MAIN)
    assert len(values) == 24 and ((values["two"] - values["one"]) == 5).all()
    # Unit t1, seed 0 is the second; its prompts have one less and one more than its mean.
    assert values.loc[("t1", 0), "one"].tolist() == [0.0, 2.0]


def test_hypervolume_of_doing_nothing_is_zero_and_of_a_perfect_edit_one() -> None:
    volumes = hypervolumes(table(nothing=[-2.0] * 12, worse=[-3.0] * 12, half=[-1.0] * 12))
    assert (volumes[["nothing", "worse"]] == 0).all().all()
    # The front's best damage is the smallest budget's.
    expected = 0.5 * (1 - min(BUDGETS) / (2 * max(BUDGETS)))
    assert volumes["half"].to_numpy() == pytest.approx(expected)


def test_unknown_budgets_and_too_few_units_are_refused() -> None:
    with pytest.raises(ValueError, match="no budget 7"):
        at_budget(table(one=[0.0] * 12), "E0", 7)
    with pytest.raises(ValueError, match="at least"):
        pairwise(pd.DataFrame({"a": [1.0], "b": [2.0]}))
