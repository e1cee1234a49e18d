"""Answers that stand in an older file, in a text or at the end go to a person, never to a zero."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import pytest
import toy
from toy import at, code, index, text

from assignments.tools.fair import with_older
from assignments.tools.frame import Frame, parse, read_frame
from assignments.tools.matching import match
from assignments.tools.reading import Unreadable, read_cells
from assignments.tools.submissions import Handed

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    return read_frame("toy", toy.write_source(tmp_path_factory.mktemp("fair")))


@pytest.fixture
def version(frame: Frame, tmp_path: Path) -> dict:
    return toy.student_version(toy.write_source(tmp_path))


def cells_of(notebook: dict) -> list:
    return read_cells(json.dumps(notebook).encode())[0]


def handed(*notebooks: dict) -> Handed:
    """The newest file first, as ``find`` gives it."""
    files = []
    for number, notebook in enumerate(notebooks):
        data = json.dumps(notebook).encode()
        files.append(Handed("ada", "toy", f"ada/toy-{number}.ipynb", data))
    files[0].older = files[1:]
    return files[0]


def test_a_blank_newest_file_does_not_replace_an_answered_one(frame: Frame, version: dict) -> None:
    newest = match(cells_of(version), frame)
    assert not any(newest.answers.values())
    one = handed(version, version, toy.answered(version))
    plan, notes = with_older(newest, one, frame)
    assert all(plan.answers.values()) and not any(one.by_hand for one in plan.answers.values())
    assert notes == ["no answer in the newest file; ada/toy-2.ipynb was graded instead"]


def test_an_answer_in_an_older_file_alone_is_for_a_person(frame: Frame, version: dict) -> None:
    first, second = toy.answered(version), toy.answered(version, {2: "def times2(x): return x"})
    for grade_id in ("part1", "written5"):
        at(second, grade_id)["source"] = at(version, grade_id)["source"]
    plan, notes = with_older(match(cells_of(second), frame), handed(second, first), frame)
    by_hand = {part for part, answer in plan.answers.items() if answer.by_hand}
    assert by_hand == {"part1", "written5"} and not notes
    assert "return x" in plan.answers["part2"].text, "the newest answer counts"


def test_a_stub_with_the_student_s_id_filled_in_is_no_answer(frame: Frame, version: dict) -> None:
    notebook = toy.answered(version)
    at(notebook, "part1")["source"] = f'STUDENT = "ada"\n{at(version, "part1")["source"]}'
    assert not match(cells_of(notebook), frame).answers["part1"]


def test_written_answers_at_the_end_are_for_a_person(tmp_path: Path) -> None:
    """Where the last part is written too, they stand in its section and are not all its own."""
    folder = toy.write_source(tmp_path)
    path = folder / "toy" / "toy.ipynb"
    source = json.loads(path.read_text(encoding="utf-8"))
    last = copy.deepcopy(source["cells"][-2:])
    last[0]["source"] = "## Part 6: written too"
    last[1]["metadata"]["nbgrader"]["grade_id"] = "written6"
    last[0]["id"], last[1]["id"] = "text6", "written6"
    source["cells"] += last
    path.write_text(json.dumps(source), encoding="utf-8")
    frame, notebook = read_frame("toy", folder), toy.student_version(folder)
    for grade_id in ("written5", "written6"):
        at(notebook, grade_id)["source"] = "YOUR ANSWER HERE"
    notebook["cells"].append(text(f"**5.** {toy.WRITTEN} " * 3))
    answers = match(cells_of(notebook), frame).answers
    assert toy.WRITTEN in answers["written5"].text and answers["written5"].by_hand


def test_code_in_a_text_is_for_a_person(frame: Frame, version: dict) -> None:
    notebook = toy.answered(version)
    at(notebook, "part1")["source"] = at(version, "part1")["source"]
    notebook["cells"].append(text(f"```python\n{toy.RIGHT[1]}\n```"))
    answer = match(cells_of(notebook), frame).answers["part1"]
    assert "def times1" in answer.text and answer.by_hand


@pytest.mark.parametrize(
    "source",
    ["\n".join(["!a"] * 60_000), "x = " + "(" * 50_000, "%a?\n" * 9_000 + "def f(:"],
)
@pytest.mark.slow
def test_a_cell_that_no_one_would_write_is_read_in_seconds(frame, version, source: str) -> None:
    notebook, start = toy.answered(version), time.process_time()
    notebook["cells"].insert(index(notebook, "part1"), code(source))
    plan = match(cells_of(notebook), frame)
    assert plan.answers["part1"].text == toy.RIGHT[1] and parse(source) is None
    assert time.process_time() - start < 20


def test_magics_are_read(frame: Frame) -> None:
    assert parse("%%time\nx = 1") and parse("%matplotlib inline\nfiles = !ls\nx?\nimport a")
    assert parse("this is no Python") is None


def test_a_notebook_of_millions_of_characters_is_for_a_person() -> None:
    cells = [{"cell_type": "code", "source": "x" * 200_000}] * 21
    with pytest.raises(Unreadable, match="more than 4 million characters"):
        read_cells(json.dumps({"cells": cells}).encode())
