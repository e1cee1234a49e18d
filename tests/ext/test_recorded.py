"""What is recorded of other seeds and models: a file for each, chapters one by one."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book._ext import recorded
from book._ext.cache import ROOT
from book._ext.execute import Outcome
from book._ext.scorecard import read_csv
from helpers.results.claims import Claim, closing_table
from helpers.results.records import read_record
from helpers.settings import Settings
from tests.results.test_claims import GOOD

pytestmark = pytest.mark.unit


def executed(chapter: str, *claims: dict) -> Outcome:
    bundle = closing_table([Claim(**GOOD | claim) for claim in claims])._repr_mimebundle_()
    cell = new_code_cell("x", outputs=[new_output("execute_result", bundle)])
    return Outcome(ROOT / "book" / chapter, 2.0, new_notebook(cells=[cell]))


def test_a_chapter_replaces_its_own_rows_and_leaves_those_of_others(tmp_path):
    path = tmp_path / "smollm2-seed-1.csv"
    ones = executed("a/one.ipynb", {}, {"id": "AS-3"}), executed("b/two.ipynb", {"id": "AS-2"})
    again = executed("a/one.ipynb", {"verdict": "undecided"})
    for outcome in (*ones, again):
        recorded.write(path, [outcome], {outcome.path: "abc"})
    table = read_csv(path.read_text(encoding="utf-8"))
    assert {id: row["verdict"] for id, row in table.items()} == {
        "AS-1": "undecided",
        "AS-2": "holds",
    }
    assert float(table["AS-2"]["value"]) == GOOD["value"] and table["AS-2"]["power"] == ""
    chapters = read_record(path)[1]["chapters"]
    assert list(chapters) == ["a/one", "b/two"] and chapters["a/one"]["code"] == "abc"


def test_a_run_has_its_own_file_and_the_book_s_own_has_none(tmp_path):
    other = Settings(seed=100)
    assert recorded.file_of(other, tmp_path).name == "smollm2-seed-100.csv"
    other = Settings(model="gemma3-270m")
    assert recorded.file_of(other, tmp_path).name == "gemma3-270m-seed-0.csv"
    with pytest.raises(ValueError, match="set BOOK_SEED or BOOK_MODEL"):
        recorded.file_of(Settings(), tmp_path)
    with pytest.raises(ValueError, match="set BOOK_PROFILE=default"):
        recorded.file_of(Settings(seed=100, profile="smoke"), tmp_path)


def test_a_model_of_the_hub_has_a_file_that_pages_read(tmp_path):
    other = Settings(model="EleutherAI/pythia-70m")
    assert recorded.file_of(other, tmp_path).parent == tmp_path


def test_a_damaged_file_is_found_before_a_chapter_runs(tmp_path, monkeypatch):
    path = tmp_path / "smollm2-seed-1.csv"
    done = executed("a/one.ipynb", {})
    recorded.write(path, [done], {done.path: "abc"})
    path.write_text("id\n")
    monkeypatch.setattr(recorded, "file_of", lambda: path)
    monkeypatch.setattr(recorded, "execute_all", lambda *args: pytest.fail("a chapter ran"))
    assert "was changed after it was recorded" in recorded.main(["paths"])
    path.with_suffix(".json").unlink()
    assert recorded.main(["paths"]).startswith("Error:")


def test_the_digest_of_a_chapter_depends_on_its_code_and_not_on_its_prose(tmp_path):
    path = ROOT / "book" / "observable-propagation" / "paths.ipynb"
    copy, text = tmp_path / "paths.ipynb", path.read_text(encoding="utf-8")
    digests = []
    for changed in (
        text,
        text.replace("An MLP is not linear", "It is not"),
        text.replace("own =", "o ="),
    ):
        copy.write_text(changed, encoding="utf-8")
        digests.append(recorded.code_digest(copy))
    assert digests[0] == digests[1] != digests[2]


def test_a_chapter_that_does_not_exist_is_named(monkeypatch, capsys):
    monkeypatch.setattr(recorded, "file_of", lambda: ROOT / "x.csv")
    assert recorded.run(["nothing"]) == 1
    assert "no chapter nothing; use" in capsys.readouterr().err
    assert {"pronouns", "pareto"} <= set(
        recorded.with_claims()
    ) and "errata" not in recorded.with_claims()
