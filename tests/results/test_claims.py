"""Closing tables: records that a program can read, and no verdict outside the four words."""

from __future__ import annotations

import json
from html import escape

import pytest

from helpers.results.claims import (
    INVENTORY,
    MIME,
    SEEN,
    Claim,
    claim,
    closing_table,
    how_judged,
    verdict,
)
from helpers.results.rules import VERDICTS, Judged
from helpers.settings import SETTINGS

pytestmark = pytest.mark.unit
GOOD = {"id": "AS-1", "statement": "a < b", "paper": "0.5 (GPT2-XL)", "ours": "0.4 [0.3, 0.5]"}
GOOD |= {"value": 0.4, "low": 0.3, "high": 0.5, "n": 8, "unit": "prompts", "seeds": 2}
GOOD |= {"model": "smollm2", "verdict": "holds", "criterion": "interval above 0"}


def test_the_table_is_html_for_people_and_json_for_programs():
    claims = [Claim(**GOOD), Claim(**GOOD | {"id": "OP-2", "value": None})]
    bundle = closing_table(claims)._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[MIME]))[0] == GOOD | {"figure": None, "power": None}
    assert "a &lt; b" in bundle["text/html"] and "2 seeds" in bundle["text/html"]
    assert "AS-1: holds" in bundle["text/plain"]


BAD = [("verdict", "true"), ("value", float("nan")), ("high", float("inf")), ("n", 0), ("seeds", 0)]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_record_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError):
        Claim(**GOOD | {field: value})


def test_nothing_fails_to_hold_by_a_rule_without_power():
    with pytest.raises(ValueError, match="leaves it undecided"):
        Claim(**GOOD | {"verdict": "does not hold", "power": 0.7})
    assert Claim(**GOOD | {"verdict": "does not hold", "power": 0.8})


def test_the_box_and_the_closing_table_state_one_rule():
    box, rule = how_judged("OP-5", "OP-7").data, escape(INVENTORY["OP-7"]["rule"])
    assert rule in box and escape(INVENTORY["OP-7"]["control"]) in box
    run = {key: GOOD[key] for key in ("ours", "n", "unit")} | {"judged": Judged("holds", 1.0)}
    assert rule in closing_table([claim("OP-7", **run)])._repr_html_()
    with pytest.raises(KeyError):
        how_judged("OP-21")


def test_a_claim_given_twice_or_none_at_all_is_refused():
    for claims in ([], [Claim(**GOOD), Claim(**GOOD)]):
        with pytest.raises(ValueError, match="different ids"):
            closing_table(claims)


def test_a_rule_that_was_decided_elsewhere_has_the_four_words():
    words = (verdict(True), verdict(False, in_part=True), verdict(False), verdict(False, power=0.7))
    assert words == VERDICTS
    assert verdict(False, power=0.9) == "does not hold"


def test_the_data_file_holds_every_numbered_result_of_both_papers_in_order():
    ids = [f"AS-{i}" for i in range(1, 17)] + [f"OP-{i}" for i in range(1, 21)]
    assert list(INVENTORY) == ids
    for constants in INVENTORY.values():
        assert set(constants) - {"seen"} == {"where", "statement", "paper", "rule", "control"}
        assert constants.get("seen", "prompts") in SEEN
        assert all(constants.values())


def test_a_claim_takes_its_constants_from_the_data_file():
    run = {key: GOOD[key] for key in ("ours", "n", "unit", "seeds")}
    run["judged"] = Judged("undecided", 0.4)
    made = claim("OP-3", value=(0.4, 0.3, 0.5), **run)
    constants = {key: INVENTORY["OP-3"][key] for key in ("statement", "paper")}
    constants |= {"criterion": INVENTORY["OP-3"]["rule"], "verdict": "undecided", "power": 0.4}
    assert made == Claim(**GOOD | constants | {"id": "OP-3", "model": SETTINGS.model})
    assert "power 40%" in closing_table([made])._repr_html_()
    assert claim("OP-3", value=0.4, **run).low is None
    nan = float("nan")
    assert claim("OP-3", value=(0.4, nan, nan), **run).high is None  # one value has no interval
    with pytest.raises(ValueError, match="OP-21 is not a claim of either paper"):
        claim("OP-21", **run)
