"""What was handed in: found in any usual layout, and put into the frame of the student version."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from assignments.tools.backup import backup, restore
from assignments.tools.mend import mend
from assignments.tools.submissions import find

pytestmark = pytest.mark.unit


def write(path: Path, text: str = "{}", age: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))


LAYOUTS = ["ada/ps1", "ada/ps1/ps1", "ada-ps1", "ps1_ada", "ps1/ada", "ada/PS1 (2)"]


@pytest.mark.parametrize("place", LAYOUTS)
def test_a_submission_is_found_in_any_usual_layout(tmp_path: Path, place: str) -> None:
    write(tmp_path / f"{place}.ipynb")
    found, notes = find(tmp_path, ["ps1", "ps2"])
    assert [(one.student, one.set) for one in found] == [("ada", "ps1")] and not notes


def test_the_newest_counts_and_notes_say_what_was_left_out(tmp_path: Path) -> None:
    write(tmp_path / "ada" / "ps1.ipynb", "new")
    write(tmp_path / "ada" / "ps1-draft.ipynb", "old", age=60)
    write(tmp_path / "bob" / "homework.ipynb")
    write(tmp_path / "ada" / ".ipynb_checkpoints" / "ps1.ipynb")
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "ps1.ipynb").symlink_to(tmp_path / "ada" / "ps1.ipynb")
    found, notes = find(tmp_path, ["ps1"])
    assert [(one.student, one.text) for one in found] == [("ada", "new")]
    for note in ("more than once", "a link", "no set in its name"):
        assert len([said for said in notes if note in said]) == 1, note


def test_a_name_cannot_lead_out_of_the_folder_of_results(tmp_path: Path) -> None:
    write(tmp_path / "-a; rm ..b=" / "ps1.ipynb")
    (one,) = find(tmp_path, ["ps1"])[0]
    assert "/" not in one.student and " " not in one.student and not one.student.startswith(".")


def code(source: str, grade_id: str, **more):
    cell = new_code_cell(source)
    metadata = {"grade_id": grade_id, "solution": False, "grade": False, "locked": True}
    cell.metadata["nbgrader"] = metadata | more
    return cell


def frame():
    cells = [
        new_markdown_cell("# Title"),
        code("import math", "setup"),
        code("def f(): raise NotImplementedError()", "part1", solution=True, locked=False),
        code("assert f() == 1", "part1-check", grade=True, points=3),
    ]
    return new_notebook(cells=cells)


def test_answers_and_added_cells_come_from_the_student_and_the_rest_from_the_frame() -> None:
    submitted = frame()
    submitted.cells[2].source = "def f(): return g()"
    submitted.cells[3].source = "pass"
    submitted.cells[3].metadata.nbgrader["points"] = 100
    submitted.cells.insert(2, new_code_cell("def g(): return 1"))
    mended, notes = mend(nbformat.writes(submitted), frame())
    sources = ["# Title", "import math", "def g(): return 1", "def f(): return g()"]
    assert [one.source for one in mended.cells] == [*sources, "assert f() == 1"]
    assert mended.cells[-1].metadata.nbgrader.points == 3
    assert notes == ["part1-check was changed; the original counts"]


def test_missing_and_duplicated_cells_are_mended() -> None:
    submitted = frame()
    submitted.cells = [submitted.cells[2], code("def f(): return 2", "part1", solution=True)]
    mended, notes = mend(nbformat.writes(submitted), frame())
    assert [one.source for one in mended.cells] == [one.source for one in frame().cells]
    missing = {"setup was missing", "part1-check was missing"}
    assert set(notes) == {"part1 is there twice; the first counts"} | missing


@pytest.mark.parametrize("cells", ["", "[]", "{", '{"cells": 3}', '{"cells": [{"cell_type": 1}]}'])
def test_a_file_that_is_no_notebook_counts_as_empty(cells: str) -> None:
    mended, notes = mend(cells, frame())
    assert [one.source for one in mended.cells] == [one.source for one in frame().cells]
    assert len(notes) == 1 and "cannot be read as a notebook" in notes[0]


def test_files_that_were_changed_or_deleted_are_restored(tmp_path: Path) -> None:
    one, two = tmp_path / "in" / "a", tmp_path / "in" / "b"
    write(one, "one")
    write(two, "two")
    contents = backup(tmp_path)
    assert not restore(contents)
    one.write_text("changed")
    two.unlink()
    assert set(restore(contents)) == {one, two}
    assert (one.read_text(), two.read_text()) == ("one", "two")
