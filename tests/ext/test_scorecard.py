"""The scorecard: a row for every result, from what the chapters recorded and nothing else."""

from __future__ import annotations

import re
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book._ext import scorecard as extension
from book._ext.agreement import compare, stands_on
from book._ext.cache import ROOT
from book._ext.scorecard import (
    as_csv,
    as_html,
    claims_in,
    counts,
    read_csv,
    scorecard,
)
from helpers.results.claims import INVENTORY, VERDICTS, Claim, closing_table
from helpers.results.records import read_record
from tests.results.test_claims import GOOD

pytestmark = pytest.mark.unit


def chapter(*claims: dict) -> nbformat.NotebookNode:
    """An executed chapter whose closing table holds claims that differ from ``GOOD``."""
    bundle = closing_table([Claim(**GOOD | claim) for claim in claims])._repr_mimebundle_()
    closing = new_code_cell("x", outputs=[new_output("execute_result", bundle)])
    return new_notebook(cells=[closing, new_code_cell("y")])


def test_claims_come_back_as_they_were_recorded():
    assert claims_in(chapter({"figure": "fig-one"})) == [Claim(**GOOD, figure="fig-one")]


def test_every_result_has_a_row_in_order_with_its_verdict_and_a_link_to_figure_or_table():
    assert counts(scorecard({})) == {"missing": len(INVENTORY)}
    one = chapter({}, {"id": "OP-3", "verdict": "does not hold"})
    two = chapter({"id": "AS-2", "figure": "fig-two"})
    rows = scorecard({"a/one": one, "b/two": two})
    assert [row.id for row in rows] == list(INVENTORY)
    assert [row.link for row in rows[:3]] == ["a/one.html#as-1", "b/two.html#fig-two", None]
    assert counts(rows) == {"holds": 2, "does not hold": 1, "missing": len(INVENTORY) - 3}


def test_a_result_recorded_twice_or_unknown_is_refused():
    with pytest.raises(ValueError, match="AS-1 is recorded twice: by one and two"):
        scorecard({"one": chapter({}), "two": chapter({})})
    with pytest.raises(ValueError, match="no result of either paper"):
        scorecard({"one": chapter({"id": "OP-21"})})


def test_the_table_for_programs_keeps_numbers_in_full_and_can_be_read_again():
    text = as_csv(scorecard({"a/one": chapter({"value": 1 / 3, "ours": 'a "b", c'})}))
    first = read_csv(text)["AS-1"]
    assert float(first["value"]) == 1 / 3
    assert first["ours"] == 'a "b", c' and first["page"] == "a/one.html"
    with pytest.raises(ValueError, match="a scorecard has the columns"):
        read_csv("a,b\n1,2\n")


def test_the_table_for_readers_counts_escapes_and_shows_what_is_missing():
    rows = scorecard({"a/one": chapter({}, {"id": "OP-1", "verdict": "holds in part"})})
    page = BeautifulSoup(as_html(rows, {"gpt2": read_csv(as_csv(rows))}), "html.parser")
    assert len(page.select("table.scorecard tbody")) == len(INVENTORY)
    row = page.select_one("tbody[data-verdict='holds']")
    assert "a < b" in row.text and "n = 8 prompts, 2 seeds, smollm2" in row.text
    assert row.a["href"] == "a/one.html#as-1" and row["data-paper"] == "AS"
    heads = [th.text for th in page.select("table.scorecard th")]
    assert heads == ["Result", "Paper", "Ours", "Verdict", "Stands on"]
    assert "no chapter has recorded AS-2" in page.text
    total = [td.text for td in page.select("table.counts tr")[-1].select("td")]
    assert total == ["1", "1", "0", "0", str(len(INVENTORY) - 2), str(len(INVENTORY))]


def test_a_row_is_short_with_a_mark_for_each_verdict_that_differs_and_all_of_it_folded():
    rows = scorecard({"a": chapter({"ours": "one half [0.1, 0.9]; shuffled 0"}, {"id": "AS-2"})})
    away = {"same": recorded(), "former": recorded(verdict="undecided", criterion="another")}
    away |= {run: recorded(verdict="undecided") for run in ("one", "two")}
    body = BeautifulSoup(as_html(rows, away), "html.parser").select_one("table.scorecard tbody")
    ours = body.select("td")[2]
    assert ours.text == "one half [0.1, 0.9] …"
    (mark,) = body.select(".mark")
    assert mark.text == "undecided × 2" and mark["title"] == "one, two"
    details = body.select_one("details")
    assert "shuffled 0" in details.text and Claim(**GOOD).criterion in details.text
    assert len(details.select(".verdict")) == 4 and not details.has_attr("open")


