"""Closing tables: records that a program can read, and no verdict outside the three words."""

from __future__ import annotations

import json

import pytest

from helpers.results.claims import MIME, Claim, closing_table, verdict

pytestmark = pytest.mark.unit
GOOD = dict(
    id="AS-1", statement="a < b", paper="0.5 (GPT2-XL)", ours="0.4 [0.3, 0.5]", value=0.4, low=0.3, high=0.5, n=8,
    unit="prompts", seeds=2, model="smollm2", verdict="holds", criterion="interval above 0",
)  # fmt: skip


def test_the_table_is_html_for_people_and_json_for_programs():
    bundle = closing_table(
        [Claim(**GOOD), Claim(**GOOD | {"id": "OP-2", "value": None})]
    )._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[MIME]))[0] == GOOD | {"figure": None}
    assert "a &lt; b" in bundle["text/html"] and "2 seeds" in bundle["text/html"]
    assert "AS-1: holds" in bundle["text/plain"]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "AS1"},
        {"verdict": "true"},
        {"value": float("nan")},
        {"n": 0},
        {"seeds": 0},
        {"high": float("inf")},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError):
        Claim(**GOOD | bad)


def test_a_claim_given_twice_or_none_at_all_is_refused():
    for claims in ([], [Claim(**GOOD), Claim(**GOOD)]):
        with pytest.raises(ValueError, match="different ids"):
            closing_table(claims)


def test_verdict_has_three_words():
    assert [verdict(True), verdict(False, in_part=True), verdict(False)] == [
        "holds",
        "holds in part",
        "does not hold",
    ]
