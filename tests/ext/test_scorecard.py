"""The scorecard: a row for every result, out of what the chapters recorded, and nothing else."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book._ext import scorecard_page
from book._ext.scorecard import as_csv, as_html, claims_in, counts, read_csv, scorecard
from helpers.results.claims import INVENTORY, VERDICTS, Claim, closing_table
from tests.results.test_claims import GOOD

pytestmark = pytest.mark.unit


def chapter(*claims: dict) -> nbformat.NotebookNode:
    bundle = closing_table([Claim(**GOOD | claim) for claim in claims])._repr_mimebundle_()
    return new_notebook(
        cells=[
            new_code_cell("x", outputs=[new_output("execute_result", bundle)]),
            new_code_cell("y"),
        ]
    )


def test_every_result_of_both_papers_has_a_row_in_order():
    rows = scorecard({})
    assert [row.id for row in rows] == [f"AS-{i}" for i in range(1, 17)] + [
        f"OP-{i}" for i in range(1, 21)
    ]
    assert counts(rows) == {"missing": len(INVENTORY)}


def test_claims_come_back_as_they_were_recorded():
    (claim,) = claims_in(chapter({"figure": "fig-one"}))
    assert claim == Claim(**GOOD, figure="fig-one")


def test_rows_hold_what_the_chapters_recorded_and_link_to_figure_or_table():
    pages = {
        "a/one": chapter({}, {"id": "OP-3", "verdict": "does not hold"}),
        "b/two": chapter({"id": "AS-2", "figure": "fig-two"}),
    }
    rows = {row.id: row for row in scorecard(pages)}
    assert rows["AS-1"].link == "a/one.html#as-1"
    assert rows["AS-2"].link == "b/two.html#fig-two"
    assert counts(list(rows.values())) == {
        "holds": 2,
        "does not hold": 1,
        "missing": len(INVENTORY) - 3,
    }


def test_a_result_recorded_twice_or_unknown_is_refused():
    with pytest.raises(ValueError, match="AS-1 is recorded twice: by one and two"):
        scorecard({"one": chapter({}), "two": chapter({})})
    with pytest.raises(ValueError, match="no result of either paper"):
        scorecard({"one": chapter({"id": "OP-21"})})


def test_the_table_for_programs_keeps_numbers_in_full_and_can_be_read_again():
    text = as_csv(scorecard({"a/one": chapter({"value": 1 / 3, "ours": 'a "b", c'})}))
    first = next(csv.DictReader(io.StringIO(text)))
    assert (
        float(first["value"]) == 1 / 3
        and first["ours"] == 'a "b", c'
        and first["page"] == "a/one.html"
    )
    assert read_csv(text)["AS-1"] == first
    with pytest.raises(ValueError, match="a scorecard has the columns"):
        read_csv("a,b\n1,2\n")


def test_the_table_for_readers_counts_escapes_and_shows_what_is_missing():
    rows = scorecard({"a/one": chapter({}, {"id": "OP-1", "verdict": "holds in part"})})
    page = BeautifulSoup(as_html(rows, {"gpt2": read_csv(as_csv(rows))}), "html.parser")
    assert len(page.select("table.scorecard tbody tr")) == len(INVENTORY)
    row = page.select_one("tr[data-verdict='holds']")
    assert "a < b" in row.text and row.a["href"] == "a/one.html#as-1" and row["data-paper"] == "AS"
    assert [th.text for th in page.select("table.scorecard th")] == [
        "Result",
        "Paper",
        "Ours",
        "Verdict",
        "gpt2",
    ]
    assert "no chapter has recorded AS-2" in page.text
    assert [td.text for td in page.select("table.counts tr")[-1].select("td")] == [
        "1",
        "1",
        "0",
        str(len(INVENTORY) - 2),
        str(len(INVENTORY)),
    ]


def test_another_run_s_verdicts_are_compared_where_both_have_one():
    rows = scorecard({"a/one": chapter({}, {"id": "AS-2"}, {"id": "AS-3"})})
    other = read_csv(
        as_csv(
            scorecard(
                {"a/one": chapter({"verdict": "does not hold"}, {"id": "AS-2"}, {"id": "OP-1"})}
            )
        )
    )
    page = BeautifulSoup(
        as_html(rows, {"seed-1": other, "same": read_csv(as_csv(rows))}), "html.parser"
    )
    assert [p.text for p in page.select("p") if "verdicts" in p.text] == [
        "seed-1: 1 of 2 verdicts are the same; the others: AS-1 does not hold, here holds.",
        "same: 3 of 3 verdicts are the same.",
    ]


@pytest.mark.parametrize(
    "path",
    sorted(Path(scorecard_page.__file__).parents[1].glob("scorecards/*.csv")),
    ids=lambda path: path.stem,
)
def test_scorecards_of_other_runs_have_a_verdict_for_every_result(path):
    table = read_csv(path.read_text(encoding="utf-8"))
    assert list(table) == list(INVENTORY) and {row["verdict"] for row in table.values()} <= set(
        VERDICTS
    )


def test_a_result_without_a_record_is_warned_of_which_fails_the_build(monkeypatch, tmp_path):
    """The site is built with -W: every warning makes the build fail."""
    warned = []
    monkeypatch.setattr(
        scorecard_page.logger, "warning", lambda text, *given, **_: warned.append(text % given)
    )
    app = SimpleNamespace(srcdir=str(tmp_path))
    for pages, missing in (
        ({"one": chapter(*({"id": id} for id in INVENTORY))}, 0),
        ({"one": chapter(*({"id": id} for id in list(INVENTORY)[1:]))}, 1),
    ):
        monkeypatch.setattr(scorecard_page, "rows_of", lambda app: scorecard(pages))
        page = nodes.document("", "")
        page += scorecard_page.scorecard_node()
        scorecard_page.fill_in(app, page, "scorecard")
        assert len(warned) == missing and "<table" in page[0].astext()
    assert "AS-1" in warned[0]
