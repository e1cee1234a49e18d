"""What was handed in: found in any usual layout, and put into the frame of the student version."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from assignments.tools.mend import mend
from assignments.tools.submissions import find
from assignments.tools.vault import Vault

pytestmark = pytest.mark.unit


def write(path: Path, text: str = "{}", age: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))


@pytest.mark.parametrize(
    "place",
    [
        "ada/ps1.ipynb",
        "ada/ps1/ps1.ipynb",
        "ada-ps1.ipynb",
        "ps1_ada.ipynb",
        "ps1/ada.ipynb",
        "ada/PS1 (2).ipynb",
    ],
)
def test_a_submission_is_found_in_any_usual_layout(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    found, notes = find(tmp_path, ["ps1", "ps2"])
    assert [(one.student, one.set) for one in found] == [("ada", "ps1")] and not notes


def test_the_newest_counts_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    write(tmp_path / "ada" / "ps1.ipynb", "new")
    write(tmp_path / "ada" / "ps1-draft.ipynb", "old", age=60)
    write(tmp_path / "bob" / "homework.ipynb")
    write(tmp_path / "ada" / ".ipynb_checkpoints" / "ps1.ipynb")
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "ps1.ipynb").symlink_to(tmp_path / "ada" / "ps1.ipynb")
    found, notes = find(tmp_path, ["ps1"])
    assert [(one.student, one.text) for one in found] == [("ada", "new")]
    assert (
        len(notes) == 3
        and any("more than once" in note for note in notes)
        and any("a link" in note for note in notes)
    )


def test_a_name_cannot_lead_out_of_the_folder_of_results(tmp_path: Path) -> None:
    write(tmp_path / "-a; rm ..b=" / "ps1.ipynb")
    (one,) = find(tmp_path, ["ps1"])[0]
    assert "/" not in one.student and " " not in one.student and not one.student.startswith(".")


def cell(kind, source: str, grade_id: str, **more):
    made = kind(source)
    made.metadata["nbgrader"] = {
        "grade_id": grade_id,
        "solution": False,
        "grade": False,
        "locked": True,
    } | more
    return made


def frame():
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            cell(new_code_cell, "import math", "setup"),
            cell(
                new_code_cell,
                "def f(): raise NotImplementedError()",
                "part1",
                solution=True,
                locked=False,
            ),
            cell(new_code_cell, "assert f() == 1", "part1-check", grade=True, points=3),
        ]
    )


def test_answers_and_own_cells_come_from_the_student_and_the_rest_from_the_frame() -> None:
    submitted = frame()
    submitted.cells[2].source = "def f(): return g()"
    submitted.cells[3].source = "pass"
    submitted.cells[3].metadata.nbgrader["points"] = 100
    submitted.cells.insert(2, new_code_cell("def g(): return 1"))
    mended, notes = mend(nbformat.writes(submitted), frame())
    assert [one.source for one in mended.cells] == [
        "# Title",
        "import math",
        "def g(): return 1",
        "def f(): return g()",
        "assert f() == 1",
    ]
    assert mended.cells[-1].metadata.nbgrader.points == 3
    assert notes == ["part1-check was changed; the original counts"]


def test_missing_doubled_and_unreadable_cells_are_mended() -> None:
    submitted = frame()
    submitted.cells = [
        submitted.cells[2],
        cell(new_code_cell, "def f(): return 2", "part1", solution=True),
    ]
    mended, notes = mend(nbformat.writes(submitted), frame())
    assert [one.source for one in mended.cells] == [one.source for one in frame().cells]
    assert set(notes) == {
        "part1 is there twice; the first counts",
        "setup was missing",
        "part1-check was missing",
    }
    for text in (
        "",
        "[]",
        "{",
        '{"cells": 3}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
    ):
        mended, notes = mend(text, frame())
        assert len(mended.cells) == 4 and notes, text


def test_files_that_were_changed_or_deleted_are_put_back(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a", "one")
    write(tmp_path / "in" / "b", "two")
    vault = Vault()
    vault.keep(tmp_path / "in")
    assert not vault.restore()
    (tmp_path / "in" / "a").write_text("changed")
    (tmp_path / "in" / "b").unlink()
    assert len(vault.restore()) == 2
    assert (tmp_path / "in" / "a").read_text() == "one" and (
        tmp_path / "in" / "b"
    ).read_text() == "two"
