"""Closing tables: records that a program can read, and no verdict outside the three words."""

from __future__ import annotations

import json

import pytest

from helpers.results.claims import INVENTORY, MIME, Claim, claim, closing_table, verdict
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit
GOOD = {"id": "AS-1", "statement": "a < b", "paper": "0.5 (GPT2-XL)", "ours": "0.4 [0.3, 0.5]"}
GOOD |= {"value": 0.4, "low": 0.3, "high": 0.5, "n": 8, "unit": "prompts", "seeds": 2}
GOOD |= {"model": "smollm2", "verdict": "holds", "criterion": "interval above 0"}


def test_the_table_is_html_for_people_and_json_for_programs():
    claims = [Claim(**GOOD), Claim(**GOOD | {"id": "OP-2", "value": None})]
    bundle = closing_table(claims)._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[MIME]))[0] == GOOD | {"figure": None}
    assert "a &lt; b" in bundle["text/html"] and "2 seeds" in bundle["text/html"]
    assert "AS-1: holds" in bundle["text/plain"]


BAD = [("verdict", "true"), ("value", float("nan")), ("high", float("inf")), ("n", 0), ("seeds", 0)]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_record_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError):
        Claim(**GOOD | {field: value})


def test_a_claim_given_twice_or_none_at_all_is_refused():
    for claims in ([], [Claim(**GOOD), Claim(**GOOD)]):
        with pytest.raises(ValueError, match="different ids"):
            closing_table(claims)


def test_verdict_has_three_words():
    words = (verdict(True), verdict(False, in_part=True), verdict(False))
    assert words == ("holds", "holds in part", "does not hold")


def test_the_data_file_holds_every_numbered_result_of_both_papers_in_order():
    ids = [f"AS-{i}" for i in range(1, 17)] + [f"OP-{i}" for i in range(1, 21)]
    assert list(INVENTORY) == ids
    for constants in INVENTORY.values():
        assert set(constants) == {"where", "statement", "paper"} and all(constants.values())


def test_a_claim_takes_its_constants_from_the_data_file():
    run = {key: GOOD[key] for key in ("ours", "n", "unit", "seeds", "verdict", "criterion")}
    made = claim("OP-3", value=(0.4, 0.3, 0.5), **run)
    constants = {key: INVENTORY["OP-3"][key] for key in ("statement", "paper")}
    assert made == Claim(**GOOD | constants | {"id": "OP-3", "model": SETTINGS.model})
    assert claim("OP-3", value=0.4, **run).low is None
    with pytest.raises(ValueError, match="OP-21 is not a claim of either paper"):
        claim("OP-21", **run)
