"""Rules can fail: on data without an effect they say "does not hold" or "undecided".

The rules of the chapters are read from the cells that show the boxes "How this will be judged", and
called with data in which there is nothing to find.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from numpy.random import Generator, default_rng
from scipy.stats import binom, t

from helpers.observable_propagation.coupling import cosine
from helpers.results import claims, rules
from helpers.results.claims import INVENTORY
from helpers.results.intervals import share_and_interval
from helpers.results.rules import (
    Condition,
    above,
    beats,
    every,
    judge,
    more_often,
    p_value,
    share_above,
    within,
)

pytestmark = pytest.mark.unit
BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("*/*.ipynb"))
NOTHING = {"does not hold", "undecided"}
DRAWS = 100


def code_cells(chapter: Path) -> list[str]:
    cells = nbformat.read(chapter, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def rules_of(chapters: list[Path]) -> dict[str, Callable]:
    """The functions ``rule_…`` of the cells that end in a box."""
    names = {"np": np, "torch": torch, "cosine": cosine, **vars(rules), **vars(claims)}
    for chapter in chapters:
        for source in code_cells(chapter):
            if "\nhow_judged(" in source:
                exec(source, names)
    return {name: rule for name, rule in names.items() if name.startswith("rule_")}


RULES = rules_of(CHAPTERS)


def normal(rng: Generator, *shape: int, mean: float = 0.0) -> np.ndarray:
    return rng.normal(mean, 1.0, shape)


def leaders_without(rng: Generator) -> tuple:
    """Whether a control's four heads are the same, and its agreement among others of its kind."""
    control = rng.uniform(0.9, 0.98, 200)
    return rng.random() < 0.1, rng.choice(control), control


def overlaps(rng: Generator) -> tuple:
    control = rng.binomial(4, 0.05, (2, 200))
    return rng.binomial(4, 0.05, 2), control, (0.9, 0.9)


def shares(rng: Generator) -> tuple:
    single, virtual = rng.uniform(0.0, 0.06, 100), rng.uniform(0.02, 0.04, 100)
    gendered, virtual_gendered = rng.uniform(0.2, 0.5, 27), rng.uniform(0.1, 0.2, 27)
    # Heads share as much as between words that differ in gender alone; virtual heads nothing.
    return rng.choice(gendered), gendered, single, rng.choice(virtual), virtual_gendered, virtual


def steered(rng: Generator) -> tuple:
    """Vectors of six heads that are no other than their 20 controls."""
    cases = []
    for _ in range(6):
        along = 0.3 * normal(rng, 21, 1)  # what each vector adds, and takes away
        minus, plus = 0.3 * normal(rng, 2, 21, 24) + np.stack([-along, along])
        a, b = minus[1:, ::2].mean(1), plus[1:, ::2].mean(1)  # on every second prompt
        both_ways = np.maximum(np.minimum(-a, b), np.minimum(a, -b))
        cases.append((minus[0], plus[0], both_ways))
    return (cases,)


def swaps(rng: Generator) -> tuple:
    """Scalars that swap a prompt's answers no more often than the two controls."""
    return tuple(rng.random((3, 24)) < 0.4)


def carried(rng: Generator) -> tuple:
    """Six fits of methods that are no better than each other and the model, on B and on C."""
    methods = ("left alone", "ActivScalar", "SteerVec", "DynScalar")
    return tuple(dict(zip(methods, normal(rng, 4, 6, mean=-2.0))) for _ in range(2))


def transferred(rng: Generator) -> tuple:
    """Three seeds in which it does not matter to which of five tasks a row was fitted."""
    rows = normal(rng, 5, 3, mean=-2.0)
    return rows[0], rows[1:].mean(0), rows[1:].max(0), normal(rng, 3, mean=-2.0), rows.mean(0)


def heads(rng: Generator) -> tuple:
    """Scalars that share as many heads with DLA as the controls, and steer as shuffled ones do."""
    shared = rng.binomial(10, 0.3, (4, 24)) / 10
    E0 = -np.abs(normal(rng, 2, 24))
    return shared[0], shared[1:], rng.random(24) < 0.4, *E0, 0.1 * normal(rng, 24)


def maps_as_scalars(rng: Generator) -> tuple:
    """Maps that meet by chance and steer as their numbers shuffled do."""
    meet = rng.binomial(10, 0.03, (2, 24)) / 10, 0.03, 1 + 0.5 * normal(rng, 3, 24)
    steer = rng.uniform(0, 1, 4), rng.random((4, 24)) < 0.5, normal(rng, 4, 24)
    return *meet, *steer, normal(rng, 24, mean=-2.0), 0.5 * normal(rng, 2, 24)


