"""What says nothing is refused where results are made: NaN, shares for hits, other lengths."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.results.claims import Claim, claim, verdict
from helpers.results.fronts import hypervolume, on_front, shares
from helpers.results.intervals import (
    mean_and_interval,
    rank_correlation,
    share_and_interval,
    student_interval,
)
from helpers.results.records import record
from helpers.results.rules import (
    Condition,
    above,
    beats,
    certain,
    every,
    judge,
    more_often,
    p_value,
    share_above,
    within,
)
from helpers.ruler.standing import at_budget, holm, hypervolumes, pairwise
from tests.sentences import refused

pytestmark = pytest.mark.unit
NAN, INF = float("nan"), float("inf")
DRAWS, HITS = [0.1, 0.2] * 20, [True] * 6 + [False] * 2
LACKING = ([1.0, NAN, 2.0], [1.0, INF, 2.0], ["a", "b"], [[1], [1, 2]], [1.0], [])
NO_HITS = ([NAN] * 8, [0.3] * 8, ["False"] * 8, [None] * 8, [])
NO_NUMBER, NO_SHARE, NO_COUNT = (NAN, INF, "1", None), (1.5, -0.1, NAN), (0, -1, 1.5)
TABLE = pd.DataFrame({"E0": [0.0, -1.0], "F": [-1.0, 0.0], "method": ["a", "b"]})
BY_METHOD = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]})
ROWS = [{"task": "t", "seed": 0, "method": name, "budget": 0.1} for name in "ab"]
UNITS = pd.DataFrame(ROWS).assign(E0=-1.0, E0_base=-2.0, kl=0.1)


def recorded(**measured) -> Claim:
    how = {"judged": judge([Condition(True, 0.9)]), "n": 4, "unit": "prompts", "ours": "1"}
    return claim("AS-1", **(how | measured))


# Bad values of an argument, and the calls that take it.
REFUSED = [
    (
        LACKING[2:],
        [
            lambda bad: above(bad, 0, if_right=1),
            lambda bad: within(bad, 0, 2, if_right=1),
        ],
    ),
    (LACKING[:4], [lambda bad: beats(0.5, bad, if_right=1), lambda bad: p_value(0.5, bad)]),
    (([],), [lambda bad: beats(0.5, bad, if_right=1), lambda bad: p_value(0.5, bad), holm]),
    (
        NO_NUMBER,
        [
            lambda bad: above([1.0, 2.0], bad, if_right=1),
            lambda bad: above([1.0, 2.0], 0, if_right=bad),
            lambda bad: beats(bad, DRAWS, if_right=1),
            lambda bad: beats(0.5, DRAWS, if_right=bad),
            lambda bad: p_value(bad, DRAWS),
            lambda bad: share_above(HITS, bad, if_right=0.9),
            lambda bad: within([1.0, 2.0], bad, 3, if_right=1),
        ],
    ),
    (
        NO_HITS,
        [
            lambda bad: share_above(bad, 0.5, if_right=0.9),
            lambda bad: more_often(bad, HITS, if_right=0.9),
            lambda bad: more_often(HITS, bad, if_right=0.9),
            share_and_interval,
            lambda bad: certain(bad[0] if bad else None),
        ],
    ),
    (
        NO_SHARE,
        [
            lambda bad: share_above(HITS, 0.5, if_right=bad),
            lambda bad: more_often(HITS, HITS, if_right=bad),
            lambda bad: judge([Condition(False, bad)]),
            lambda bad: every([Condition(True, bad)]),
            lambda bad: student_interval([1.0, 2.0], bad),
            lambda bad: holm([0.01, bad]),
        ],
    ),
    (
        NO_COUNT,
        [
            lambda bad: above([1.0, 2.0], 0, if_right=1, of=bad),
            lambda bad: share_above(HITS, 0.5, if_right=0.9, of=bad),
            lambda bad: more_often(HITS, HITS, if_right=0.9, of=bad),
            lambda bad: beats(0.5, DRAWS, if_right=1, of=bad),
        ],
    ),
    (
        (-1, 1.5, True, None, [1]),
        [
            lambda bad: above([1.0, 2.0], 0, if_right=1, seed=bad),
            lambda bad: beats(0.5, DRAWS, if_right=1, seed=bad),
        ],
    ),
    (
        (None, 3, ["a", "b", "c", "d"]),
        [
            mean_and_interval,
            student_interval,
            lambda bad: rank_correlation(bad, [1.0, 2.0, 3.0, 4.0]),
        ],
    ),
    (NO_COUNT, [lambda bad: recorded(n=bad), lambda bad: recorded(seeds=bad)]),
    ((None, 3, ["x"]), [lambda bad: recorded(ours=bad), lambda bad: recorded(unit=bad)]),
    ((NAN, None, "yes", 2), [verdict, lambda bad: verdict(False, in_part=bad)]),
    ((NAN, "1", INF), [lambda bad: verdict(False, power=bad)]),
    (
        (None, {"E0": [1.0]}, [1.0]),
        [
            lambda bad: on_front(bad, ["E0"]),
            lambda bad: record(bad, "table.csv", {}),
            lambda bad: at_budget(bad, "E0"),
            hypervolumes,
        ],
    ),
    (([], [True], [None], [(1, 1.0)], [Condition("yes", 1.0)]), [judge, every]),
    (([True], [True] * 7), [lambda bad: more_often(HITS, bad, if_right=0.9)]),
    ((2.0, 3.0), [lambda bad: within([1.0, 2.0], bad, 2, if_right=1)]),
    (([1.0, 2.0], []), [lambda bad: rank_correlation([1.0, 2.0, 3.0, 5.0, 4.0], bad)]),
    (
        (["E0", "M0"], [], ["E0", "method"]),
        [
            lambda bad: on_front(TABLE, bad),
            lambda bad: shares(TABLE, bad),
            lambda bad: hypervolume(TABLE, bad, [-2.0] * len(bad)),
        ],
    ),
    (
        ([-2.0], [-2.0] * 3, [-2.0, NAN], [-2.0, -INF], [-2.0, 0.0]),
        [lambda bad: hypervolume(TABLE, ["E0", "F"], bad)],
    ),
    ((0.1, 2.0), [lambda bad: hypervolume(TABLE.assign(E0=bad), ["E0", "F"], [-2.0, -2.0])]),
    ((TABLE[["E0", "F"]],), [lambda bad: shares(bad, ["E0", "F"])]),
    ((["a", "c"], ["a"], ["a", "a"], []), [lambda bad: pairwise(BY_METHOD, bad)]),
    ((BY_METHOD.replace(2.0, INF),), [pairwise]),
    (("none", "gaps"), [lambda bad: at_budget(UNITS, bad)]),
    ((pd.concat([UNITS, UNITS]),), [lambda bad: at_budget(bad, "E0")]),
    ([UNITS.assign(**{name: NAN}) for name in ("E0", "E0_base", "kl")], [hypervolumes]),
]
CALLS = [(bad, call) for values, calls in REFUSED for call in calls for bad in values]


@pytest.mark.parametrize(("bad", "call"), CALLS, ids=map(str, range(len(CALLS))))
def test_what_says_nothing_is_refused_in_a_sentence(bad, call) -> None:
    refused(call, bad)


@pytest.mark.parametrize("undefined", [NAN, INF])
def test_a_mean_of_what_is_undefined_for_a_unit_stays_open(undefined: float) -> None:
    values = [5.0, 5.1, undefined, 5.2]
    assert above(values, 0, if_right=5) == within(values, 0, 9, if_right=5) == (None, 0.0)


def test_hits_may_be_of_any_kind_that_is_yes_or_no() -> None:
    found = share_above(HITS, 0.5, if_right=0.9)
    for hits in ([*map(int, HITS)], pd.Series(HITS), [*map(float, HITS)]):
        assert share_above(hits, 0.5, if_right=0.9) == found
    assert certain(pd.Series([True])[0]) == Condition(True, 1.0) != certain(0)


def test_what_rounding_puts_above_zero_counts_as_zero() -> None:
    table = pd.DataFrame({"E0": [1e-8], "F": [-1.0]})
    assert hypervolume(table, ["E0", "F"], [-2.0, -2.0]) == 0.5