def test_another_run_s_verdicts_are_compared_where_both_have_one():
    one, two, three = (
        {"id": id, "criterion": INVENTORY[id]["rule"]} for id in ("AS-1", "AS-2", "AS-3")
    )
    here = scorecard({"a/one": chapter(one, two, three)})
    there = chapter(one | {"verdict": "does not hold"}, two, {"id": "OP-1"})
    others = {"seed-1": read_csv(as_csv(scorecard({"a/one": there})))}
    others["same"] = read_csv(as_csv(here))
    page = BeautifulSoup(as_html(here, others), "html.parser")
    assert [p.text for p in page.select("p") if "verdicts" in p.text] == [
        "seed-1: 1 of 2 verdicts are the same; the others: AS-1 does not hold, here holds.",
        "same: 3 of 3 verdicts are the same.",
    ]


def recorded(**changes) -> dict:
    """The scorecard of another run that judged AS-1, by the rule of now unless that is changed."""
    changes = {"criterion": INVENTORY["AS-1"]["rule"]} | changes
    return read_csv(as_csv(scorecard({"a": chapter(changes)})))


def test_a_verdict_stands_on_the_runs_that_were_judged_by_the_same_rule():
    rows = scorecard({"a/one": chapter({})})
    others = {"1": recorded(), "2": recorded(verdict="undecided"), "3": recorded(model="gpt2")}
    assert str(stands_on(rows[0].claim, {})) == "1 seed, 1 model"
    assert str(stands_on(rows[0].claim, others)) == "3 seeds, 2 models; same verdict in 3 of 4 runs"
    assert stands_on(rows[1].claim, others) is None  # no chapter has recorded it
    others = {"former": recorded(criterion="another rule")}
    assert str(stands_on(rows[0].claim, others)) == "1 seed, 1 model"
    assert compare([row.claim for row in rows], others["former"]) == (0, [])


@pytest.mark.parametrize(("seen", "fresh"), [("prompts", (2, 3)), ("weights", (1, 1))])
def test_where_a_rule_was_settled_late_only_fresh_data_count(monkeypatch, seen, fresh):
    monkeypatch.setitem(INVENTORY, "AS-1", INVENTORY["AS-1"] | {"seen": seen})
    rows = scorecard({"a/one": chapter({})})
    others = {"1": recorded(), "2": recorded(verdict="undecided"), "3": recorded(model="gpt2")}
    found = stands_on(rows[0].claim, others)
    assert (found.fresh_same, found.fresh) == fresh
    assert f"in {fresh[0]} of {fresh[1]} run" in str(found)
    assert "not yet judged on fresh data" in str(stands_on(rows[0].claim, {}))


def test_recorded_runs_are_whole_and_have_a_verdict_for_every_result_that_they_name():
    for path in (ROOT / "book" / extension.OTHER_RUNS).glob("*.csv"):
        origin = read_record(path)[1]  # refuses a file that was changed
        table = read_csv(path.read_text(encoding="utf-8"))
        assert table and path.stem == f"{origin['model']}-seed-{origin['seed']}"
        assert list(table) == [id for id in INVENTORY if id in table]
        assert {row["verdict"] for row in table.values()} <= set(VERDICTS)
        pages = {row["page"].removesuffix(".html") for row in table.values()}
        assert pages == set(origin["chapters"])
        assert not any(ran["profile"] == "smoke" for ran in origin["chapters"].values())
        for id, row in table.items():  # the page has the box of this result today
            chapter = ROOT / "book" / row["page"].replace(".html", ".ipynb")
            assert re.search(rf"how_judged\(.*\b{id}\b", chapter.read_text(encoding="utf-8")), id


@pytest.mark.parametrize("recorded", [list(INVENTORY), list(INVENTORY)[1:]])
def test_a_missing_result_is_a_warning_which_fails_the_build(monkeypatch, tmp_path, recorded):
    warned = []
    warn = lambda text, *given, **_: warned.append(text % given)  # noqa: E731
    rows = scorecard({"one": chapter(*({"id": id} for id in recorded))})
    monkeypatch.setattr(extension.logger, "warning", warn)
    monkeypatch.setattr(extension, "rows_of", lambda app: rows)
    page = nodes.document("", "")
    page += extension.scorecard_node()
    extension.fill_in(SimpleNamespace(srcdir=str(tmp_path)), page, "scorecard")
    assert "<table" in page[0].astext()
    assert len(warned) == len(INVENTORY) - len(recorded)
    assert all("AS-1" in text for text in warned)