# Draws of prompts: three, as in the recorded grids.
WITHOUT_EFFECT = {
    "rule_as1": swaps,
    "rule_as2": lambda rng: tuple(0.05 * normal(rng, 4, 12)),
    "rule_as3": lambda rng: (0.02 * normal(rng, 2, 5),),
    "rule_as4": lambda rng: (0.2 + 0.03 * normal(rng, 3), -0.1 + 0.01 * normal(rng, 3)),
    "rule_as5": lambda rng: tuple(0.5 + 0.05 * normal(rng, 2, 3)),
    "rule_as6": lambda rng: tuple(0.1 * normal(rng, 2, 3)),
    "rule_as7": lambda rng: tuple(0.1 * normal(rng, 2, 3)),
    "rule_as8": lambda rng: (list(rng.integers(1, 1000, 2)),),
    "rule_as9": carried,
    "rule_as10": lambda rng: (
        *(0.5 + 0.2 * normal(rng, 2, 2, 6)),
        normal(rng, 6),
        normal(rng, 6, mean=-0.5),
    ),
    "rule_as11": transferred,
    "rule_as12": heads,
    "rule_as13": heads,
    "rule_as14": maps_as_scalars,
    "rule_as15": lambda rng: tuple(0.3 * normal(rng, 2, 3, 3)),
    "rule_as16": lambda rng: (
        *normal(rng, 2, 2, 24, mean=-2.0),
        normal(rng, 24, mean=-2.0),
    ),
    "rule_op1": lambda rng: (0.1 * normal(rng, 7, 50, mean=-1.0), [0.2] * 7),
    "rule_op2": lambda rng: (rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)),
    "rule_op3": lambda rng: (1.3 + 0.1 * normal(rng, 4, 100),),
    "rule_op4": lambda rng: (normal(rng, 7, 100, mean=0.3), True),
    "rule_op5": lambda rng: (rng.uniform(0, 1, 61), rng.uniform(0, 1, 61)),
    "rule_op6": lambda rng: (np.exp(0.1 * normal(rng, 30)),),
    "rule_op7": lambda rng: (rng.uniform(0, 1, 61),),
    "rule_op8": lambda rng: (normal(rng, 6, 48), normal(rng, 6, 48)),
    "rule_op9": leaders_without,
    "rule_op10": leaders_without,
    "rule_op11": overlaps,
    "rule_op12": lambda rng: ((pairs := rng.uniform(-1, 1, (401, 3)))[0], pairs[1:]),
    "rule_op13": lambda rng: (normal(rng, 48), normal(rng, 48, mean=0.0)),
    "rule_op14": lambda rng: (rng.random(24) < 0.2, 0.1 + 0.05 * normal(rng, 24)),
    "rule_op15": steered,
    "rule_op16": lambda rng: (rng.random(24) < 0.5, rng.random(24) < 0.05),
    "rule_op17": lambda rng: (
        normal(rng, 26),
        normal(rng, 26),
        (left := rng.uniform(0.9, 1.1, 200))[0],
        left[1:],
    ),
    "rule_op18": lambda rng: (normal(rng, 24), normal(rng, 24)),
    "rule_op19": shares,
    "rule_op20": lambda rng: tuple(rng.binomial(2, 0.45, (3, 48)) / 2),
}


def test_every_claim_has_its_box_its_rule_and_data_without_effect() -> None:
    assert set(RULES) == {"rule_" + id.lower().replace("-", "") for id in INVENTORY}
    assert set(WITHOUT_EFFECT) == set(RULES)


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
@pytest.mark.slow
def test_a_rule_finds_nothing_where_there_is_nothing(name: str, monkeypatch) -> None:
    monkeypatch.setattr(rules, "SIMULATIONS", 10)  # the power tells the two words of NOTHING apart
    rng, words = default_rng(1), []
    for _ in range(DRAWS):
        words.append(judge(RULES[name](*WITHOUT_EFFECT[name](rng))).verdict)
    # At most 5 %, and three standard errors of a share in 100 draws.
    assert np.mean([word in NOTHING for word in words]) >= 0.95 - 3 * (0.05 * 0.95 / DRAWS) ** 0.5


@pytest.mark.slow
def test_a_rule_that_grants_too_much_would_be_found(monkeypatch) -> None:
    monkeypatch.setattr(rules, "SIMULATIONS", 10)
    rng, granted = default_rng(0), []
    for _ in range(DRAWS):
        conditions = [above(normal(rng, 24), 0, if_right=1.0) for _ in range(20)]
        granted.append(judge(conditions).verdict not in NOTHING)
    assert np.mean(granted) > 0.1


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_claim_is_judged_by_the_rule_that_was_stated_before(chapter: Path) -> None:
    """In each chapter the box with its rule stands above the claim, which is judged by it."""
    stated = set()
    for source in code_cells(chapter):
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if called == "how_judged":
                stated |= {ast.literal_eval(argument) for argument in call.args}
            if called == "claim":
                assert ast.literal_eval(call.args[0]) in stated
                given = {keyword.arg for keyword in call.keywords}
                assert "judged" in given and not given & {"verdict", "criterion"}


