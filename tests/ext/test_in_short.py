"""A chapter's sentences stand only where its run came to the verdict that they suppose."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag
from docutils import nodes, utils
from nbformat.v4 import new_code_cell, new_notebook, new_output
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext import in_short
from helpers.results.claims import INVENTORY, MIME, claim, closing_table

pytestmark = pytest.mark.unit

PAGE = (
    """# A chapter

:::{in-short}
- AS-1 holds: Scalars swap
  the answers.
- AS-2 holds: The map is *sparse*.
:::

## Words

"""
    + "word " * 390
)


def new_document(name: str, cells: list[nodes.Node]) -> nodes.document:
    """A page of some 400 words and these cells."""
    document = utils.new_document(name)
    document.extend([nodes.paragraph("", "word " * 400), *cells])
    return document


def built(tmp_path: Path, page: str, monkeypatch, profile: str = "default") -> Tag:
    """The page, in a run where AS-1 holds and AS-2 does not."""
    measured = {"ours": "–", "n": 1, "unit": "draws"}
    claims = [
        claim("AS-1", verdict="holds", **measured),
        claim("AS-2", verdict="does not hold", **measured),
    ]
    outputs = [
        new_output("display_data", closing_table(claims)._repr_mimebundle_()),
        new_output(
            "display_data", {"text/html": ""}, metadata={"text/html": {"run": {"seconds": 42.4}}}
        ),
    ]
    notebook = new_notebook(cells=[new_code_cell(outputs=outputs)])
    assert MIME in outputs[0]["data"]
    monkeypatch.setattr(in_short, "executed", lambda app, page: notebook)
    monkeypatch.setattr(in_short, "SETTINGS", replace(in_short.SETTINGS, profile=profile))
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(page, encoding="utf-8")
    extensions = ["myst_parser", "book._ext.in_short"]
    settings = {"extensions": extensions, "myst_enable_extensions": ["colon_fence"]}
    where = [source, None, tmp_path / "out", tmp_path / "trees"]
    with docutils_namespace():
        warnings = StringIO()
        Sphinx(*where, "html", confoverrides=settings, status=None, warning=warnings).build()
    assert not warnings.getvalue(), warnings.getvalue()
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


def test_a_sentence_stands_where_its_verdict_does_and_gives_way_where_not(tmp_path, monkeypatch):
    box = built(tmp_path, PAGE, monkeypatch).select_one(".in-short")
    first, second = box.select("li")
    assert first.get_text().split() == "AS-1 holds Scalars swap the answers.".split()
    assert "The map is" not in second.get_text() and "does not hold" in second.get_text()
    assert [chip["class"] for chip in box.select(".verdict")] == [
        ["verdict", "holds"],
        ["verdict", "does-not-hold"],
    ]
    assert [link["href"] for link in box.select("a")] == ["#as-1", "#as-2"]
    assert "About 2 minutes to read; 42 seconds to run." in box.get_text()


@pytest.mark.slow
def test_a_test_run_has_no_findings(tmp_path, monkeypatch):
    box = built(tmp_path, PAGE, monkeypatch, profile="smoke").select_one(".in-short")
    assert "Scalars swap the answers" not in box.get_text()


def test_only_what_is_open_takes_time_to_read() -> None:
    def cell(part: str, *tags: str) -> nodes.container:
        block = nodes.container("", nodes.literal_block("", "x = 1\n" * 45), classes=[part])
        return nodes.container("", block, classes=["cell", *tags])

    found = []
    for cells in ([], [cell("cell_input")], [cell("cell_output")]):
        found.append(in_short.minutes_to_read(new_document("page", cells)))
    for tag in ("tag_hide-input", "tag_remove-input"):
        found.append(in_short.minutes_to_read(new_document("page", [cell("cell_input", tag)])))
    assert found == [(2, 0), (5, 0), (2, 0), (2, 3), (2, 3)]


WORDS = "word " * 400
HINT = (
    f"1. Try. <details><summary>Hint</summary>{WORDS}\n\n   ```python\n{{}}   ```\n\n   </details>"
)
BOX = f":::{{admonition}} More\n:class: dropdown\n{WORDS}\n:::"


@pytest.mark.parametrize("folded", [BOX, HINT.format("   x = 1\n" * 30)])
def test_folded_prose_is_told_apart(tmp_path, monkeypatch, folded):
    n_all = 6 if folded.startswith("1.") else 4
    page = f"{PAGE}\n\n{folded}\n\nThe end."
    text = built(tmp_path, page, monkeypatch).select_one(".in-short").get_text()
    assert f"About 2 minutes to read, {n_all} with all that is folded; 42 seconds to run." in text


@pytest.mark.parametrize("profile", ["default", "smoke"])
def test_a_sentence_that_supposes_no_verdict_stands_in_any_run(tmp_path, monkeypatch, profile):
    page = PAGE.replace("- AS-2 holds: The map is", "- measured: The map is")
    _, second = built(tmp_path, page, monkeypatch, profile).select(".in-short li")
    assert second.get_text().split() == "The map is sparse.".split() and not second.select(
        ".verdict"
    )


def test_other_pages_can_state_how_long_a_page_takes(tmp_path, monkeypatch):
    page = PAGE + "\n\nTime: {minutes}`index`"
    assert "Time: 2 minutes" in built(tmp_path, page, monkeypatch).get_text()


@pytest.mark.parametrize("item", ["- AS-1: no verdict", "- AS-99 holds: unknown", "no list"])
def test_a_sentence_without_a_known_claim_and_verdict_fails_the_build(tmp_path, monkeypatch, item):
    page = PAGE.replace("- AS-2 holds: The map is *sparse*.", item)
    page = page.replace("- AS-1 holds: Scalars swap\n  the answers.\n", "")
    with pytest.raises(AssertionError, match="not of the form"):
        built(tmp_path, page, monkeypatch)


def test_a_sentence_says_what_fresh_data_say_where_the_rule_was_settled_late(tmp_path, monkeypatch):
    monkeypatch.setitem(INVENTORY, "AS-1", INVENTORY["AS-1"] | {"seen": "prompts"})
    judged = {"criterion": INVENTORY["AS-1"]["rule"], "model": "smollm2"}
    runs = {
        "1": {"AS-1": judged | {"verdict": "holds"}},
        "2": {"AS-1": judged | {"verdict": "undecided"}},
    }
    monkeypatch.setattr(in_short, "other_runs", lambda app: runs)
    first, second = built(tmp_path, PAGE, monkeypatch).select(".in-short li")
    assert "(On fresh data the same verdict in 1 of 2 runs.)" in first.text
    assert "fresh data" not in second.text
