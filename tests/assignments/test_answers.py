"""Wrong answers lose their part and no other; right ones keep theirs, whatever their style.

The cells of a set run in this process, with a tiny random model in place of the embedded one.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import SimpleNamespace

import pytest
from nbformat import NotebookNode
from transformers import AutoTokenizer

from assignments import checks
from assignments.tools.frame import read_frame
from assignments.tools.sources import ROOT, marks, read_set, set_names, shown
from helpers.models.packed import packed_model

pytestmark = pytest.mark.integration

SETS = set_names()
PARTS = {name: [one.id for one in read_frame(name).parts.values() if one.names] for name in SETS}
ANSWERS = {name: import_module(f"answers_{name}") for name in SETS}
WRONG = []
for _name in SETS:
    for _part in PARTS[_name]:
        WRONG += [(_name, _part, fault) for fault in ANSWERS[_name].WRONG[_part]]
# Faults that could reach other parts, through a model or a list.
LEAVES_TRACES = {
    "hook left on",
    "weights edited",
    "in-place edit before the copy",
    "the list is shuffled in place",
    "people are taken out of the list",
}


@pytest.fixture(scope="module", autouse=True)
def tiny_in_place_of_the_embedded_model() -> Iterator[None]:
    known = dict(checks.models._MODELS)
    folder = packed_model("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder, add_bos_token=True, local_files_only=True)
    checks.models._MODELS.clear()
    checks.models._MODELS[()] = SimpleNamespace(tokenizer=tokenizer)
    checks.models._MODELS[()] = checks.models._random_model("llama", seed=99)
    sys.modules["checks"] = checks  # the name by which the notebooks import it
    yield
    checks.models._MODELS.clear()
    checks.models._MODELS.update(known)
    del sys.modules["checks"]


@cache
def code_cells(name: str) -> list[NotebookNode]:
    return [cell for cell in read_set(name).cells if cell.cell_type == "code"]


def reference(name: str) -> dict[str, str]:
    """The reference answers of a set, by part."""
    return {marks(cell).grade_id: cell.source for cell in code_cells(name) if marks(cell).solution}


def run(
    cells: list[NotebookNode], answers: dict[str, str], space: dict | None = None
) -> dict[str, BaseException]:
    """Run cells with other answers than the reference, and return what they raise, by cell."""
    space = {"__name__": "__main__"} if space is None else space
    raised = {}
    for cell in cells:
        grade_id = marks(cell).grade_id
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(answers.get(grade_id, cell.source), grade_id, "exec"), space)
        except BaseException as error:  # student code can raise anything
            raised[grade_id] = error
    return raised


@cache
def namespaces(name: str) -> dict[str, dict]:
    """The variables before each answer cell, all answers before it being right."""
    space, before = {"__name__": "__main__"}, {}
    for cell in code_cells(name):
        before[marks(cell).grade_id] = dict(space)
        if not to_look_at(cell):
            assert not run([cell], {}, space)
    return before


def to_look_at(cell: NotebookNode) -> bool:
    """Whether a cell only shows something."""
    return "look" in cell.metadata.get("tags", [])


def faulty(name: str, part: str, fault: str) -> dict[str, str]:
    """The reference answer to a part with a fault."""
    right, (old, new) = reference(name)[part], ANSWERS[name].WRONG[part][fault]
    assert old in right
    return {part: right.replace(old, new)}


@pytest.mark.parametrize("name", SETS)
def test_the_reference_answers_pass_every_check(name: str) -> None:
    """What is only to be looked at is not run for the other tests."""
    before = namespaces(name)
    for cell in filter(to_look_at, code_cells(name)):
        assert not run([cell], {}, dict(before[marks(cell).grade_id]))


@pytest.mark.parametrize("name", SETS)
def test_an_empty_set_scores_nothing_and_raises_nothing_but_not_implemented(name: str) -> None:
    stub = "\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    answers = {part: shown(source) + stub for part, source in reference(name).items()}
    raised = run(code_cells(name), answers)
    assert {part for part in raised if "check" in part} == {f"{part}-check" for part in PARTS[name]}
    assert {type(error) for error in raised.values()} == {NotImplementedError}


@cache
def message(name: str, part: str, fault: str) -> str:
    """What the check of a part says of a fault."""
    cells = [cell for cell in code_cells(name) if marks(cell).grade_id in (part, f"{part}-check")]
    raised = run(cells, faulty(name, part, fault), dict(namespaces(name)[part]))
    assert list(raised) == [f"{part}-check"]
    # Any other error would say that the fault is out of date.
    assert isinstance(raised[f"{part}-check"], AssertionError), raised
    return str(raised[f"{part}-check"])


@pytest.mark.parametrize("name, part, fault", WRONG)
def test_a_wrong_answer_loses_its_part_and_the_check_says_why(
    name: str, part: str, fault: str
) -> None:
    assert message(name, part, fault)


@pytest.mark.parametrize("name, part, fault", [case for case in WRONG if case[2] in LEAVES_TRACES])
def test_a_wrong_answer_that_leaves_traces_costs_no_other_part(
    name: str, part: str, fault: str
) -> None:
    """Before its own part, everything is as with right answers."""
    cells = code_cells(name)
    start = [marks(cell).grade_id for cell in cells].index(part)
    cells = [cell for cell in cells[start:] if not to_look_at(cell)]
    raised = run(cells, faulty(name, part, fault), dict(namespaces(name)[part]))
    assert list(raised) == [f"{part}-check"]


@pytest.mark.parametrize("name", SETS)
def test_right_answers_in_another_style_keep_full_marks(name: str) -> None:
    assert set(ANSWERS[name].RIGHT) == set(PARTS[name])
    assert not run(code_cells(name), ANSWERS[name].RIGHT)


def test_the_page_for_teachers_quotes_the_checks() -> None:
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    table = page.partition("## Wrong answers")[2].partition("\n\n`tests")[0]
    said = [message(*case) for case in WRONG]
    quotes = re.findall(r"\*(.+?)\*", table)
    for quote in quotes:
        for piece in quote.split("…"):
            assert any(piece in text for text in said), piece
    assert len(quotes) >= 14


@pytest.mark.parametrize("name", SETS)
def test_a_part_has_five_wrong_answers_and_names_helpers_that_exist(name: str) -> None:
    helpers = "".join(path.read_text("utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    assert all(len(ANSWERS[name].WRONG[part]) >= 5 for part in PARTS[name])
    for cell in code_cells(name):
        for names in re.findall(r"own_work\(\w+, (.+)\)", cell.source):
            for helper in re.findall(r'"(\w+)"', names):
                assert re.search(rf"(def |class |\.){helper}\b", helpers), helper