def test_the_words() -> None:
    met, failed, unclear = Condition(True, 0.9), Condition(False, 0.9), Condition(None, 0.9)
    assert judge([met, met]).verdict == "holds"
    assert judge([met, failed]).verdict == judge([met, unclear]).verdict == "holds in part"
    assert judge([failed]).verdict == "does not hold"
    assert judge([failed, unclear]).verdict == "undecided"
    assert judge([failed, Condition(False, 0.5)]) == ("undecided", 0.45)
    assert every([met, unclear]).met is None and every([unclear, failed]).met is False
    with pytest.raises(ValueError, match="needs a condition"):
        judge([])


def test_a_mean_is_above_below_or_open() -> None:
    values = np.arange(10.0)  # mean 4.5, interval from 2.3 to 6.7
    assert [above(values, limit, if_right=9.0).met for limit in (2, 4, 7)] == [True, None, False]
    assert within(values, 2, 7, if_right=4.5).met and within(values, 2, 4, if_right=3).met is None
    assert above([3.0, 3.0], 2, if_right=3.0) == (None, 0.0)  # equal by chance, perhaps
    with pytest.raises(ValueError, match="at least 2"):
        above([1.0], 0, if_right=1.0)


@pytest.mark.parametrize("n", [5, 24])
def test_the_simulated_power_is_how_often_it_happens(n: int) -> None:
    rng, powers, met = default_rng(3), [], []
    for _ in range(400):
        condition = above(normal(rng, n, mean=0.9), 0, if_right=0.9)
        powers.append(condition.power)
        met.append(condition.met is True)
    assert np.mean(powers) == pytest.approx(np.mean(met), abs=0.12)


def test_a_share_is_judged_by_wilsons_interval_and_its_power_is_exact() -> None:
    hits = [True] * 17 + [False] * 7
    low, high = share_and_interval(hits)[1:]
    for limit in (low - 0.01, low + 0.01, high - 0.01, high + 0.01):
        met = share_above(hits, limit, if_right=0.5).met
        assert met is (True if limit < low else False if limit > high else None)
    least = next(k for k in range(25) if share_and_interval(np.arange(24) < k).low > 0.5)
    power = share_above(hits, 0.5, if_right=0.8).power
    assert power == pytest.approx(binom.sf(least - 1, 24, 0.8))
    with pytest.raises(ValueError, match="at least one trial"):
        share_above([], 0.5, if_right=0.8)


def test_more_often_is_a_sign_test_over_the_units_that_differ() -> None:
    hits = np.arange(12) < 8
    assert more_often(hits, [False] * 12, if_right=0.5).met is True
    assert more_often([False] * 12, hits, if_right=0.5).met is False
    assert more_often(hits, hits, if_right=0.5).met is None, "no unit differs"
    assert more_often(hits, np.arange(12) < 3, if_right=0.5).met is None, "five wins are chance"
    rng, won = default_rng(2), []
    for _ in range(400):
        condition = more_often(rng.random(16) < 0.5, [False] * 16, if_right=0.5)
        won.append(condition.met is True)
    assert condition.power == pytest.approx(np.mean(won), abs=0.06)


def test_a_control_that_reaches_as_much_takes_the_power() -> None:
    control = np.linspace(0, 1, 199)
    assert beats(1.1, control, if_right=1.1) == (True, 1.0)
    assert beats(0.5, control, if_right=1.1) == (False, 1.0)
    assert beats(0.5, control, if_right=0.5).power == 0.0
    assert p_value(2.0, control) == 1 / 200 and p_value(0.0, control) == 1.0
    # 1/200 is enough for one of ten conditions, and not for one of eleven.
    assert [beats(1.1, control, if_right=1.1, of=of).met for of in (10, 11)] == [True, False]


def test_a_mean_that_is_one_of_many_conditions_needs_more() -> None:
    values = [0.5, 1.0, 1.5, 1.0]  # 4.9 standard errors above 0
    assert above(values, 0.0, if_right=1.0, of=2).met
    assert above(values, 0.0, if_right=1.0, of=20).met is None


def test_the_simulation_follows_its_seed() -> None:
    values, control = default_rng(0).normal(1.0, 1.0, 12), default_rng(1).normal(0.0, 1.0, 40)
    for rule in (
        lambda seed: above(values, 0.0, if_right=0.6, seed=seed),
        lambda seed: beats(3.0, control, if_right=1.8, seed=seed),
    ):
        assert rule(0) == rule(0) and len({rule(seed).power for seed in range(4)}) > 1


def test_the_power_is_simulated_with_the_populations_spread_and_not_the_samples() -> None:
    """Against all 256 draws of four values, spread √(4/3) times as far as in the sample."""
    values, right = np.array([-1.0, 0.0, 0.5, 1.5]), 1.9
    met = {}
    for factor in ((4 / 3) ** 0.5, 1.0):
        moved = right + factor * (values - values.mean())
        draws = np.stack(np.meshgrid(*[moved] * 4), axis=-1).reshape(-1, 4)
        reach = t.ppf(0.975, 3) * draws.std(axis=1, ddof=1) / 2
        met[factor] = np.mean(draws.mean(1) - reach > 0)
    own, of_sample = met.values()
    power = above(values, 0, if_right=right).power
    assert power == pytest.approx(own, abs=0.08) and abs(own - of_sample) > 0.2
